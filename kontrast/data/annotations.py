"""What is known of each image beside its pixels: class, group and part of the split, from text to codes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
    """Labels, groups, parts and texts of `n` images, as `ImageSet` keeps them; None where nothing is known."""

    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    """Name of each group's code, "" for an image that is a group of its own."""
    parts: NDArray[np.str_] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None

    def take(self, positions: NDArray[np.int64]) -> Annotations:
        """Of the images at `positions`, of which the same may stand there many times."""
        return replace(
            self,
            labels=None if self.labels is None else self.labels[positions],
            groups=None if self.groups is None else self.groups[positions],
            parts=None if self.parts is None else self.parts[positions],
            texts=None if self.texts is None else tuple(self.texts[position] for position in positions),
        )


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


def group_codes(values: Sequence[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Codes `(n,)` and the name of each code, of groups as text; None when all are "".

    An image whose group is "" is a group of its own, which has no name.
    """
    if not any(values):
        return None, ()
    keys = [("named", value) if value else ("alone", str(position)) for position, value in enumerate(values)]
    code = {key: number for number, key in enumerate(sorted(set(keys)))}
    names = tuple(name if kind == "named" else "" for kind, name in code)
    return np.array([code[key] for key in keys], dtype=np.int64), names


def alias_codes(values: Sequence[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """As `group_codes`, of aliases: numbered as they first occur, since their order by name depends on the key."""
    if not any(values):
        return None, ()
    keys = [value or str(position) for position, value in enumerate(values)]
    code = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    names = ["" for _ in code]
    for value in set(values) - {""}:
        names[code[value]] = value
    return np.array([code[key] for key in keys], dtype=np.int64), tuple(names)


def surest(keys: Sequence[tuple[str, ...]]) -> list[str]:
    """One group for each image, from all that it is known to belong to, the surest first.

    An image of which only something weaker is known, such as its study, takes the patient of the others that share it,
    if they agree on one.
    """
    owners: dict[str, set[str]] = {}
    for known in keys:
        for stronger, weaker in pairwise(known):
            owners.setdefault(weaker, set()).add(stronger)
    return [_owner(known[0], owners) if known else "" for known in keys]


def _owner(group: str, owners: dict[str, set[str]]) -> str:
    """Follows a group to the only stronger one that it is part of, as long as there is one."""
    seen = {group}
    while len(owners.get(group, ())) == 1 and not owners[group] <= seen:
        [group] = owners[group]
        seen.add(group)
    return group


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
