"""Options of scoring, shared by `evaluate` and `study`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.evaluate.finetune import FineTuning
from kontrast.evaluate.protocols import Settings
from kontrast.study.plan import Budget
from kontrast.train.fit import Fit

MetricName = Literal["auto", "accuracy", "balanced_accuracy", "macro_f1", "auroc"]


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How many labels, how often, and how classifiers read them."""

    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Shares of the labelled training images; 0.01 of 4,000 is 40 labels."""
    per_class: tuple[int, ...] = ()
    """Instead: so many labels of each class."""
    draws: int = 5
    """Stratified draws of the labels, for each share and each pre-training seed."""
    metric: MetricName = "auto"
    """The main one; `auto` is accuracy, or AUROC for multi-label data. All are computed."""
    k: int = 20
    """Neighbours that vote in k-NN; all labelled images where they are fewer."""
    knn_temperature: float = 0.07
    """A neighbour's vote weighs exp(cosine / temperature)."""
    finetune_steps: int | None = None
    """Optimiser steps of training on labels; by default as many as pre-training took."""
    finetune_batch_size: int = 64
    """Labelled images a step of training on labels."""


def budgets(options: ScoringOptions) -> tuple[Budget, ...]:
    """The label budgets asked for, fewest first.

    Raises:
        InputError: None is asked for, or no draws.
    """
    if options.draws < 1:
        raise InputError(f"labels are drawn at least once; --draws is {options.draws}, so ask for 5 or more")
    for flag, value in (("--k", options.k), ("--knn-temperature", options.knn_temperature)):
        if value <= 0:
            raise InputError(f"k-NN needs neighbours and a temperature above 0; {flag} is {value}, so give more")
    for flag, count in (
        ("--finetune-steps", options.finetune_steps),
        ("--finetune-batch-size", options.finetune_batch_size),
    ):
        if count is not None and count < 1:
            raise InputError(f"training on labels needs steps and images; {flag} is {count}, so give 1 or more")
    if options.per_class:
        return tuple(Budget(per_class=count) for count in sorted(set(options.per_class)))
    if not options.fractions:
        raise InputError("a score needs labels to learn from; --fractions is empty, so give for example 0.01 0.1 1")
    return tuple(Budget(fraction=share) for share in sorted(set(options.fractions)))


def main_metric(options: ScoringOptions, data: ImageSet) -> str:
    """The metric that comes first."""
    if options.metric != "auto":
        return options.metric
    return "auroc" if data.is_multilabel else "accuracy"


def protocol_settings(options: ScoringOptions, training: Fit, *, steps: int) -> Settings:
    """Settings of the protocols; training on labels takes `steps` unless the options say otherwise."""
    training = replace(training, schedule_epochs=None)  # whose epochs are those of pre-training
    tuning = FineTuning(
        steps=options.finetune_steps or steps, batch_size=options.finetune_batch_size, training=training
    )
    return Settings(k=options.k, knn_temperature=options.knn_temperature, finetuning=tuning)
