"""After how many epochs does one arm of a study score as another does at its end?

Takes the runs of one arm and of another, of the same study or of two, and their linear accuracy along the training as
`curves.py` reads it. Each run is compared with the other arm's run of the same seed, and then the mean over runs with
the mean: in epochs, in encoder passes and in training time as measured then, each of these two as a share of the other
arm's whole training.

    python benchmarks/convergence.py study/runs/learned_views study/runs/simclr
"""

from __future__ import annotations

import argparse
import re
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from curves import scores
from timing import table

from kontrast.train.log import read_rows


class Course(NamedTuple):
    """What a training cost by the end of each epoch, and how its encoder scored at some of them."""

    passes: list[float]
    seconds: list[float]
    score: dict[int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", type=Path, help="folder of the runs that are asked about")
    parser.add_argument("other", type=Path, help="folder of the runs whose final score is to be reached")
    options = parser.parse_args()
    ends = {seed(run): course(run) for run in runs(options.other)}
    pairs = [(run.name, course(run), ends[seed(run)]) for run in runs(options.arm) if seed(run) in ends]
    rows = [[re.sub(r"-[0-9a-f]{8}$", "", name), *compared(own, other)] for name, own, other in pairs]
    rows.append(["mean", *compared(mean([own for _, own, _ in pairs]), mean([other for *_, other in pairs]))])
    print(f"{options.arm.name} until it scores as {options.other.name} does at its end\n")
    print(table(["run", "score to reach", "epochs", "encoder passes", "time", "own final score"], rows))


def runs(arm: Path) -> list[Path]:
    return sorted(file.parent for file in arm.glob("*/metrics.jsonl"))


def seed(run: Path) -> int:
    return int(re.match(r"seed-(\d+)", run.name)[1])


def course(run: Path) -> Course:
    rows = read_rows(run / "metrics.jsonl")
    seconds = list(accumulate(row["seconds"] for row in rows))
    return Course([row["passes"] for row in rows], seconds, dict(scores(run.parents[2], run)))


def mean(found: list[Course]) -> Course:
    return Course(
        np.mean([one.passes for one in found], axis=0).tolist(),
        np.mean([one.seconds for one in found], axis=0).tolist(),
        {epoch: float(np.mean([one.score[epoch] for one in found])) for epoch in found[0].score},
    )


def compared(own: Course, other: Course) -> list[str]:
    last, end = max(own.score), max(other.score)
    target = other.score[end]
    reached = next((epoch for epoch in sorted(own.score) if own.score[epoch] >= target), None)
    if reached is None:
        return [f"{target:.3f}", f"not in {last}", "", "", f"{own.score[last]:.3f}"]
    shares = own.passes[reached - 1] / other.passes[-1], own.seconds[reached - 1] / other.seconds[-1]
    return [f"{target:.3f}", f"{reached} of {end}", *(f"{share:.0%}" for share in shares), f"{own.score[last]:.3f}"]


if __name__ == "__main__":
    main()
