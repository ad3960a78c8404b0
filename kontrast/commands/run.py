"""A finished run as a place to start from: its settings, its encoder, and its data or others."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from kontrast.commands.assemble import DataOptions, Parts, open_data, require_labels, split
from kontrast.errors import InputError
from kontrast.nn.encoders import Encoder, load_encoder


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which run, and which images."""

    run: Path
    """Folder of a run; its data, labels and split are used unless --data names others."""
    data: str | None = None
    """Other images than the run's: a folder, a table, an .npz or `sample:NAME`."""
    labels: Path | None = None
    """Table with columns `path,label`; by default the run's."""


def open_run(options: RunOptions, what: str) -> tuple[dict[str, Any], Encoder, Parts]:
    """The settings, the encoder and the split data of a run.

    Args:
        options: Which run.
        what: What needs labels, for the error where there are none.

    Raises:
        InputError: The folder is not a finished run, or its data have no labels.
    """
    settings = run_settings(options.run)
    encoder = load_encoder(options.run)
    known = {f.name: settings[f.name] for f in fields(DataOptions)}
    if options.data is not None:
        known = {"data": options.data, "size": encoder.spec.size, "channels": encoder.spec.channels}
    labels = options.labels or known.get("labels")
    data = open_data(DataOptions(**{**known, "labels": Path(labels) if labels else None}))
    require_labels(data, what)
    return {**settings, **known, "labels": labels and str(labels)}, encoder, split(data)


def run_settings(run: Path) -> dict[str, Any]:
    """The settings of a finished run.

    Raises:
        InputError: The folder is not one.
    """
    file = run / "config.yaml"
    if not file.is_file() or not (run / "encoder.safetensors").is_file():
        raise InputError(f"a finished run holds config.yaml and encoder.safetensors; {run} does not, so pretrain first")
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found
