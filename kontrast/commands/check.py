"""`kontrast data check DATA`: leaks, copies and labels that conflict, before anything trains."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kontrast import distributed
from kontrast.commands.assemble import DataOptions, as_written, data_name, open_data, texts_settled, write_json
from kontrast.commands.call import keyword_call
from kontrast.commands.flags import flags
from kontrast.commands.provenance import provenance, versions
from kontrast.commands.run import read_as_trained, run_settings
from kontrast.data import ImageSet, hold_out
from kontrast.data.annotations import part_names
from kontrast.data.audit import findings as audit
from kontrast.data.audit import values
from kontrast.data.audit.findings import Finding, Item
from kontrast.data.audit.leaks import Copies, find_copies
from kontrast.data.tabular import read_table
from kontrast.errors import InputError
from kontrast.evaluate.doubts import LOOKED_AT, doubts, neighbours
from kontrast.evaluate.stored import stored_features
from kontrast.nn.encoders import load_encoder
from kontrast.study import audit_page
from kontrast.study.wording import count, shorten
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")

GRADES = {"leak": 0, "problem": 1, "note": 2}
NAMED = 3
"""Sets of images of a finding that the terminal names."""
CLOSEST = 5
"""Neighbours by the encoder of a run that are looked at as possible duplicates."""

Parts = NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Check(DataOptions):
    """Find leaks through the split, duplicates, labels that conflict, and files that stand out; exit 1 for a leak."""

    split: Path | None = None
    """Table with columns `path,split` in place of the data's own split; by default theirs, else Kontrast's hold-out.

    Its paths are those below the data folder; that of a volume or DICOM file stands for all its images.
    """
    run: Path | None = None
    """Run whose encoder looks for duplicates and doubtful labels as well."""
    out: Path | None = None
    """New or empty folder for report.html and check.json; by default only the table on the terminal."""
    thumbnails: bool = True
    """Show images on the page; without, it holds only names."""
    turned: bool = False
    """Find copies that are mirrored or turned by a quarter as well; takes eight times as long."""
    device: str = "auto"
    """`auto` is the first GPU if there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """What was found."""

    data: ImageSet
    parts: Parts
    """`(n,)` side of the split of each image, or ""."""
    split: str
    """Where the split comes from, in a sentence."""
    facts: dict[str, str]
    findings: tuple[Finding, ...]
    """The gravest first."""

    @property
    def has_leak(self) -> bool:
        """Whether any finding is a leak."""
        return any(found.grade == "leak" for found in self.findings)


def run(options: Check) -> Checked:
    """Check a data set; returns what was found, and writes it where a folder is given."""
    distributed.start()
    if options.out is not None:
        _check_folder(options.out)
    options = texts_settled(options, are_used=True)
    data = open_data(_as_read_by_the_run(options))
    parts, split = _parts(options, data)
    checked = _checked(options, data, parts, split)
    _print(checked)
    if options.out is not None:
        write_json(options.out / "check.json", _content(options, checked))
        audit_page.write(_page(options, checked), data, options.out / "report.html", thumbnails=options.thumbnails)
        log.info("the page is %s", options.out / "report.html")
    return checked


def run_for_exit_code(options: Check) -> int:
    """Check a data set; returns 1 if there is a leak, else 0."""
    return int(run(options).has_leak)


def _as_read_by_the_run(options: Check) -> Check:
    """The images are shown to the encoder of a run as its own were."""
    if options.run is None or not options.run.is_dir():
        return options
    return read_as_trained(options, run_settings(options.run))


def _check_folder(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"--out must be a new or empty folder; {out} holds something, so name another")


def _checked(options: Check, data: ImageSet, parts: Parts, split: str) -> Checked:
    near = _neighbours(options, data)
    copies = find_copies(data, turned=options.turned, also=None if near is None else near[:, :CLOSEST])
    measured = values.values(data)
    findings = [
        audit.cut_groups(data, parts),
        *audit.copied(data, parts, copies),
        audit.conflicts(data, parts, copies.exact),
        audit.files_finding("unreadable", "Unreadable files", "problem", data.skipped, "that could not be read"),
        audit.files_finding(
            "left-out", "Files left out", "note", data.left_out, "left out by a rule: sound, but no image to learn from"
        ),
        audit.constant(data, copies.looks),
        values.text(data, measured),
        values.depth(data, measured),
        *values.outliers(data),
        values.clipped(data, measured),
        None if near is None else _doubted(data, near),
    ]
    there = [found for found in findings if found is not None]
    facts = _facts(data, copies) | values.ranges(data, measured) | {"Split": split}
    return Checked(
        data=data, parts=parts, split=split, facts=facts, findings=tuple(sorted(there, key=lambda f: GRADES[f.grade]))
    )


