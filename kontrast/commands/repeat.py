"""What a finished study keeps to be read again, and whether a repeat of it found the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml
from numpy.typing import NDArray

from kontrast.commands.assemble import as_written
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.files import whole_file

log = logging.getLogger("kontrast")

AGAIN = "run the same kontrast study command again, which keeps what is trained and writes this anew"
_TOLD = {"rows", "metric", "verdict", "data", "fingerprint", "annotations", "versions"}
"""Of what `study.json` holds, what a later command reads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tested:
    """The test images of a finished study."""

    rows: NDArray[np.int64]
    """Which images of the whole set they are."""
    labels: NDArray[Any]
    groups: NDArray[np.int64] | None
    classes: tuple[str, ...]


def write_truth(out: Path, test: ImageSet) -> None:
    """Write what the predictions in `cells/` are compared with, so that the folder can be read without the data."""
    groups = np.zeros(0, dtype=np.int64) if test.groups is None else test.groups
    with whole_file(out / "truth.npz") as partial, partial.open("wb") as file:
        np.savez(file, rows=test.rows, test=np.asarray(test.labels), groups=groups, classes=np.array(test.classes))


def read_truth(folder: Path) -> Tested:
    """The test images of a finished study.

    Raises:
        InputError: The folder does not hold them.
    """
    try:
        with np.load(folder / "truth.npz", allow_pickle=False) as found:
            rows, labels, groups, classes = (found[name] for name in ("rows", "test", "groups", "classes"))
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(
            f"a finished study holds its test labels in truth.npz; that of {folder} is missing, damaged or of another "
            f"version: {AGAIN}"
        ) from error
    return Tested(rows=rows, labels=labels, groups=groups if len(groups) else None, classes=tuple(classes.tolist()))


def read_study(folder: Path) -> dict[str, Any]:
    """The `study.json` of a finished study.

    Raises:
        InputError: There is none, or it is damaged.
    """
    if not (folder / "study.json").is_file():
        raise InputError(f"a finished study holds study.json; {folder} does not, so run kontrast study first")
    return _mapping(folder / "study.json", needed=_TOLD)


def read_settings(folder: Path) -> dict[str, Any]:
    """The `config.yaml` of a study.

    Raises:
        InputError: There is none, or it is damaged.
    """
    return _mapping(folder / "config.yaml", needed={"data"})


def check_settings(first: Path, settings: Mapping[str, Any]) -> None:
    """Make sure that a repeat has the settings of its study; only the device may be another.

    Args:
        first: Folder of the study.
        settings: What `config.yaml` of the repeat will hold.

    Raises:
        InputError: They differ, or the folder is not that of a finished study.
    """
    read_study(first)  # refuses a folder that is none
    known, wanted = dict(_flat(read_settings(first))), dict(_flat(as_written(settings)))
    for key in known:
        if key != "device" and key in wanted and known[key] != wanted[key]:
            flag = f"--{key.replace('_', '-')}"
            raise InputError(
                f"a repeat keeps the settings of its study; {key} is {known[key]!r} in {first} and {wanted[key]!r} "
                f"here, so leave out {flag}, or start a new study with --recipe {first / 'config.yaml'}, {flag} and a "
                "new --out"
            )


def check_repeat(first: Path, found: Mapping[str, Any]) -> None:
    """Make sure that a repeat has the images, labels and split of the study that it repeats.

    Raises:
        InputError: They differ, or the folder does not say which they were.
    """
    known = _mapping(first / "run.json", needed={"data", "fingerprint", "annotations"})
    differing = [key for key in ("fingerprint", "annotations") if known[key] != found[key]]
    if differing:
        what = {"fingerprint": "images", "annotations": "labels or split"}[differing[0]]
        raise InputError(
            f"a repeat has the data of its study; the {what} of {known['data']} have changed since {first} was made, "
            "so restore them, or start a new study with --recipe"
        )
    if known.get("policies", {}) != found.get("policies", {}):
        raise InputError(
            f"a repeat has the augmentation of its study; a policy's file has changed since {first} was made, so "
            "restore it, or start a new study with --recipe"
        )


def compare_repeat(first: Path, second: Path) -> None:
    """Say whether a repeat found the same figures, and if not, what was other about it."""
    before, after = _scores(first), _scores(second)
    if before.keys() != after.keys():
        log.warning("this version makes other rows than that of %s, so their scores are not compared", first)
        return
    differing = [key for key in before if before[key] != after[key]]
    if not differing:
        log.info("all %d scores are those of %s", len(before), first)
        return
    gaps = [abs(before[key] - after[key]) for key in differing if None not in (before[key], after[key])]
    log.warning(
        "%d of %d scores differ from those of %s, by %.2f points at most, %s",
        len(differing),
        len(before),
        first,
        100 * max(gaps, default=0.0),
        _reason(first, second),
    )


def _reason(first: Path, second: Path) -> str:
    """What may have made a repeat differ, as far as it is on record."""
    then, now = _circumstances(first), _circumstances(second)
    changed = [f"{name} was {then.get(name)} and is {now[name]}" for name in now if then.get(name) != now[name]]
    if changed:
        return f"and it was made under other circumstances: {'; '.join(changed)}"
    return "although settings, versions and hardware are the same, so something here does not compute the same twice"


def _circumstances(folder: Path) -> dict[str, Any]:
    found = read_study(folder)
    hardware = (found.get("cost") or {}).get("Hardware")
    return {**found["versions"], "hardware": hardware, "--device": read_settings(folder).get("device")}


def _scores(folder: Path) -> dict[tuple[str, int, str], Any]:
    """By arm, number of labels and metric: the score, None where it is undefined."""
    rows = read_study(folder)["rows"]
    return {
        (row["arm"], row["num_labels"], name): row["scores"][name]["value"] for row in rows for name in row["scores"]
    }


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings by the names of their flags: `{"configs": {"simclr": {"width": 64}}}` is `simclr.width`."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inner = "" if key == "configs" else f"{key}."
            yield from ((f"{inner}{name}", item) for name, item in _flat(value))
        else:
            yield key, value


def _mapping(file: Path, *, needed: set[str]) -> dict[str, Any]:
    """A file of JSON or YAML.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict) or not needed <= found.keys():
        raise InputError(f"a finished study holds {file.name}; {file} is missing or damaged: {AGAIN}")
    return found
