"""A finished picture as a PNG file that says how it was made, and that a model made it. Pure.

The mark is IPTC's digital source type `trainedAlgorithmicMedia` in an XMP packet (IPTC Photo Metadata Standard 2023.1,
Adobe XMP part 3 for PNG), and a plain text for readers that know no XMP. What always holds: the same picture gives the
same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from schemas.picture import Drawn

if TYPE_CHECKING:
    from PIL.Image import Image

MEDIA_TYPE = "image/png"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_KEYWORD = "XML:com.adobe.xmp"
XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmp:CreatorTool="Roost" Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
MADE_BY = "Made by a model (digital source type: trainedAlgorithmicMedia)"


def png(picture: Image, drawn: Drawn, version: str) -> bytes:
    """The file. `version`: of the model that drew it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in texts(drawn, version).items():
        info.add_itxt(key, text.replace("\0", ""), "", "", zip=len(text) > 1_000)
    info.add_itxt(XMP_KEYWORD, XMP)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def texts(drawn: Drawn, version: str) -> dict[str, str]:
    """What the file says of itself, by keyword."""
    said = {
        "Software": "Roost",
        "Source": MADE_BY,
        "prompt": drawn.prompt,
        "negative": drawn.negative,
        "seed": str(drawn.seed),
        "steps": str(drawn.steps),
        "guidance": f"{drawn.guidance:g}",
        "scheduler": drawn.scheduler,
        "size": f"{drawn.width}x{drawn.height}",
        "strength": "" if drawn.strength is None else f"{drawn.strength:g}",
        "adapter": drawn.adapter,
        "model": version,
    }
    return {key: text for key, text in said.items() if text}