def _parts(options: Check, data: ImageSet) -> tuple[Parts, str]:
    """The side of each image, and where that comes from."""
    if options.split is not None:
        names = (
            data.names
            if not options.alias_paths
            else open_data(replace(_as_read_by_the_run(options), alias_paths=False)).names
        )
        return _given_parts(options.split, names), f"that of {options.split.name}"
    if data.parts is not None:
        return data.parts, "the data's own"
    try:
        train, test = hold_out(data)
    except InputError as error:
        return np.full(len(data), ""), f"none, since {error}"
    parts = np.full(len(data), "", dtype="<U5")
    parts[train], parts[test] = "train", "test"
    by = "class, groups left out of account as asked" if data.may_cut_groups else "class and group"
    return parts, f"Kontrast's own hold-out by {by}, since the data have none"


def _given_parts(path: Path, names: Sequence[str]) -> Parts:
    """The parts that a table gives to the images of the files that it names; the others have none."""
    table = read_table(path)
    if "split" not in table.columns:
        raise InputError(
            f"a table of a split must have a column `split`; {path} has {', '.join(table.columns)}: rename the one "
            "that says train, validation or test"
        )
    part = dict(zip(table.columns["path"], table.columns["split"], strict=True))
    keys = [name if name in part else name.rpartition("#")[0] for name in names]
    unknown = [name for name in part if name not in set(keys)]
    if unknown:
        raise InputError(
            f"a split must be of the images; {len(unknown)} of {len(part)} paths in {path} are not among them "
            f"({unknown[0]!r}): write them as Kontrast names them, such as {names[0]!r}"
        )
    found = part_names([part.get(key, "") for key in keys], origin=str(path))
    return np.full(len(names), "") if found is None else found


def _neighbours(options: Check, data: ImageSet) -> NDArray[np.int64] | None:
    """Nearest images by the encoder of the run, if there is one."""
    if options.run is None:
        return None
    encoder = load_encoder(options.run).to(choose_device(options.device))
    return neighbours(stored_features(encoder, data), LOOKED_AT)


def _doubted(data: ImageSet, near: NDArray[np.int64]) -> Finding | None:
    """Labels that the nearest images of other groups do not share."""
    if data.labels is None or data.is_multilabel:
        return None
    found = doubts(near, data.labels, data.groups)
    if not len(found.positions):
        return None
    items = tuple(
        Item(
            positions=(int(at),),
            note=f"labelled {audit.label_name(data, int(at))}, {share:.0%} of its neighbours are {data.classes[other]}",
        )
        for at, other, share in zip(found.positions, found.other, found.share, strict=True)
    )
    return Finding(
        kind="doubtful-labels",
        title="Doubtful labels",
        grade="note",
        sentence=f"{count(len(items), 'label')} of {len(data):,} {'is' if len(items) == 1 else 'are'} shared by at "
        "most a tenth of the nearest images of other groups, by the encoder of the run: candidates for a second look, "
        "rare but right ones among them.",
        items=items,
    )


def _facts(data: ImageSet, copies: Copies) -> dict[str, str]:
    facts = {"Data": data.name, "Images": f"{len(data):,}", "Fingerprint": data.fingerprint[:12]}
    if data.texts is not None:
        facts["Texts"] = _told_by(data.texts)
    if data.groups is not None:
        facts["Groups"] = f"{len(np.unique(data.groups)):,}"
        alike = audit.within_groups(data, copies)
        if alike:
            facts["Near-duplicate pairs within groups"] = f"{alike:,}, as is natural"
    return facts


def _told_by(texts: tuple[tuple[str, ...], ...]) -> str:
    """How many texts there are, how many of them differ, and how many images share one with another."""
    owners = Counter(text for known in texts for text in known)
    shared = sum(any(owners[text] > 1 for text in known) for known in texts)
    return f"{owners.total():,}, {len(owners):,} of them different; {shared:,} images share one with another image"


