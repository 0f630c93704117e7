import random

from workers.diffusion.doodler.caption import caption
from workers.diffusion.doodler.scene import Scene, Thing, training_scene
from workers.diffusion.doodler.vocabulary import COLOURS, OBJECTS, RELATIONS

BOAT_UNDER_SUN = Scene(
    (Thing("boat", "red", 0.5, 0.7, 0.2), Thing("sun", "yellow", 0.5, 0.3, 0.2)), "sky", "pair", relation="under"
)


def captions(scene: Scene, language: str, count: int = 40) -> set[str]:
    rng = random.Random(3)
    return {caption(scene, language, rng).lower() for _ in range(count)}


def test_every_caption_names_every_object_drawn() -> None:
    for seed in range(400):
        scene = training_scene(seed)
        for thing in scene.things:
            noun = OBJECTS[thing.object]
            for text in captions(scene, "en", 4):
                assert any(word in text for pair in noun.english for word in pair), text
            for text in captions(scene, "zh", 4):
                assert any(word in text for word in noun.chinese), text


def test_most_captions_name_the_colour() -> None:
    for language in ("en", "zh"):
        said = 0
        for seed in range(400, 1000):
            scene = training_scene(seed)
            words = getattr(COLOURS[scene.things[0].colour], "english" if language == "en" else "chinese")
            said += any(w in text for text in captions(scene, language, 1) for w in words)
        assert 0.9 < said / 600 <= 1


def test_a_colour_without_a_name_is_not_said() -> None:
    one = Scene((Thing("boat", "#7f8030", 0.5, 0.5, 0.2),), "cream", "one", "small", "centre")
    for language in ("en", "zh"):
        words = [word for tone in COLOURS.values() for word in (tone.english if language == "en" else tone.chinese)]
        for text in captions(one, language):
            assert not any(word in text.replace("米色", "").replace("奶油色", "") for word in [*words, "#"]), text


def test_the_sentence_of_the_issue_is_said_in_both_languages() -> None:
    assert any("a red boat under a yellow sun" in text for text in captions(BOAT_UNDER_SUN, "en", 2000))
    assert any("一艘红色的船在一个黄色的太阳下面" in text for text in captions(BOAT_UNDER_SUN, "zh", 2000))


def test_a_relation_is_never_said_the_wrong_way_round() -> None:
    for text in captions(BOAT_UNDER_SUN, "en", 1500):
        boat = min(text.find(w) for w in ("boat", "ship") if w in text)
        sun = text.find("sun")
        for word in RELATIONS["under"][0]:
            assert f" {word} " not in text or boat < sun, text
        assert not any(f" {w} " in text for w in RELATIONS["above"][0]) or sun < boat, text


def test_a_count_is_said_with_the_plural() -> None:
    row = Scene(tuple(Thing("boat", "red", x, 0.5, 0.14) for x in (0.2, 0.5, 0.8)), "sky", "count")
    assert all("three " in text and ("boats" in text or "ships" in text) for text in captions(row, "en"))
    assert all("三艘" in text for text in captions(row, "zh"))
