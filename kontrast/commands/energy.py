"""`kontrast evaluate energy RUN --ood DATA`: whether the energy of a run of `ebclr` tells other images from its own.

Every image is scored by itself, against embeddings of training images that the run kept: never against the images it is
asked about together with, among which it would find itself.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from kontrast.commands.assemble import DataOptions, check_test, data_name, open_data, split, write_json
from kontrast.commands.lineage import check_leaks
from kontrast.commands.provenance import provenance
from kontrast.commands.run import RunOptions, num_seen, other_data, own_data, run_settings
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.evaluate.features import check_channels
from kontrast.evaluate.intervals import estimate
from kontrast.evaluate.stored import stored_features
from kontrast.nn.encoders import Encoder, load_encoder
from kontrast.nn.energy import Energy, load_energy
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Images that are scored, none of which the run has learned from."""

    images: ImageSet
    energy: NDArray[np.float32]
    """`(n,)`."""

    def told(self) -> dict[str, Any]:
        """In figures."""
        return {
            "data": self.images.name,
            "images": len(self.images),
            "fingerprint": self.images.fingerprint,
            "mean_energy": float(self.energy.mean()),
            "deviation": float(self.energy.std()),
        }


def score_ood(options: RunOptions, ood: str, device: str) -> dict[str, Any]:
    """How often an image of `ood` has a higher energy than one of the run's kind; written to `RUN/evaluations`.

    Args:
        options: The run, and images of its kind: by default the test part of its own data.
        ood: Images of another kind: their test part, or all where they have none.
        device: As in `choose_device`.

    Returns:
        What was written; `auroc` is an `Estimate`, 0.5 for an energy that says nothing.

    Raises:
        InputError: The run left no energy, its images are all among those that it learned from, or either side is too
            small, has other channels, or is a sample of the same origin under another name.
    """
    settings, energy = run_settings(options.run), load_energy(options.run)
    encoder = load_encoder(options.run).to(choose_device(device))
    trained_on = own_data(settings)
    chosen = trained_on if options.data is None else other_data(options, options.data, settings, encoder)
    if options.labels is not None:
        chosen = replace(chosen, labels=options.labels)
    ours = _side(options.run, encoder, energy, chosen, trained_on)
    theirs = _side(options.run, encoder, energy, other_data(options, ood, settings, encoder), trained_on)
    is_other = np.repeat([0, 1], [len(ours.images), len(theirs.images)])
    scores = np.concatenate([ours.energy, theirs.energy])
    groups = _groups(ours.images, theirs.images)
    auroc = estimate(is_other, np.stack([-scores, scores], axis=1)[None, None], "auroc", groups=groups)
    console = Console(stderr=True, highlight=False)
    console.print(f"energy, {ours.images.name} against {theirs.images.name}: AUROC {auroc} ({auroc.scope})")
    found = {"protocol": "energy", "settings": vars(options), "auroc": auroc}
    found |= {"in": ours.told(), "ood": theirs.told(), "keys": len(energy.key), **provenance(ours.images)}
    path = options.run / "evaluations" / f"energy-{re.sub(r'[^A-Za-z0-9]+', '-', Path(ood).name).strip('-')}.json"
    write_json(path, found)
    log.info("the scores are in %s", path)
    return found


def _side(run: Path, encoder: Encoder, energy: Energy, chosen: DataOptions, trained_on: DataOptions) -> _Side:
    check_leaks(run, data_name(chosen.data))
    data = open_data(chosen)
    check_channels(encoder, data)
    parts = split(data)
    images = data if parts.test is None else parts.test
    if seen := num_seen(trained_on, images):
        raise InputError(
            f"energies are those of images that the run has not learned from; it has seen {seen} of {len(images)} of "
            f"{data.name}, so name others with --data or --ood, or pre-train with --labels, which keeps a test part"
        )
    check_test(images)
    representation = torch.from_numpy(stored_features(encoder, images))
    with torch.no_grad():
        return _Side(images=images, energy=energy(representation).numpy())


def _groups(ours: ImageSet, theirs: ImageSet) -> NDArray[np.int64] | None:
    """Of all images, an image without a group being one of its own; None where neither side has any."""
    if ours.groups is None and theirs.groups is None:
        return None
    found = [
        np.arange(len(side)) if side.groups is None else np.unique(side.groups, return_inverse=True)[1]
        for side in (ours, theirs)
    ]
    return np.concatenate([found[0], found[1] + len(ours)])
