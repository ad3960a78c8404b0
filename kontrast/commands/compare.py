"""`kontrast compare STUDY STUDY`: several finished studies on one page, paired where that is fair."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.commands.assemble import write_json
from kontrast.commands.call import keyword_call
from kontrast.commands.files import check_out
from kontrast.commands.provenance import versions
from kontrast.commands.repeat import Tested, read_settings, read_study, read_truth
from kontrast.errors import InputError
from kontrast.evaluate import intervals
from kontrast.evaluate.intervals import Estimate
from kontrast.study import page, wording
from kontrast.study.contents import Difference, Page, Row
from kontrast.study.plan import read_answers

log = logging.getLogger("kontrast")

Floats = NDArray[np.float64]
Cells = dict[tuple[str, str], tuple[Floats, NDArray[np.int64]]]
"""By the names of seed and draw: predictions of the test images, and the labels seen."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put several studies on one page; where they share images, labels, seeds and draws, differences are paired."""

    studies: tuple[Path, ...]
    """Folders of finished studies, two or more."""
    out: Path = Path("compare.html")
    """The page to write, an .html; its figures go into a .json beside it."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A study as its folder holds it."""

    folder: Path
    name: str
    """What the page calls it."""
    found: dict[str, Any]
    """`study.json`."""
    settings: dict[str, Any]
    tested: Tested


