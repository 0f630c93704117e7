"""The outline of every object as SVG, in a box from -100 to 100. Pure text.

`main` is the colour asked for and covers most of the object; `shade` and `light` are the same hue, darker and paler.
"""

import math


def _points(pairs: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _star() -> str:
    corners = [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5) + 6) for i in range(10)
               for r in ((100, 42)[i % 2],)]  # fmt: skip
    return f'<polygon points="{_points(corners)}" fill="MAIN"/>'


def _sun() -> str:
    rays = "".join(
        f'<polygon points="-15,-62 15,-62 0,-100" fill="MAIN" transform="rotate({a})"/>' for a in range(0, 360, 30)
    )
    return rays + '<circle r="58" fill="MAIN"/><circle r="58" fill="none" stroke="SHADE" stroke-width="6"/>'


def _flower() -> str:
    petals = "".join(f'<circle cx="0" cy="-46" r="33" fill="MAIN" transform="rotate({a})"/>' for a in range(0, 360, 60))
    stem = '<rect x="-6" y="10" width="12" height="90" fill="#2e7d32"/><ellipse cx="26" cy="74" rx="24" ry="10" fill="#2e7d32"/>'
    return stem + f'<g transform="translate(0,-22)">{petals}<circle r="22" fill="SHADE"/></g>'


