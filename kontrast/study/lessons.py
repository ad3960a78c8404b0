"""What runs made of the augmentation that they learned: from their folders to plain data for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from kontrast.augment import policy_file
from kontrast.augment.operations import OPERATIONS, Constant, Operation, constants
from kontrast.augment.policies import Policy
from kontrast.data import ImageSet
from kontrast.methods.learned_views import LearnedViews
from kontrast.study import exhibits
from kontrast.study.contents import Course, Ending, Learned, LearnedOperation
from kontrast.study.wording import count, with_labels
from kontrast.train.log import Row, read_rows

MOVED = 0.05
"""Change of a strength, as a share of what it began with, from which on the page says that it became another."""
STILL = 1e-4
"""Change below which it never moved: what is left of a number that is stored in single precision."""
PREFIX = "policy."
AIMS = {
    "semi": "to make labels easier to read and two views of an image harder to match",
    "adversarial": "to make two views of an image harder to match, and reads no labels",
    "supervised": "to make labels easier to read",
    "cooperative": "to make both labels easier to read and two views of an image easier to match",
}
"""Of the policy, by the mode of learned views."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """A finished run whose policy was learned."""

    seed: int
    num_labels: int | None
    """None where the method reads no labels."""

    rows: Sequence[Row]
    policy: Policy
    """As it was left."""

    file: Path
    """What holds it."""

    @property
    def title(self) -> str:
        """Such as "48 labels, seed 0"."""
        return (
            f"seed {self.seed}" if self.num_labels is None else f"{count(self.num_labels, 'label')}, seed {self.seed}"
        )

    @property
    def names(self) -> list[str]:
        """The operations that were learned."""
        return [key.removeprefix(PREFIX) for key in self.rows[-1] if key.startswith(PREFIX)]


def read(folder: Path, *, size: int, channels: int) -> list[Lesson]:
    """The runs of an arm that learned their policy, the fewest labels first, then by seed.

    Args:
        folder: Holds the runs, each by its seed and the number of its labels.
        size: Side of the views in pixels.
        channels: Of the images.
    """
    found = []
    for file in sorted(folder.glob("*/policy.yaml")):
        named = re.fullmatch(r"seed-(\d+)(?:-labels-(\d+)-\w+)?", file.parent.name)
        rows = read_rows(file.parent / "metrics.jsonl")
        if named and rows and any(key.startswith(PREFIX) for key in rows[-1]):
            policy = policy_file.read(file, size=size, channels=channels)
            labels = None if named[2] is None else int(named[2])
            found.append(Lesson(seed=int(named[1]), num_labels=labels, rows=rows, policy=policy, file=file))
    return sorted(found, key=lambda lesson: (lesson.num_labels or 0, lesson.seed))


def learned(
    lessons: Sequence[Lesson], start: Policy, train: ImageSet, *, key: str, title: str, note: str, out: Path
) -> Learned:
    """What an arm made of its policy, with the first of its runs as the example.

    Args:
        lessons: Its runs, as `read` orders them; at least one.
        start: The policy that they began with.
        train: The training images, for a few views.
        key: Names the arm's runs.
        title: What the page calls it.
        note: What it aims at.
        out: Folder of the study.
    """
    first, began = lessons[0], constants(start)
    return Learned(
        title=title,
        key=key,
        note=note,
        findings=tuple(_finding(group, began) for group in _by_labels(lessons)),
        operations=tuple(_operation(name, lessons, began[name]) for name in first.names),
        run=first.title,
        views=exhibits.compared(train, Policy(start.geometry, start.intensity), first.policy),
        policy=first.file.read_text(encoding="utf-8"),
        path=first.file.relative_to(out).as_posix(),
    )


def note(config: LearnedViews.Config) -> str:
    """What a policy with these settings aims at, when, and what stands for it here."""
    said = (
        f"In mode {config.mode}, the policy learns {AIMS[config.mode]}. It does so from {100 * config.start:.0f} % to "
        f"{100 * config.freeze:.0f} % of the training and stays as it is for the rest."
    )
    if config.producer == "network":
        said += " A small network sets the strengths for each image; shown, and in the file, is their mean over images."
    return said


def _by_labels(lessons: Sequence[Lesson]) -> list[list[Lesson]]:
    """The runs of each number of labels."""
    numbers = dict.fromkeys(lesson.num_labels for lesson in lessons)
    return [[lesson for lesson in lessons if lesson.num_labels == number] for number in numbers]


def _operation(name: str, lessons: Sequence[Lesson], began: Constant) -> LearnedOperation:
    operation = OPERATIONS[name]
    start = _shown(operation, operation.width(began))
    return LearnedOperation(
        name=name,
        what=_what(operation),
        nothing=_shown(operation, 0.0),
        start=start,
        ends=tuple(_ending(name, group) for group in _by_labels(lessons)),
        courses=tuple(_course(name, lesson, start) for lesson in lessons),
    )


def _what(operation: Operation) -> str:
    """Its unit; of a range, named by the one end that a width is shown as."""
    return operation.what.replace("smallest and largest", "smallest" if operation.form == "share" else "largest")


def _ending(name: str, group: Sequence[Lesson]) -> Ending:
    values = [_shown(OPERATIONS[name], OPERATIONS[name].width(constants(one.policy)[name])) for one in group]
    return Ending(
        num_labels=group[0].num_labels, num_runs=len(group), value=fmean(values), low=min(values), high=max(values)
    )


def _course(name: str, lesson: Lesson, start: float) -> Course:
    rows = [row for row in lesson.rows if PREFIX + name in row]
    return Course(
        title=lesson.title,
        num_labels=lesson.num_labels,
        epochs=(0.0, *(float(row["epoch"]) for row in rows)),
        values=(start, *(row[PREFIX + name] for row in rows)),
    )


def _shown(operation: Operation, width: float) -> float:
    return float(operation.shown(torch.tensor(width, dtype=torch.float64)))


def _finding(group: Sequence[Lesson], began: Mapping[str, Constant]) -> str:
    """What became stronger and what weaker in all runs with one number of labels."""
    changes = {name: [_change(name, one, began[name]) for one in group] for name in group[0].names}
    head = f"{with_labels(group[0].num_labels).capitalize()}, in {_every(len(group))}"
    if all(abs(change) < STILL for each in changes.values() for change in each):
        return f"{head}, the policy never moved: every operation ended where it began."
    ways = {
        "stronger": [name for name, each in changes.items() if min(each) > 0 and fmean(each) >= MOVED],
        "weaker": [name for name, each in changes.items() if max(each) < 0 and fmean(each) <= -MOVED],
    }
    told = [f"{_listed(names)} became {way}" for way, names in ways.items() if names]
    moved = sum(len(names) for names in ways.values())
    if moved < len(changes):
        who = "the others" if moved else "every operation"
        alike = "" if len(group) == 1 else ", or not the same way in all runs"
        told.append(f"{who} changed by less than {100 * MOVED:.0f} % of {'their' if moved else 'its'} strength{alike}")
    return f"{head}: {'; '.join(told)}."


def _change(name: str, lesson: Lesson, began: Constant) -> float:
    """Of its strength, as a share of what it was."""
    before = OPERATIONS[name].width(began)
    return (OPERATIONS[name].width(constants(lesson.policy)[name]) - before) / before


def _every(num_runs: int) -> str:
    return {1: "the one run", 2: "both runs"}.get(num_runs, f"all {num_runs} runs")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