def run(options: Compare) -> Path:
    """Compare studies; returns the path of the page."""
    if not 2 <= len({folder.resolve() for folder in options.studies}) == len(options.studies):
        raise InputError(f"a comparison takes two or more studies, each once; got {_listed(options.studies)}")
    beside = options.out.with_suffix(".json")
    check_out(options.out, (".html",), "comparisons")
    check_out(beside, (".json",), "comparisons")
    studies = [_read(folder, name) for folder, name in zip(options.studies, _names(options.studies), strict=True)]
    made = _page(studies, shlex.join(["kontrast", "compare", *map(str, options.studies)]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    told = ("verdict", "rows", "differences", "notes")
    write_json(beside, {name: getattr(made, name) for name in told} | {"studies": [str(s.folder) for s in studies]})
    page.write(made, options.out)
    log.info("the page is %s", options.out)
    return options.out


def _listed(folders: tuple[Path, ...]) -> str:
    return ", ".join(map(str, folders)) or "none"


def _names(folders: tuple[Path, ...]) -> list[str]:
    """The folders' own names where these differ, else their paths."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> Finished:
    found, tested = read_study(folder), read_truth(folder)
    return Finished(folder=folder, name=name, found=found, settings=read_settings(folder), tested=tested)


def _page(studies: list[Finished], command: str) -> Page:
    rows = [row for study in studies for row in _rows(study)]
    differences = [one for first, second in combinations(studies, 2) for one in _differences(first, second)]
    paired = {(first.name, second.name): _pairing(first, second) for first, second in combinations(studies, 2)}
    return Page(
        title=f"Kontrast comparison of {len(studies)} studies",
        verdict=_verdict(studies, differences),
        recommendation="A comparison recommends nothing; what each study chose on validation images is on its page.",
        metric=studies[0].found["metric"],
        facts={study.name: _facts(study) for study in studies},
        rows=tuple(rows),
        differences=tuple(differences),
        curves={},
        health=(),
        notes=tuple(f"{a} and {b}: {why}" for (a, b), why in paired.items()),
        skipped=(),
        settings=_differing(studies),
        versions=versions(),
        command=command,
    )


def _rows(study: Finished) -> Iterator[Row]:
    for row in study.found["rows"]:
        own = {**row, "arm": f"{study.name} {row['arm']}", "title": f"{study.name}: {row['title']}"}
        yield Row(**{**own, "scores": {name: _estimate(score) for name, score in row["scores"].items()}})


def _estimate(found: Mapping[str, Any]) -> Estimate:
    """As it was before JSON, which has no NaN."""
    known = {field.name: found[field.name] for field in fields(Estimate)}
    return Estimate(**{**known, **{end: np.nan for end in ("value", "low", "high") if known[end] is None}})


def _pairing(first: Finished, second: Finished) -> str:
    """Whether two studies are compared pair by pair, in words."""
    why_not = _why_not(first, second)
    if why_not:
        return f"{why_not}, so their scores stand side by side and no difference is computed."
    return (
        "the same images, labels and split; differences are paired wherever an arm of the same name had the same "
        "seeds, draws and labels in both."
    )


def _why_not(first: Finished, second: Finished) -> str | None:
    """Why two studies cannot be compared pair by pair; None where they can."""
    one, other = first.tested, second.tested
    if first.found["fingerprint"] != second.found["fingerprint"]:
        return "other images"
    if not np.array_equal(one.rows, other.rows):
        return "the same images, but another split"
    if one.classes != other.classes or not _same(one.labels, other.labels) or not _same(one.groups, other.groups):
        return "the same test images, but other labels, groups or names of classes"
    if first.found["annotations"] != second.found["annotations"]:
        return "the same test images, but other training images, or other labels or groups of them"
    if first.found["metric"] != second.found["metric"]:
        return "other main metrics"
    return None


def _same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Whether both are equal, a cell without a label (NaN) to another, or both None."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


def _differences(first: Finished, second: Finished) -> Iterator[Difference]:
    """The second study minus the first, for every arm that both have with the same labels."""
    if _why_not(first, second):
        return
    for row in second.found["rows"]:
        cells = [_cells(study, row["arm"], row["num_labels"]) for study in (first, second)]
        if cells[0].keys() != cells[1].keys() or not cells[0]:
            continue
        if all(np.array_equal(cells[0][key][1], cells[1][key][1]) for key in cells[0]):
            yield _paired(first, second, row, [_stacked(own) for own in cells])


def _cells(study: Finished, arm: str, num_labels: int) -> Cells:
    found: Cells = {}
    for path in sorted((study.folder / "cells" / arm).glob("*/*.npz")):
        answers = read_answers(path)
        if len(answers.labelled) == num_labels:
            found[path.parent.name, path.stem] = answers.test.astype(np.float64), answers.labelled
    return found


def _stacked(cells: Cells) -> Floats:
    """`(seeds, draws, n, classes)`."""
    seeds = sorted({seed for seed, _ in cells})
    return np.stack([np.stack([test for (own, _), (test, _) in cells.items() if own == seed]) for seed in seeds])


def _paired(first: Finished, second: Finished, row: dict[str, Any], arms: list[Floats]) -> Difference:
    metric = first.found["metric"]
    gain = intervals.difference(first.tested.labels, arms[1], arms[0], metric, groups=first.tested.groups)
    word = {"helps": "higher", "hurts": "lower"}.get(intervals.verdict(gain), "no difference shown")
    return Difference(
        arm=f"{second.name} {row['arm']}",
        title=f"{second.name}: {row['title']}",
        baseline=f"{first.name}: {row['title']}",
        num_labels=row["num_labels"],
        metric=metric,
        estimate=gain,
        finding=word,
    )


def _verdict(studies: list[Finished], differences: list[Difference]) -> tuple[str, ...]:
    """What each study found, and before that how many of the paired differences leave out 0."""
    own = tuple(f"{study.name}: {study.found['verdict'][0]}" for study in studies)
    if not differences:
        return ("These studies cannot be compared pair by pair; their scores stand side by side.", *own)
    shown = [one for one in differences if one.finding != "no difference shown"]
    named = "; ".join(
        f"{one.title} is {one.finding} than {one.baseline} with {one.num_labels:,} labels "
        f"({wording.gain(one.estimate)})"
        for one in shown[:3]
    )
    metric = wording.metric_inline(differences[0].metric)
    headline = f"{len(shown)} of {len(differences)} paired differences of {metric} leave out 0"
    return (f"{headline}{': ' if named else ''}{named}{'; …' if len(shown) > 3 else ''}.", *own)


def _facts(study: Finished) -> str:
    found = study.found
    return f"{found['data']}, {len(study.tested.rows):,} test images, fingerprint {found['fingerprint'][:12]}"


def _differing(studies: list[Finished]) -> str:
    """The settings that are not the same in all studies, one a line."""
    keys = sorted({key for study in studies for key in study.settings})
    lines = []
    for key in keys:
        values = [study.settings.get(key) for study in studies]
        if any(value != values[0] for value in values):
            lines.append(f"{key}: " + ", ".join(f"{s.name} {v}" for s, v in zip(studies, values, strict=True)))
    return "\n".join(lines) or "The settings are the same."


compare = keyword_call(Compare, run)