SHAPES: dict[str, str] = {
    "circle": '<circle r="92" fill="MAIN"/>',
    "square": '<rect x="-84" y="-84" width="168" height="168" fill="MAIN"/>',
    "triangle": '<polygon points="0,-90 98,84 -98,84" fill="MAIN"/>',
    "star": _star(),
    "heart": '<path d="M0,90 C-150,-20 -90,-120 0,-48 C90,-120 150,-20 0,90 Z" fill="MAIN"/>',
    "house": '<polygon points="0,-98 100,-12 -100,-12" fill="SHADE"/>'
    '<rect x="-76" y="-14" width="152" height="110" fill="MAIN"/>'
    '<rect x="-20" y="30" width="40" height="66" fill="SHADE"/>'
    '<rect x="-60" y="8" width="30" height="30" fill="LIGHT"/><rect x="30" y="8" width="30" height="30" fill="LIGHT"/>',
    "tree": '<rect x="-13" y="30" width="26" height="70" fill="#5d4037"/>'
    '<circle cx="0" cy="-48" r="50" fill="MAIN"/><circle cx="-42" cy="4" r="46" fill="MAIN"/>'
    '<circle cx="42" cy="4" r="46" fill="MAIN"/><circle cx="0" cy="2" r="42" fill="MAIN"/>',
    "boat": '<path d="M-100,36 L100,36 L66,92 L-66,92 Z" fill="MAIN"/><rect x="-6" y="-98" width="12" height="136" fill="SHADE"/>'
    '<polygon points="12,-92 12,20 86,20" fill="MAIN"/><polygon points="-12,-66 -12,20 -70,20" fill="LIGHT"/>',
    "fish": '<ellipse cx="-16" cy="0" rx="80" ry="52" fill="MAIN"/><polygon points="44,0 100,-56 100,56" fill="MAIN"/>'
    '<path d="M-30,-46 Q0,-92 34,-38 Z" fill="SHADE"/><circle cx="-56" cy="-10" r="13" fill="#ffffff"/>'
    '<circle cx="-58" cy="-10" r="7" fill="#202020"/>',
    "sun": _sun(),
    "moon": '<path d="M46,-86 A97,97 0 1 0 46,86 A104,104 0 0 1 46,-86 Z" fill="MAIN"/>',
    "car": '<path d="M-56,-6 L-36,-56 L34,-56 L62,-6 Z" fill="MAIN"/><rect x="-100" y="-10" width="200" height="56" rx="16" fill="MAIN"/>'
    '<polygon points="-38,-8 -26,-42 -4,-42 -4,-8" fill="LIGHT"/><polygon points="8,-8 8,-42 28,-42 44,-8" fill="LIGHT"/>'
    '<circle cx="-52" cy="46" r="27" fill="#303236"/><circle cx="52" cy="46" r="27" fill="#303236"/>'
    '<circle cx="-52" cy="46" r="11" fill="#cfd4d8"/><circle cx="52" cy="46" r="11" fill="#cfd4d8"/>',
    "flower": _flower(),
    "cup": '<path d="M46,-34 h14 a30,37 0 0 1 0,74 h-14" fill="none" stroke="MAIN" stroke-width="18"/>'
    '<path d="M-80,-64 L56,-64 L48,70 Q46,84 30,84 L-54,84 Q-70,84 -72,70 Z" fill="MAIN"/>'
    '<ellipse cx="-12" cy="-64" rx="68" ry="16" fill="SHADE"/>',
    "bird": '<path d="M-100,34 Q-40,40 -16,-6 Q-6,-64 44,-64 Q74,-62 78,-36 Q84,60 0,74 Q-60,78 -100,34 Z" fill="MAIN"/>'
    '<path d="M-34,22 Q10,-14 36,16 Q16,58 -34,22 Z" fill="SHADE"/><polygon points="76,-44 100,-32 77,-22" fill="#f9a825"/>'
    '<circle cx="52" cy="-40" r="9" fill="#ffffff"/><circle cx="53" cy="-40" r="5" fill="#202020"/>'
    '<path d="M-8,72 v26 M18,72 v26" stroke="#f9a825" stroke-width="8"/>',
    "key": '<circle cx="-56" cy="0" r="32" fill="none" stroke="MAIN" stroke-width="24"/>'
    '<rect x="-20" y="-11" width="120" height="22" fill="MAIN"/><rect x="44" y="8" width="18" height="34" fill="MAIN"/>'
    '<rect x="78" y="8" width="20" height="46" fill="MAIN"/>',
    "flag": '<rect x="-72" y="-98" width="14" height="196" fill="#78706a"/>'
    '<path d="M-58,-92 Q-10,-112 24,-88 Q60,-66 98,-86 L98,12 Q60,32 24,10 Q-10,-12 -58,6 Z" fill="MAIN"/>',
    "arrow": '<polygon points="-98,-26 10,-26 10,-72 98,0 10,72 10,26 -98,26" fill="MAIN"/>',
    "cloud": '<circle cx="-48" cy="14" r="44" fill="MAIN"/><circle cx="4" cy="-20" r="54" fill="MAIN"/>'
    '<circle cx="56" cy="16" r="42" fill="MAIN"/><rect x="-50" y="10" width="108" height="48" fill="MAIN"/>',
    "umbrella": '<path d="M0,-10 V66 Q0,94 26,94 Q48,94 48,72" fill="none" stroke="#5a5552" stroke-width="11"/>'
    '<path d="M-98,4 A98,94 0 0 1 98,4 Q66,-22 34,4 Q0,-22 -34,4 Q-66,-22 -98,4 Z" fill="MAIN"/>'
    '<path d="M-34,4 Q-30,-60 0,-90 Q30,-60 34,4 Q0,-22 -34,4 Z" fill="SHADE"/>',
    "mushroom": '<path d="M-32,0 L-26,84 Q0,100 26,84 L32,0 Z" fill="#e9dcc3"/>'
    '<path d="M-98,14 A98,104 0 0 1 98,14 Q0,40 -98,14 Z" fill="MAIN"/>'
    '<circle cx="-46" cy="-20" r="14" fill="LIGHT"/><circle cx="8" cy="-54" r="16" fill="LIGHT"/><circle cx="52" cy="-12" r="13" fill="LIGHT"/>',
    "bell": '<circle cx="0" cy="78" r="20" fill="SHADE"/><circle cx="0" cy="-84" r="13" fill="SHADE"/>'
    '<path d="M-92,66 Q-58,44 -56,-12 Q-54,-78 0,-80 Q54,-78 56,-12 Q58,44 92,66 Z" fill="MAIN"/>'
    '<rect x="-92" y="58" width="184" height="14" rx="7" fill="SHADE"/>',
}
