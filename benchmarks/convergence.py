"""After how many epochs does one arm of a study score as the other does at its end?

Reads the runs of a study made with `--evaluate-every`: their `linear_accuracy` is a probe on a validation part of the
training images. Each run is compared with the other arm's run of the same seed, in epochs, in encoder passes and in
training time as measured then, of which each is given as a share of the other arm's whole training.

    python benchmarks/convergence.py study/ learned_views simclr
"""

from __future__ import annotations

import argparse
import re
from itertools import accumulate
from pathlib import Path

from timing import table

from kontrast.train.log import Row, read_rows

SCORE = "linear_accuracy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("arm", help="key of the method that is asked about: the name of its folder in runs/")
    parser.add_argument("other", help="key of the method whose final score is to be reached")
    options = parser.parse_args()
    ends = {seed(run): read_rows(run / "metrics.jsonl") for run in runs(options.study, options.other)}
    rows = [compared(run, ends[seed(run)]) for run in runs(options.study, options.arm) if seed(run) in ends]
    print(f"{options.arm} until it scores as {options.other} does at its end\n")
    print(table(["run", "score to reach", "epochs", "encoder passes", "time", "own final score"], rows))


def runs(study: Path, key: str) -> list[Path]:
    return sorted(file.parent for file in (study / "runs" / key).glob("*/metrics.jsonl"))


def seed(run: Path) -> int:
    return int(re.match(r"seed-(\d+)", run.name)[1])


def compared(run: Path, other: list[Row]) -> list[str]:
    own, target = read_rows(run / "metrics.jsonl"), other[-1][SCORE]
    scored = [at for at, row in enumerate(own) if SCORE in row]
    reached = next((at for at in scored if own[at][SCORE] >= target), None)
    name = re.sub(r"-[0-9a-f]{8}$", "", run.name)
    if reached is None:
        return [name, f"{target:.3f}", "not reached", "", "", f"{own[-1][SCORE]:.3f}"]
    seconds, whole = list(accumulate(row["seconds"] for row in own)), sum(row["seconds"] for row in other)
    shares = own[reached]["passes"] / other[-1]["passes"], seconds[reached] / whole
    epochs = f"{own[reached]['epoch']:.0f} of {other[-1]['epoch']:.0f}"
    return [name, f"{target:.3f}", epochs, *(f"{share:.0%}" for share in shares), f"{own[-1][SCORE]:.3f}"]


if __name__ == "__main__":
    main()
