"""What is known of each image beside its pixels: class, group and part of the split, from text to codes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.errors import InputError

PARTS = {
    "": "",
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""What a split may be called in a table or a folder, and what it is called here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """Labels, groups and parts of `n` images, as `ImageSet` keeps them; None where nothing is known."""

    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None
    parts: NDArray[np.str_] | None = None


def class_codes(values: Sequence[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Codes `(n,)` and sorted class names of labels as text; "" is "no label" (-1), and None when all are ""."""
    classes = in_natural_order({value for value in values if value})
    if not classes:
        return None, ()
    code = {name: number for number, name in enumerate(classes)} | {"": -1}
    return np.array([code[value] for value in values], dtype=np.int64), classes


def in_natural_order(names: set[str]) -> tuple[str, ...]:
    """Sorted names; by value when all are integers, so that 10 follows 9."""
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def group_codes(values: Sequence[str]) -> NDArray[np.int64] | None:
    """Codes `(n,)` of groups as text; an image whose group is "" is a group of its own, and None when all are ""."""
    if not any(values):
        return None
    keys = [("named", value) if value else ("alone", str(position)) for position, value in enumerate(values)]
    code = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([code[key] for key in keys], dtype=np.int64)


def part_names(values: Sequence[str], *, origin: str) -> NDArray[np.str_] | None:
    """Parts `(n,)` under their one name each; None when all are "".

    Raises:
        InputError: A part that is none of `PARTS`; `origin` says where it was read.
    """
    unknown = sorted({value for value in values if value.lower() not in PARTS})
    if unknown:
        raise InputError(
            f"a split is train, validation or test; {origin} has {unknown[0]!r}: rename it or leave it empty"
        )
    return np.array([PARTS[value.lower()] for value in values]) if any(values) else None
