"""What is wrong with a data set before anyone trains on it: leaks through the split, copies, labels that conflict.

Pure computations on an `ImageSet`; a finding names images by their positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kontrast.data.audit.leaks import Copies
from kontrast.data.audit.likeness import LEAST_CONTRAST, Looks, Positions
from kontrast.data.images import ImageSet

Grade = Literal["leak", "problem", "note"]
"""A leak makes every score on the test part worthless; a problem should be looked at; a note may be meant."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Images or a file that a finding is about."""

    positions: tuple[int, ...] = ()
    """Of the images, in the set."""
    name: str = ""
    """Of a file that is no image of the set, or of a group; else ""."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something found, in one sentence, and all images that it is about."""

    kind: str
    """In a word or two with hyphens, for machines."""
    title: str
    grade: Grade
    sentence: str
    items: tuple[Item, ...] = ()


def cut_groups(data: ImageSet, parts: NDArray[np.str_]) -> Finding | None:
    """Groups that have images on several sides of the split."""
    if data.groups is None:
        return None
    cut = [each for each in _members(data.groups) if len(_sides(parts, each)) > 1]
    if not cut:
        return None
    has = "has" if len(cut) == 1 else "have"
    return Finding(
        kind="cut-groups",
        title="Groups cut by the split",
        grade="leak",
        sentence=f"{_count(len(cut), 'group')} of {len(np.unique(data.groups)):,} {has} images on "
        "several sides of the split: move each whole group to one side.",
        items=tuple(_item(each, parts, name=_group_name(data, each[0])) for each in cut),
    )


def copied(data: ImageSet, parts: NDArray[np.str_], found: Copies) -> Iterator[Finding]:
    """Leaks through copies, copies within a part, and near-duplicates between groups."""
    exact = _members(found.exact)
    like = [each for each in _members(found.joined()) if len(np.unique(found.exact[each])) > 1]
    across = [each for each in exact if len(_sides(parts, each)) > 1]
    near_across = [each for each in like if len(_sides(parts, each)) > 1]
    yield from _listed(
        "exact-across", "Exact copies across the split", "leak", across, parts,
        "{} the same pixels on several sides of the split: keep all copies on one side, or one copy only.",
    )  # fmt: skip
    yield from _listed(
        "near-across", "Near-duplicates across the split", "leak", near_across, parts,
        "{} near-duplicates on several sides of the split: the same picture encoded, scaled or shifted anew, or "
        "neighbouring slices; keep them on one side.",
    )  # fmt: skip
    inside = [each for each in exact if len(_sides(parts, each)) < 2]
    yield from _listed(
        "exact-within", "Exact copies", "problem", inside, parts,
        "{} the same pixels several times on one side: they count several times.",
    )  # fmt: skip
    apart = [each for each in like if len(_sides(parts, each)) < 2 and _num_groups(data, each) > 1]
    what = "{} near-duplicates" if data.groups is None else "{} near-duplicates of different groups"
    close = "they may be of one patient, lesion or volume: name it as their group."
    yield from _listed("near-within", "Near-duplicates", "problem", apart, parts, f"{what} on one side: {close}")


def conflicts(data: ImageSet, parts: NDArray[np.str_], exact: Positions) -> Finding | None:
    """The same pixels under different labels."""
    if data.labels is None:
        return None
    known = data.labels >= 0 if data.labels.ndim == 1 else ~np.isnan(data.labels).any(axis=1)
    found = []
    for each in _members(exact):
        labelled = each[known[each]]
        if len(labelled) > 1 and len(np.unique(data.labels[labelled], axis=0)) > 1:
            found.append(labelled)
    return next(
        _listed(
            "label-conflicts", "Same pixels, different labels", "problem", found, parts,
            "{} the same pixels under different labels: one of the labels is wrong.",
            labels=data,
        ),
        None,
    )  # fmt: skip


def constant(data: ImageSet, seen: Looks) -> Finding | None:
    """Images that show nothing."""
    flat = np.flatnonzero(seen.contrast < LEAST_CONTRAST)
    if not len(flat):
        return None
    return Finding(
        kind="constant",
        title="Images that show nothing",
        grade="problem",
        sentence=f"{_count(len(flat), 'image')} {_is(len(flat))} constant, or nearly so: leave them out.",
        items=tuple(
            Item(positions=(int(at),), note=f"brightness {seen.mean[at]:.2f} of 1, contrast {seen.contrast[at]:.4f}")
            for at in flat
        ),
    )


def within_groups(data: ImageSet, found: Copies) -> int:
    """Near-duplicates within one group, as neighbouring slices are: counted, and no finding."""
    if data.groups is None:
        return 0
    return int((data.groups[found.pairs.first] == data.groups[found.pairs.second]).sum())


def files_finding(kind: str, title: str, grade: Grade, files: Sequence[tuple[str, str]], what: str) -> Finding | None:
    """Files that are no images of the set, each with the reason."""
    if not files:
        return None
    items = tuple(Item(name=name, note=reason) for name, reason in files)
    return Finding(kind=kind, title=title, grade=grade, sentence=f"{_count(len(files), 'file')} {what}.", items=items)


def _listed(
    kind: str,
    title: str,
    grade: Grade,
    found: Sequence[Positions],
    parts: NDArray[np.str_],
    sentence: str,
    *,
    labels: ImageSet | None = None,
) -> Iterator[Finding]:
    """A finding of sets of images, if there is any; `{}` in the sentence is how many images in how many sets."""
    if not found:
        return
    images = sum(map(len, found))
    said = sentence.format(f"{images:,} images in {_count(len(found), 'set')} are")
    items = tuple(_item(each, parts, data=labels) for each in found)
    yield Finding(kind=kind, title=title, grade=grade, sentence=said, items=items)


def _item(members: Positions, parts: NDArray[np.str_], *, name: str = "", data: ImageSet | None = None) -> Item:
    notes = [f"{count:,} {part}" for part, count in _counts(parts[members]) if part]
    if data is not None:
        notes = list(dict.fromkeys(label_name(data, int(at)) for at in members))
    return Item(positions=tuple(map(int, members)), name=name, note=", ".join(notes))


def label_name(data: ImageSet, position: int) -> str:
    """Class of an image in words; several of multi-label data are joined, none is ""."""
    if data.labels is None:
        return ""
    if data.labels.ndim == 2:
        return " + ".join(np.array(data.classes)[data.labels[position] == 1]) or "none of the classes"
    code = int(data.labels[position])
    return data.classes[code] if code >= 0 else ""


def _members(codes: Positions) -> list[Positions]:
    """Positions of each code that several images have, in order of the first."""
    several = np.bincount(codes)[codes] > 1
    order = np.flatnonzero(several)[np.argsort(codes[several], kind="stable")]
    if not len(order):
        return []
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return sorted(np.split(order, ends), key=lambda each: int(each[0]))


def _sides(parts: NDArray[np.str_], members: Positions) -> set[str]:
    """Parts that hold any of them; images of no part are on no side."""
    return set(parts[members].tolist()) - {""}


def _num_groups(data: ImageSet, members: Positions) -> int:
    return len(members) if data.groups is None else len(np.unique(data.groups[members]))


def _group_name(data: ImageSet, position: int) -> str:
    assert data.groups is not None
    code = int(data.groups[position])
    return data.group_names[code] if code < len(data.group_names) else f"group {code}"


def _counts(values: Iterable[str]) -> list[tuple[str, int]]:
    names, counts = np.unique(np.asarray(list(values)), return_counts=True)
    return [(str(name), int(count)) for name, count in zip(names, counts, strict=True)]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' if number != 1 else ''}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