def _sides(checked: Checked) -> tuple[str, ...]:
    """Names of the columns of the table of classes."""
    known = [part for part in ("train", "validation", "test", "") if (checked.parts == part).any()]
    return tuple(part or ("images" if len(known) == 1 else "in no part") for part in known)


def _classes(checked: Checked) -> dict[str, tuple[int, ...]]:
    labels, sides = checked.data.labels, [s for s in ("train", "validation", "test", "") if (checked.parts == s).any()]
    if labels is None:
        return {}
    member = labels[:, None] == np.arange(len(checked.data.classes)) if labels.ndim == 1 else labels == 1
    table = [member[checked.parts == side].sum(axis=0) for side in sides]
    return {name: tuple(int(row[at]) for row in table) for at, name in enumerate(checked.data.classes)}


def _headline(checked: Checked) -> str:
    leaks = [found.title for found in checked.findings if found.grade == "leak"]
    if leaks:
        return f"There is a leak: {'; '.join(leaks).lower()}."
    if not (checked.parts != "").any():
        return f"There is no split that could leak; {count(len(checked.data), 'image')} looked at."
    return f"No leak found among {count(len(checked.data), 'image')}."


def _print(checked: Checked) -> None:
    console = Console(highlight=False, markup=False)
    console.print(Text(_headline(checked), style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for style, ratio in (("bold", None), (None, 1)):
        table.add_column(style=style, ratio=ratio, overflow="fold")
    for found in checked.findings:
        table.add_row(found.grade, Text("\n".join(_lines(checked.data, found))))
    for name, said in checked.facts.items():
        table.add_row("", Text(f"{name}: {shorten(said, letters=200)}"))
    for name, counts in _classes(checked).items():
        numbers = ", ".join(f"{number:,} {side}" for number, side in zip(counts, _sides(checked), strict=True))
        table.add_row("", Text(f"Class {shorten(name, letters=80)}: {numbers}"))
    console.print(table)


def _lines(data: ImageSet, found: Finding) -> Iterator[str]:
    """A finding on the terminal: its sentence, and the first images."""
    yield found.sentence
    for item in found.items[:NAMED]:
        names = [shorten(data.names[at], letters=60) for at in item.positions[:4]]
        more = ["..."] if len(item.positions) > 4 else []
        about = shorten(": ".join(each for each in (item.name, item.note) if each), letters=120)
        yield f"  {', '.join([*names, *more])}{' ' if names else ''}{f'({about})' if names and about else about}"
    if len(found.items) > NAMED:
        yield f"  and {len(found.items) - NAMED:,} more"


def _content(options: Check, checked: Checked) -> dict[str, Any]:
    """What `check.json` holds."""
    data, sides = checked.data, _sides(checked)
    return {
        **provenance(data),
        "settings": as_written(vars(options) | {"data": data_name(options.data)}),
        "leak": checked.has_leak,
        "headline": _headline(checked),
        "split": checked.split,
        "parts": {part: int((checked.parts == part).sum()) for part in np.unique(checked.parts).tolist()},
        "facts": checked.facts,
        "classes": {name: dict(zip(sides, row, strict=True)) for name, row in _classes(checked).items()},
        "findings": [_as_json(data, found) for found in checked.findings],
    }


def _as_json(data: ImageSet, found: Finding) -> dict[str, Any]:
    items = [
        {"images": [data.names[at] for at in item.positions], "name": item.name, "note": item.note}
        for item in found.items
    ]
    return {"kind": found.kind, "title": found.title, "grade": found.grade, "sentence": found.sentence, "items": items}


def _page(options: Check, checked: Checked) -> audit_page.AuditPage:
    words = ["kontrast", "data", "check", data_name(options.data), *flags(options, without=("data", "out"))]
    graver = [found for found in checked.findings if found.grade != "note"]
    return audit_page.AuditPage(
        title=f"Check of {checked.data.name}",
        headline=_headline(checked),
        sentences=(f"{count(len(graver), 'finding')} to act on, {len(checked.findings) - len(graver)} to know of.",),
        facts=checked.facts,
        parts=_sides(checked),
        classes=_classes(checked),
        findings=checked.findings,
        versions=versions(),
        command=shlex.join(words),
    )


check = keyword_call(Check, run)
