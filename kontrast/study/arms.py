"""Which training run belongs to which arm of a study, and how each arm is called and looks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from kontrast.study.contents import Curve, Page
from kontrast.study.looks import Style, styles


class Arm(NamedTuple):
    """What one arm, or a run that belongs to none, is called and looks like."""

    title: str
    style: Style


def arms_of(page: Page) -> dict[str, Arm]:
    """By key: every arm in the order of the rows, then every group of runs that is no arm itself."""
    kinds: dict[str, tuple[str, Literal["method", "baseline"]]] = {row.arm: (row.title, row.kind) for row in page.rows}
    runs = runs_of(page)
    strangers = [name for name in runs if name not in kinds and not _readings(name, kinds)]
    kinds |= {name: (name, "method") for name in strangers}
    looks = styles(kind for _, kind in kinds.values())
    arms = {name: Arm(title, style) for (name, (title, _)), style in zip(kinds.items(), looks, strict=True)}
    for name in runs:
        if name not in arms:
            first = arms[_readings(name, kinds)[0]]
            arms[name] = Arm((first.title.rpartition(", ")[0] or first.title), first.style)
    return arms


def runs_of(page: Page) -> dict[str, list[Curve]]:
    """Group curves: each run goes to the longest key of an arm, or else first part of one, that its name holds."""
    arms = {row.arm for row in page.rows}
    keys = sorted(arms, key=len, reverse=True) + sorted({arm.split("-")[0] for arm in arms}, key=len, reverse=True)
    groups: dict[str, list[Curve]] = {}
    for run, curve in page.curves.items():
        owner = next((key for key in keys if re.search(rf"(?<![^\W_]){re.escape(key)}(?![^\W_])", run)), run)
        groups.setdefault(owner, []).append(curve)
    return groups


def _readings(name: str, arms: Iterable[str]) -> list[str]:
    """Arms that read the same encoder in several ways: `simclr-linear` and `simclr-knn` of `simclr`."""
    return [arm for arm in arms if arm.startswith(f"{name}-")]
