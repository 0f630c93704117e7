"""What the doodler can be asked for: objects, colours, sizes, places, counts and backgrounds, in English and Chinese.

Pure data. The first word of each tuple is the usual one; the others are synonyms that captions use now and then.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """An object: English words as (singular, plural), Chinese words, and the Chinese measure word."""

    english: tuple[tuple[str, str], ...]
    chinese: tuple[str, ...]
    measure: str


@dataclass(frozen=True)
class Tone:
    """A colour or background: its value and its words."""

    rgb: tuple[int, int, int]
    english: tuple[str, ...]
    chinese: tuple[str, ...]

    @property
    def hex(self) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


OBJECTS: dict[str, Noun] = {
    "circle": Noun((("circle", "circles"), ("disc", "discs")), ("圆形", "圆"), "个"),
    "square": Noun((("square", "squares"),), ("正方形", "方块"), "个"),
    "triangle": Noun((("triangle", "triangles"),), ("三角形",), "个"),
    "star": Noun((("star", "stars"),), ("星星", "星"), "颗"),
    "heart": Noun((("heart", "hearts"),), ("爱心", "心"), "颗"),
    "house": Noun((("house", "houses"), ("home", "homes")), ("房子", "屋子"), "座"),
    "tree": Noun((("tree", "trees"),), ("树", "树木"), "棵"),
    "boat": Noun((("boat", "boats"), ("sailboat", "sailboats"), ("ship", "ships")), ("船", "帆船", "小船"), "艘"),
    "fish": Noun((("fish", "fish"), ("fish", "fishes")), ("鱼", "小鱼"), "条"),
    "sun": Noun((("sun", "suns"),), ("太阳",), "个"),
    "moon": Noun((("moon", "moons"), ("crescent", "crescents")), ("月亮", "弯月"), "个"),
    "car": Noun((("car", "cars"), ("automobile", "automobiles")), ("汽车", "车"), "辆"),
    "flower": Noun((("flower", "flowers"), ("blossom", "blossoms")), ("花", "花朵"), "朵"),
    "cup": Noun((("cup", "cups"), ("mug", "mugs")), ("杯子", "茶杯"), "个"),
    "bird": Noun((("bird", "birds"),), ("鸟", "小鸟"), "只"),
    "key": Noun((("key", "keys"),), ("钥匙",), "把"),
    "flag": Noun((("flag", "flags"),), ("旗子", "旗帜"), "面"),
    "arrow": Noun((("arrow", "arrows"),), ("箭头",), "个"),
    "cloud": Noun((("cloud", "clouds"),), ("云", "云朵"), "朵"),
    "umbrella": Noun((("umbrella", "umbrellas"),), ("雨伞", "伞"), "把"),
    "mushroom": Noun((("mushroom", "mushrooms"),), ("蘑菇",), "个"),
    "bell": Noun((("bell", "bells"),), ("铃铛", "钟"), "个"),
}

COLOURS: dict[str, Tone] = {
    "red": Tone((226, 44, 44), ("red", "crimson"), ("红色", "红")),
    "orange": Tone((250, 138, 0), ("orange",), ("橙色", "橘色")),
    "yellow": Tone((253, 214, 38), ("yellow",), ("黄色", "黄")),
    "green": Tone((58, 160, 64), ("green",), ("绿色", "绿")),
    "blue": Tone((28, 120, 226), ("blue",), ("蓝色", "蓝")),
    "purple": Tone((142, 36, 170), ("purple", "violet"), ("紫色", "紫")),
    "pink": Tone((246, 130, 178), ("pink",), ("粉色", "粉红色")),
    "brown": Tone((122, 78, 46), ("brown",), ("棕色", "褐色")),
    "black": Tone((30, 30, 32), ("black",), ("黑色", "黑")),
    "white": Tone((255, 255, 255), ("white",), ("白色", "白")),
}


def rgb_of(colour: str) -> tuple[int, int, int]:
    """The value of a colour of COLOURS, or of "#rrggbb"."""
    if colour in COLOURS:
        return COLOURS[colour].rgb
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


BACKGROUNDS: dict[str, Tone] = {
    "sky": Tone((187, 222, 251), ("light blue", "sky blue", "pale blue"), ("浅蓝色", "天蓝色")),
    "mint": Tone((196, 232, 200), ("light green", "mint", "pale green"), ("浅绿色", "薄荷色")),
    "cream": Tone((255, 243, 214), ("cream", "beige", "ivory"), ("米色", "奶油色")),
    "grey": Tone((176, 186, 194), ("grey", "gray", "light grey"), ("灰色", "浅灰色")),
    "night": Tone((28, 42, 76), ("dark", "night", "dark blue"), ("深色", "夜空")),
}

SIZES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "small": (("small", "little", "tiny"), ("小", "小小的")),
    "medium": (("medium", "medium-sized"), ("中等大小的",)),
    "large": (("large", "big", "huge"), ("大", "巨大的")),
}

POSITIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "centre": (("in the centre", "in the middle", "in the center"), ("中间", "中央")),
    "left": (("on the left", "on the left side"), ("左边", "左侧")),
    "right": (("on the right", "on the right side"), ("右边", "右侧")),
    "top": (("at the top", "up high"), ("上方", "顶部")),
    "bottom": (("at the bottom", "down low"), ("下方", "底部")),
}

RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "under": (("under", "below", "beneath"), ("下面", "下方")),
    "above": (("above", "over"), ("上面", "上方")),
    "left": (("to the left of", "left of"), ("左边", "左侧")),
    "right": (("to the right of", "right of"), ("右边", "右侧")),
}
OPPOSITE = {"under": "above", "above": "under", "left": "right", "right": "left"}

COUNTS: dict[int, tuple[tuple[str, ...], str]] = {1: (("a", "one"), "一"), 2: (("two",), "两"), 3: (("three",), "三")}
