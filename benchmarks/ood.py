"""Does an energy tell images of another kind better than a distance that any encoder has?

AUROC, for the test images of a run's data against other images: the cosine distance of an image's representation to the
nearest of at most 4,096 training images; and for a run of `ebclr` its energy, as `kontrast evaluate energy` has it.

    python benchmarks/ood.py sample:fashion-mnist study/runs/*/seed-*
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from timing import table

from kontrast.commands.assemble import DataOptions, open_data, split
from kontrast.commands.run import RunOptions, open_run, other_data
from kontrast.data import ImageSet
from kontrast.evaluate.features import features
from kontrast.nn.encoders import Encoder
from kontrast.nn.energy import FILE, load_energy

KEYS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ood", help="images of another kind")
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    rows = [[f"{run.parent.name} {run.name}", *aurocs(run, options.ood)] for run in options.runs]
    print(table(["run", "nearest representation", "energy"], rows))


def aurocs(run: Path, ood: str) -> list[str]:
    asked = RunOptions(run=run)
    opened = open_run(asked, "a comparison")
    known = features(opened.encoder, opened.train.take(np.arange(min(KEYS, len(opened.train)))))
    sides = [
        features(opened.encoder, images)
        for images in (opened.test, others(asked, ood, opened.settings, opened.encoder))
    ]
    found = [auroc(*(distance(known, side) for side in sides))]
    if (run / FILE).is_file():
        energy = load_energy(run)
        with torch.no_grad():
            found.append(auroc(*(energy(torch.from_numpy(side)).numpy() for side in sides)))
    return [*(f"{100 * value:.1f}" for value in found), ""][:2]


def others(asked: RunOptions, ood: str, settings: dict, encoder: Encoder) -> ImageSet:
    chosen: DataOptions = other_data(asked, ood, settings, encoder)
    data = open_data(chosen)
    return split(data).test or data


def distance(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    known, asked = (F.normalize(torch.from_numpy(table).float(), dim=1) for table in (known, asked))
    return (1 - (asked @ known.T).amax(dim=1)).numpy()


def auroc(ours: np.ndarray, theirs: np.ndarray) -> float:
    return roc_auc_score(np.repeat([0, 1], [len(ours), len(theirs)]), np.concatenate([ours, theirs]))


if __name__ == "__main__":
    main()
