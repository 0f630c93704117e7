"""How much a text repeats itself: real text of several kinds, and what real models say when caught in a loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.repeats import TOKENS_MOST, repeats

ROOT = Path(__file__).resolve().parent.parent.parent
PIECE = 2_500
"""Characters: about what an answer has."""
CHINESE = """
彩虹是一种光学现象。阳光射入空气中的小水滴时，会先发生一次折射，然后在水滴的背面反射，离开水滴时再折射一次。由于不同颜色的光
折射的角度略有不同，白光就被分成了红、橙、黄、绿、蓝、靛、紫七种颜色。观察者总是背对着太阳才能看到彩虹，而且每个人看到的彩虹
其实都不一样，因为进入各人眼睛的光来自不同的水滴。

如果想在家里做一道小彩虹，可以在晴天的下午拿一根水管，背对太阳，把水喷成细细的雾。太阳的位置越低，彩虹的弧就越高；中午太阳太高，
往往什么也看不到。有时在主虹的外面还会出现第二道颜色较淡的霓，它的颜色顺序正好相反，因为光线在水滴里多反射了一次。两道虹之间的
天空看起来比别处暗一些，人们把这块地方叫作亚历山大暗带，名字来自最早描述它的古希腊学者。

古人对彩虹有许多美丽的想象。有的民族认为它是连接天地的桥，有的认为它是一条喝水的龙。直到十七世纪，人们才用实验和几何的方法说明了
它的来历。今天我们知道，月光也能形成虹，只是光线太弱，眼睛往往只能分辨出一道白色的弧。
"""
LOOPS = {
    # the starter model at temperature 0, cut where it goes on in the same way
    "a poem": "In the depths of the ocean, where shadows play,\nAbe a sea of dreams,\n"
    + "The ocean's a place of endless wonder,\nAbe a sea of dreams,\nAbe a sea of dreams,\nAbe a sea of dreams,\n\n"
    * 8,
    "a list that counts": "\n".join(f"{n}. Visit the Eiffel Tower (Paris, France)" for n in range(1, 25)),
    "Chinese": "北京是一家美丽的美派的" + "美丽的" * 60,
    # what broken weights give
    "one sign": "!" * 300,
    "one letter": "G" * 400,
    "one word": "the " * 80,
    "an apology": "I am sorry, I cannot. " * 12,
    "a line of code": "    return x\n" * 40,
}


def pieces(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_repeats_itself_by_far_more_than_half(name: str) -> None:
    assert repeats(LOOPS[name]) > 0.8


def test_a_good_beginning_does_not_hide_a_loop_for_long() -> None:
    good = (ROOT / "docs" / "STYLE.md").read_text()[:600]
    assert repeats(good) < 0.05
    assert repeats(good + "And so it is, as it always was. " * 30) > 0.5


@pytest.mark.parametrize(
    "pattern", ["docs/STYLE.md", "docs/adr/*.md", "README.md", "connectors/web/static/**/*.js", "ops/*.py"]
)
def test_real_english_and_code_hardly_repeat_themselves(pattern: str) -> None:
    shares = sorted(repeats(piece) for file in ROOT.glob(pattern) for piece in pieces(file.read_text()))
    assert shares
    assert shares[len(shares) // 2] < 0.1
    assert shares[-1] < 0.5, "even the most repetitive page is no loop"


def test_real_chinese_hardly_repeats_itself() -> None:
    assert repeats(CHINESE) < 0.02
    assert repeats(CHINESE + CHINESE) > 0.45


def test_what_counts_or_fills_a_table_is_no_loop() -> None:
    assert repeats(", ".join(map(str, range(300)))) == 0
    assert repeats("| n | square |\n|---|---|\n" + "\n".join(f"| row {n} | {n * n} |" for n in range(60))) < 0.1
    assert repeats("\n".join(f"{n}. {word}" for n, word in enumerate(dir(str)))) < 0.1


@pytest.mark.parametrize("text", ["", " \n", "Yes.", "Yes. Yes. Yes.", "好的，好的。"])
def test_a_short_answer_repeats_nothing(text: str) -> None:
    assert repeats(text) == 0


def test_a_very_long_text_is_judged_by_its_end() -> None:
    words = [f"word{n}" for n in range(4 * TOKENS_MOST)]
    assert repeats(" ".join(words)) == 0
    assert repeats(" ".join(words) + " and on" * TOKENS_MOST) > 0.9
