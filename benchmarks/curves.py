"""How well do the encoders of a study separate classes in the course of their pre-training?

For every run the linear accuracy on a validation part that `--evaluate-every` wrote; for a study with `--keep-every`
instead, balanced accuracy on the test images of a linear probe on each snapshot, with the labels of the first draw of
the study's largest budget. A table with the mean and the range over seeds, and with `--out` a figure.

    python benchmarks/curves.py study/ --out curves.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from timing import table

from kontrast.commands.run import OpenRun, RunOptions, open_run
from kontrast.evaluate.features import features
from kontrast.evaluate.linear import linear_probe
from kontrast.evaluate.metrics import METRICS
from kontrast.nn.encoders import load_encoder
from kontrast.train.log import read_rows

SCORE = "linear_accuracy"
Points = dict[int, list[float]]
"""By epoch, the scores of all seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, help="a .png or .svg")
    options = parser.parse_args()
    found: dict[str, Points] = {}
    for arm in sorted(path for path in (options.study / "runs").iterdir() if path.is_dir()):
        points = found.setdefault(arm.name, {})
        for run in sorted(arm.glob("seed-*")):
            for epoch, score in scores(options.study, run):
                points.setdefault(epoch, []).append(score)
    epochs = sorted({epoch for points in found.values() for epoch in points})
    print(
        table(
            ["epoch", *found],
            [[str(epoch), *(said(points.get(epoch)) for points in found.values())] for epoch in epochs],
        )
    )
    if options.out:
        draw(found, options.out)


def scores(study: Path, run: Path) -> Iterator[tuple[int, float]]:
    """Epochs and scores of one run."""
    snapshots = sorted(run.glob("encoders/epoch_*.safetensors"))
    if not snapshots:
        yield from ((int(row["epoch"]), row[SCORE]) for row in read_rows(run / "metrics.jsonl") if SCORE in row)
        return
    opened = open_run(RunOptions(run=run), "a probe")
    cells = (study / "cells").glob(f"*/{run.name}/*-draw-0.npz")
    labelled = max((np.load(cell, allow_pickle=False)["labelled"] for cell in cells), key=len)
    for snapshot in snapshots:
        yield int(snapshot.stem.removeprefix("epoch_")), probed(snapshot, opened, labelled)


def probed(snapshot: Path, opened: OpenRun, labelled: np.ndarray) -> float:
    """Balanced accuracy of a linear probe on the test images."""
    encoder, seen = load_encoder(snapshot), opened.train.take(labelled)
    known, asked = features(encoder, seen), features(encoder, opened.test)
    probe = linear_probe(known, seen.labels, asked, num_classes=len(seen.classes), groups=seen.groups)
    return METRICS["balanced_accuracy"](opened.test.labels, probe.probabilities)


def said(values: list[float] | None) -> str:
    """Mean and range in percent."""
    if not values:
        return ""
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f}-{100 * max(values):.1f})"


def draw(found: dict[str, Points], out: Path) -> None:
    """One line an arm, the mean over seeds, in a band from the least to the largest."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, points in found.items():
        epochs = sorted(points)
        values = [[100 * value for value in points[epoch]] for epoch in epochs]
        [line] = axes.plot(epochs, [np.mean(each) for each in values], marker="o", markersize=3, label=name)
        axes.fill_between(epochs, [*map(min, values)], [*map(max, values)], color=line.get_color(), alpha=0.15, lw=0)
    axes.set(xlabel="epoch of pre-training", ylabel="linear probe, %")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
