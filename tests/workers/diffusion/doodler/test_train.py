import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="training needs the extra diffusion")
pytest.importorskip("resvg_py", reason="drawing needs resvg-py (pip install resvg-py)")

from workers.diffusion.doodler import log, pipeline, tokens, train
from workers.diffusion.doodler.plan import MINIATURE, Plan


def test_chinese_and_english_come_back_from_the_tokens() -> None:
    tokenizer = tokens.build(300)
    for text in ("一艘红色的船在黄色的太阳下面", "a red boat under a yellow sun", "画三朵粉色的花"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).replace(
            " ", ""
        ) == text.replace(" ", "")


def test_a_chinese_colour_and_object_are_never_one_token() -> None:
    tokenizer = tokens.build(300)
    assert len(tokenizer.tokenize("红色的船")) == 4
    assert tokenizer.tokenize("a red boat") == ["a</w>", "red</w>", "boat</w>"]


def test_the_limits_of_time_follow_the_hours() -> None:
    plan = Plan().within(1)
    assert plan.inner_s + plan.text_s + plan.denoise_s + plan.refine_s + plan.outer_s < 3600
    assert plan.denoise_steps == Plan().denoise_steps


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore")
def test_a_miniature_run_ends_in_a_folder_that_the_plain_pipeline_draws_with(tmp_path: Path) -> None:
    place = train.run(tmp_path, MINIATURE)
    model = pipeline.read(place)
    image = model("一艘红色的船", num_inference_steps=1).images[0]
    assert image.size == (512, 512)
    assert not list(place.rglob("*.bin"))
    assert sum(f.stat().st_size for f in place.rglob("*")) <= 25 * 2**20
    stages = [json.loads(line)["stage"] for line in (tmp_path / log.FILE).read_text().splitlines()]
    assert stages[0] == "start"
    assert stages[-1] == "end"

    kept = [tmp_path / f"{stage}.pt" for stage in ("inner", "text", "denoise", "refine", "outer")]
    before = [path.stat().st_mtime_ns for path in kept]
    train.run(tmp_path, MINIATURE)
    assert [path.stat().st_mtime_ns for path in kept] == before, "a finished stage was trained again"
