"""`python -m workers.diffusion.doodler.train --out FOLDER`: from nothing to a diffusers folder.

A run that was killed goes on where it was when the same command is given again.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from workers.diffusion.doodler import data, log, stages
from workers.diffusion.doodler.plan import Plan


def run(work: Path, plan: Plan) -> Path:
    """Every stage in order; the finished pipeline is in WORK/pipeline."""
    work.mkdir(parents=True, exist_ok=True)
    log.note(work, stage="start", machine=log.machine(), plan=asdict(plan))
    data.make(work / stages.TRAIN, stages.words(work, plan), plan.scenes, plan.unnamed, plan.seed)
    stages.inner(work, plan)
    stages.reading(work, plan)
    stages.denoising(work, plan)
    stages.refining(work, plan)
    stages.outer(work, plan)
    place = stages.assembled(work, plan)
    log.note(work, stage="end", bytes=sum(f.stat().st_size for f in place.rglob("*") if f.is_file()))
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="work folder; the result is in OUT/pipeline")
    parser.add_argument("--hours", type=float, help="budget of the whole run on two cores, if not the plan's (about 2)")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    arguments = parser.parse_args()
    plan = replace(Plan(), seed=arguments.seed)
    print(run(arguments.out, plan if arguments.hours is None else plan.within(arguments.hours)))


if __name__ == "__main__":
    main()
