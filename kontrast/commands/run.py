"""A finished run as a place to start from: its settings, its encoder, and its data or others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from kontrast.augment.policies import POLICIES
from kontrast.commands.assemble import (
    DataOptions,
    Options,
    check_test,
    data_name,
    open_data,
    require_labels,
    require_texts,
    split,
    texts_settled,
)
from kontrast.commands.lineage import check_leaks
from kontrast.data import ImageSet, samples
from kontrast.data.reading import Reading
from kontrast.errors import InputError
from kontrast.evaluate.features import check_channels
from kontrast.nn.encoders import Encoder, load_encoder

log = logging.getLogger("kontrast")

COLUMNS = ("image_column", "text_column", "delimiter")
"""How a table is read."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which run, and which images."""

    run: Path
    """Folder of a run; its data, labels and split are used unless --data names others."""
    data: str | None = None
    """Other images than the run's: a folder, a table, an .npz or `sample:NAME`."""
    labels: Path | None = None
    """Table with columns `path,label`; by default the run's."""
    channels: int | None = None
    """Convert other images than the run's to 1 or 3 channels."""
    image_column: str | None = None
    """Of another table than the run's; by default as the run read its own."""
    text_column: str | None = None
    """Of another table than the run's; by default as the run read its own."""
    delimiter: str | None = None
    """Of another table than the run's; by default as the run read its own."""


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run, opened."""

    settings: dict[str, Any]
    """Of the run, with those of the data that are used now."""
    encoder: Encoder
    train: ImageSet
    test: ImageSet
    num_seen: int
    """Test images that pre-training saw, without labels: where these were given only afterwards."""


def open_run(
    options: RunOptions, what: str, *, by: Literal["labels", "texts"] = "labels", instead: str = ""
) -> OpenRun:
    """The settings, the encoder and the split data of a run.

    Args:
        options: Which run.
        what: What needs labels or texts, for the error where there are none.
        by: What test images are asked about by.
        instead: Another way out than labels, in words.

    Raises:
        InputError: The folder is not a finished run, its data have no labels or texts, too few test images or other
            channels, or they are a sample of the same origin as one that the run learned from.
    """
    settings = run_settings(options.run)
    encoder = load_encoder(options.run)
    trained_on = own_data(settings)
    chosen = trained_on if options.data is None else other_data(options, options.data, settings, encoder)
    chosen = texts_settled(chosen, are_used=by == "texts")
    if options.labels is not None:
        chosen = replace(chosen, labels=options.labels)
    check_leaks(options.run, data_name(chosen.data))
    data = open_data(chosen)
    if by == "labels":
        require_labels(data, what, instead)
    else:
        require_texts(data, what)
    check_channels(encoder, data)
    parts = split(data)
    assert parts.test is not None, "data with labels or texts have a test part"
    check_test(parts.test)
    seen = 0 if chosen == trained_on else num_seen(trained_on, parts.test)
    if seen:
        log.warning(
            "%d of %d test images were among those of pre-training (without these labels), so these scores may be too "
            "high; pre-train with --labels to keep test images out",
            seen,
            len(parts.test),
        )
    settings |= vars(chosen) | {"labels": chosen.labels and str(chosen.labels)}
    return OpenRun(settings=settings, encoder=encoder, train=parts.train, test=parts.test, num_seen=seen)


def reopened(opened: OpenRun, size: int | None) -> OpenRun:
    """The same run and the same images at another size, which becomes that of the settings.

    Args:
        opened: The run.
        size: Side in pixels; None for the images' own up to 256.
    """
    known = {f.name: opened.settings.get(f.name, f.default) for f in fields(DataOptions)} | {"size": size}
    chosen = DataOptions(**{**known, "labels": known["labels"] and Path(known["labels"])})
    parts = split(open_data(chosen))
    assert parts.test is not None, "data with labels have a test part"
    return replace(opened, train=parts.train, test=parts.test, settings={**opened.settings, "size": size})


def own_data(settings: Mapping[str, Any]) -> DataOptions:
    """The images that a run with these settings learned from, and their test part."""
    found = DataOptions(**{f.name: settings.get(f.name, f.default) for f in fields(DataOptions)})
    return replace(found, labels=settings["labels"] and Path(settings["labels"]))


def other_data(options: RunOptions, data: str, settings: Mapping[str, Any], encoder: Encoder) -> DataOptions:
    """Other images, read as those of the run were."""
    columns = {name: getattr(options, name) for name in COLUMNS}
    found = DataOptions(data=data, size=encoder.spec.size, channels=options.channels, **columns)
    check_same_split(settings, data)
    return read_as_trained(found, settings, "alias_paths", *COLUMNS)


def check_same_split(settings: Mapping[str, Any], data: str) -> None:
    """Refuse another style of a sample whose split is not that of the run, which would test on what it has seen.

    Raises:
        InputError: The run has seen other concepts than the test part of the whole sample leaves to it.
    """
    changed = [name for name in ("limit", "ignore_groups") if settings.get(name)]
    if changed and samples.is_other_style(str(settings["data"]), data):
        raise InputError(
            f"another style of a sample has the same test part only where the run has the whole sample; it was trained "
            f"with --{changed[0].replace('_', '-')}, so train without it or name other data than {data}"
        )


def num_seen(trained_on: DataOptions, test: ImageSet) -> int:
    """How many of the test images the run's own training part holds; both are rows of the same decoded set, or none."""
    try:
        original = split(open_data(trained_on)).train
    except InputError:  # the run's own data are gone
        return 0
    if original.fingerprint != test.fingerprint:
        return 0
    return int(np.isin(test.rows, original.rows).sum())


def read_as_trained(options: Options, settings: Mapping[str, Any], *also: str) -> Options:
    """The options under which other images are read as those of a run were; flags that are given win.

    Args:
        options: Which images.
        settings: Of the run.
        also: Names of further options that are taken over, such as "size".
    """
    names = {*also, *(field.name for field in fields(Reading))}
    known = {f.name: settings.get(f.name, f.default) for f in fields(DataOptions) if f.name in names}
    defaults = {f.name: f.default for f in fields(DataOptions)}
    return replace(options, **{key: value for key, value in known.items() if getattr(options, key) == defaults[key]})


def run_policy(run: Path, settings: Mapping[str, Any]) -> str:
    """The augmentation of a run as `--policy` takes it: its name; where it was learned or a file, what the run left."""
    left = run / "policy.yaml"
    is_own = settings["policy"] not in POLICIES or "policy_lr" in settings
    return str(left) if is_own and left.is_file() else settings["policy"]


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
