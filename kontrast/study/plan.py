"""The plan of a study: which arms are compared, on which labels, and what each of them predicted.

Nothing here trains. A cell is one arm, pre-training seed, label budget and draw; its predictions are one file, so an
interrupted study goes on with the cells that are missing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kontrast.data import ImageSet, draw, validation_part
from kontrast.errors import InputError
from kontrast.files import whole_file

Positions = NDArray[np.int64]
Start = Literal["fresh", "given", "pre-trained"]

VALIDATION_SHARE = 0.2
_PROTOCOLS = {"linear": "linear probe", "knn": "k-NN", "focal": "focal-loss probe", "finetune": "fine-tuned"}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to a classifier: where the encoder comes from, and how labels are read from it."""

    key: str
    """Names files and runs."""
    title: str
    """What the page calls it."""
    kind: Literal["method", "baseline"]
    start: Start
    """Fresh weights, the weights of `--init`, or a pre-training run."""
    method: str | None = None
    """Key of the method of the pre-training."""
    protocol: str = "linear"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many labels: a share of the labelled training images, or so many a class."""

    fraction: float | None = None
    per_class: int | None = None

    @property
    def key(self) -> str:
        """Names files."""
        return f"fraction-{self.fraction:g}" if self.fraction is not None else f"per-class-{self.per_class}"


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The labels that a cell may see; the same for all arms."""

    budget: Budget
    number: int
    labelled: Positions
    """Positions within the training images."""
    seed: int
    """Of everything random that is done with these labels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What one cell predicted."""

    test: NDArray[np.float32]
    """`(n, classes)` probabilities of the test images."""
    validation: NDArray[np.float32]
    """`(m, classes)` of the validation part, from labels of the draw that lie outside it; empty without such a part."""
    labelled: Positions
    """The labels that were seen, as positions within the training images."""


def arms(methods: Mapping[str, str], protocols: tuple[str, ...], given: str | None = None) -> tuple[Arm, ...]:
    """The arms: every method under every protocol, then the baselines that a sceptic demands.

    Args:
        methods: By key, what the page calls each.
        protocols: Names.
        given: What the page calls the weights that encoders begin with; None where there are none.
    """
    found = []
    for method, name in methods.items():
        for protocol in protocols:
            title = f"{name}, {_PROTOCOLS[protocol]}"
            found.append(_arm(f"{method}-{protocol}", title, "method", "pre-trained", protocol, method))
    found.append(_arm("scratch", "From scratch", "baseline", "fresh", "finetune"))
    starts: list[tuple[Start, str]] = [("fresh", "Untrained encoder")]
    if given is not None:
        given = f"{given}, no contrastive stage"
        found.append(_arm("given-finetune", f"{given}, fine-tuned", "baseline", "given", "finetune"))
        starts.append(("given", given))
    for start, name in starts:
        for protocol in protocols:
            if protocol != "finetune":
                key = f"{'untrained' if start == 'fresh' else 'given'}-{protocol}"
                found.append(_arm(key, f"{name}, {_PROTOCOLS[protocol]}", "baseline", start, protocol))
    return tuple(found)


def validation_positions(train: ImageSet, labelled: Positions) -> Positions:
    """A fixed fifth of the labelled training images, by class and group, on which the recommendation is chosen.

    Empty where some class has too few labels for that.
    """
    assert train.labels is not None
    groups = None if train.groups is None else train.groups[labelled]
    parts = validation_part(train.labels[labelled], groups=groups, share=VALIDATION_SHARE)
    return labelled[:0] if parts is None else labelled[parts[1]]


def draws(
    train: ImageSet, labelled: Positions, validation: Positions, budget: Budget, *, seed: int, num_draws: int
) -> Iterator[Draw]:
    """The label draws of one pre-training seed; a single one where the budget takes all there are to draw from.

    Labels come from outside the validation part as long as that holds enough of them.
    """
    assert train.labels is not None
    outside = np.setdiff1d(labelled, validation)
    pool = outside if _suffices(train.labels[outside], len(labelled), budget) else labelled
    labels = train.labels[pool]
    fraction = budget.fraction
    if fraction is not None and len(pool) < len(labelled):
        fraction = min(fraction * len(labelled) / len(pool), 1.0)
    for number in range(num_draws):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        chosen = draw(labels, fraction=fraction, per_class=budget.per_class, seed=own)
        yield Draw(budget=budget, number=number, labelled=pool[chosen], seed=own)
        if len(chosen) == len(pool):
            return


def cell_path(out: Path, arm: Arm, seed: int, drawn: Draw) -> Path:
    """Where the predictions of a cell are."""
    return out / "cells" / arm.key / f"seed-{seed}" / f"{drawn.budget.key}-draw-{drawn.number}.npz"


def write_answers(path: Path, answers: Answers) -> None:
    """Write predictions whole or not at all."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, test=answers.test, validation=answers.validation, labelled=answers.labelled)


def read_answers(path: Path) -> Answers:
    """Read predictions; nothing is unpickled.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return Answers(test=found["test"], validation=found["validation"], labelled=found["labelled"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"predictions of a study are whole .npz files; {path} is damaged ({error}): delete it, and the study makes "
            "it again"
        ) from error


def _arm(
    key: str, title: str, kind: Literal["method", "baseline"], start: Start, protocol: str, method: str | None = None
) -> Arm:
    return Arm(key=key, title=title, kind=kind, start=start, protocol=protocol, method=method)


def _suffices(labels: NDArray[Any], num_labelled: int, budget: Budget) -> bool:
    if budget.fraction is not None:
        return len(labels) > 0 and round(budget.fraction * num_labelled) <= len(labels)
    counts = np.unique(labels, return_counts=True)[1] if labels.ndim == 1 else np.zeros(0)
    return len(counts) > 0 and counts.min() >= (budget.per_class or 0)
