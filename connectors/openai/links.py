"""Links by which a picture can be opened without a key, as an <img> or a plain download must. Pure but for its key.

A link holds the picture's hash, when it ends, and an HMAC-SHA256 of both. The HMAC's key is random and kept in the data
folder (never derived from an API key): links stay good when a part is restarted, and revoking an API key does not break
those that were handed out. Deleting the secret and restarting ends all of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from schemas.errors import Rejected
from schemas.message import Attachment
from schemas.picture import EXTENSION

PATH = "/v1/images/files/"
MEDIA_TYPE = {extension: media_type for media_type, extension in EXTENSION.items()}
FILE = re.compile(rf"([0-9a-f]{{64}})\.({'|'.join(MEDIA_TYPE)})")
EXPIRES = re.compile(r"[0-9]{1,12}")


class Links:
    """Makes and checks them. `secret` is asked for at the first use."""

    def __init__(self, secret: Callable[[], str], age_s: float) -> None:
        self._secret = secret
        self._age_s = age_s
        self._key = b""

    def path(self, picture: Attachment, now: float) -> str:
        """Path and query, good for `age_s` from `now` (Unix seconds)."""
        name = f"{picture.sha256}.{EXTENSION.get(picture.media_type, 'png')}"
        expires = str(int(now + self._age_s))
        return f"{PATH}{name}?expires={expires}&signature={self._signature(name, expires)}"

    def check(self, name: str, expires: str, signature: str, now: float) -> None:
        """Raises `Rejected` for a link that was not made here, and for one that has ended."""
        good = EXPIRES.fullmatch(expires) is not None and signature.isascii()
        if not good or not hmac.compare_digest(signature, self._signature(name, expires)):
            raise Rejected("this link was not made here, or was changed; ask for the answer again", code="forbidden")
        if now >= int(expires):
            raise Rejected("this link has ended; ask for the answer again, or send an API key", code="expired")

    def _signature(self, name: str, expires: str) -> str:
        self._key = self._key or self._secret().encode()
        digest = hmac.digest(self._key, f"{name}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def file_of(name: str) -> tuple[str, str]:
    """SHA-256 and media type of a file's name in a link; raises `Rejected`."""
    found = FILE.fullmatch(name)
    if found is None:
        raise Rejected("there is no such file", code="not_found")
    return found[1], MEDIA_TYPE[found[2]]
