"""Scores with intervals that cover: test images, label draws and pre-training seeds all vary.

The layout is that of a study: `(seeds, draws, n, classes)` probabilities for the same `n` test images, each seed with
draws of its own, and the same cells for every arm, so that arms are compared pair by pair. The score of a study is the
mean over its cells. Two sources move it, and their variances are added as for any two crossed random factors (Owen,
*The pigeonhole bootstrap*, 2007):

*Runs.* The sample variance of the seeds' means over the number of seeds S: the variance of a bootstrap of whole seeds,
the outermost level of the nest (Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8), times
S / (S - 1). With one seed, its draws take the place of seeds, and the interval is about this encoder.

*Images.* A Bayesian bootstrap (Rubin, 1981) of images, or of whole groups; its smooth weights never lose a rare class,
and one draw of weights serves every cell. Its variance holds what all runs find hard in an image, and also what only
some do, which the variance of runs holds already. This interaction is what resampled images do to the differences
between runs, and it is subtracted.

A few seeds know their variance badly, so the quantile is the mean of Student's quantiles of the two parts, weighted by
their variances (Cochran, *Approximation to the Behrens-Fisher distribution*, 1964). In normal simulations over many
shares of the parts it covers 94 to 98 %, and up to 99 % with two or three seeds that in truth hardly differ, where
Satterthwaite's degrees of freedom (1946) fall to 87 % for S = 2 and to 92 % for S = 3. The half-width is never less
than that of the images alone.

At the ends of the scale: a score's interval is inverted as Wilson's (1927; for effective sample sizes Korn & Graubard,
1998), with half an image more, so that 100 % of few images is not certainty; a difference has one image more that tells
the arms apart (Agresti & Min, 2005), so that two arms that agree everywhere are not certain to be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import stats
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from kontrast.evaluate.metrics import METRICS, Array, Floats, Metric

BLOCK = 2_000_000
"""Weights made at a time: 16 MB."""
RESAMPLES_OF_AUROC = 200
"""At most so many resamples of AUROC, which sorts: their variance is then known to 10 %, its root to 5 %."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score, or a difference of two, with its confidence interval; NaN where the data do not define the score."""

    value: float
    low: float
    high: float
    num_seeds: int
    num_draws: int
    """Label draws of each seed."""
    num_items: int
    """Test images."""
    num_groups: int | None = None
    """Groups among them, if whole groups were resampled."""
    of_runs: float
    """Share of the variance, 0..1, that more seeds, or with one seed more draws, would lessen; the rest is that of the
    test images. 0 where there is one run only."""
    scope: str
    """What the interval generalises over."""

    def __str__(self) -> str:
        """As `81.3 % [79.9, 82.6]`."""
        if np.isnan(self.value):
            return "undefined"
        return f"{100 * self.value:z.1f} % [{100 * self.low:z.1f}, {100 * self.high:z.1f}]"


def estimate(
    labels: Array,
    predictions: Array,
    metric: str,
    *,
    groups: Array | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Mean score of a study over its cells.

    Args:
        labels: `(n,)` integers, or `(n, classes)` in {0, 1, NaN}.
        predictions: `(seeds, draws, n, classes)` probabilities.
        metric: A name in `METRICS`.
        groups: `(n,)`, the patient or volume of each image, resampled as a whole.
        num_resamples: Of the images. AUROC makes at most 200.
        seed: Of the resamples; nothing else is random.
        confidence: In 0..1.

    Returns:
        Value and interval in 0..1. With one seed, the interval is for this encoder; with one draw as well, for this
        draw.

    Raises:
        ValueError: An unknown metric, shapes that do not fit, fewer than two images or groups, labels out of range.
    """
    layout = _Layout(labels, predictions, groups, METRICS[_known(metric)])
    scores = layout.scores(predictions)
    resampled = layout.resample([predictions], num_resamples, seed)[0]
    half, of_runs = _half_width(scores, resampled, layout, confidence, least=0.5)
    value = float(scores.mean())
    return layout.estimate(value, *_turned_around(value, half, layout.effective_items), of_runs)


def difference(
    labels: Array,
    ours: Array,
    theirs: Array,
    metric: str,
    *,
    groups: Array | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """How much higher `ours` scores than `theirs`, paired: the same images, seeds and draws in both arms.

    Args:
        labels: As in `estimate`, and so are the other arguments.
        ours: `(seeds, draws, n, classes)` probabilities.
        theirs: Of the same shape; an arm without a seed of its own, such as given weights, is repeated for each seed
            with that seed's draws.
        metric: A name in `METRICS`.
        groups: `(n,)`.
        num_resamples: Of the images.
        seed: Of the resamples.
        confidence: In 0..1.

    Returns:
        Value and interval in -1..1.

    Raises:
        ValueError: As `estimate`, and where the two shapes differ.
    """
    if np.shape(ours) != np.shape(theirs):
        raise ValueError(
            f"arms are compared cell by cell, so both have one shape; got {np.shape(ours)} and {np.shape(theirs)}"
        )
    both = Replicates(labels, [ours, theirs], metric, groups=groups, num_resamples=num_resamples, seed=seed)
    return both.contrast([1.0, -1.0], confidence=confidence)


class Replicates:
    """Scores of several arms on the same images, and on the same resamples of them, for any contrast between arms."""

    def __init__(
        self,
        labels: Array,
        arms: Sequence[Array],
        metric: str,
        *,
        groups: Array | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        """Score every cell of every arm, as it is and resampled.

        Args:
            labels: As in `estimate`.
            arms: Each `(seeds, draws, n, classes)`. They share the seeds; an arm with a single draw, as all labels
                have, meets every draw of the others.
            metric: A name in `METRICS`.
            groups: `(n,)`.
            num_resamples: Of the images.
            seed: Of the resamples.

        Raises:
            ValueError: As `estimate`, and where seeds, or draws other than one, differ in number.
        """
        layouts = [_Layout(labels, arm, groups, METRICS[_known(metric)]) for arm in arms]
        self.layout = max(layouts, key=lambda layout: layout.num_draws)
        shape = (self.layout.num_seeds, self.layout.num_draws)
        for layout in layouts:
            if layout.num_seeds != shape[0] or layout.num_draws not in (1, shape[1]):
                raise ValueError(
                    f"arms share seeds and draws, so all have {shape} of them, or one draw; "
                    f"got {(layout.num_seeds, layout.num_draws)}"
                )
        self.scores = [np.broadcast_to(self.layout.scores(arm), shape) for arm in arms]
        resampled = self.layout.resample(list(arms), num_resamples, seed)
        self.resampled = [np.broadcast_to(arm, (len(arm), *shape)) for arm in resampled]

    def contrast(self, weights: Sequence[float], *, confidence: float = 0.95) -> Estimate:
        """The weighted sum of the arms' scores, with its interval.

        Args:
            weights: One an arm; they sum to 0, so that what all arms share cancels.
            confidence: In 0..1.

        Returns:
            Value and interval in -1..1.
        """
        scores = sum(weight * arm for weight, arm in zip(weights, self.scores, strict=True))
        resampled = sum(weight * arm for weight, arm in zip(weights, self.resampled, strict=True))
        value = float(np.mean(scores))
        half, of_runs = _half_width(np.asarray(scores), np.asarray(resampled), self.layout, confidence, least=1.0)
        return self.layout.estimate(value, max(value - half, -1.0), min(value + half, 1.0), of_runs)


def verdict(difference: Estimate) -> Literal["helps", "hurts", "no difference shown"]:
    """Say what a difference shows: it helps or hurts only if its interval leaves out 0."""
    if difference.low > 0:
        return "helps"
    if difference.high < 0:
        return "hurts"
    return "no difference shown"


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"a metric is one of {', '.join(METRICS)}; got {metric!r}")
    return metric


class _Layout:
    """The test images and the layout that every arm shares."""

    def __init__(self, labels: Array, predictions: Array, groups: Array | None, metric: Metric) -> None:
        shape = np.shape(predictions)
        if len(shape) != 4 or min(shape) == 0:
            raise ValueError(f"predictions are (seeds, draws, n, classes), none of them 0; got {shape}")
        self.labels = np.asarray(labels)
        self.num_seeds, self.num_draws, self.num_items, _ = shape
        self.metric = metric
        self.group, self.num_units = _units(groups, self.num_items)
        self.grouped = groups is not None
        self.effective_items = _effective_items(self.labels) if metric.by_class else float(self.num_items)

    def scores(self, predictions: Array) -> Floats:
        """Scores of every cell, `(seeds, draws)`; the border where predictions are checked."""
        cells = [[self.metric(self.labels, cell) for cell in row] for row in np.asarray(predictions)]
        return np.array(cells, dtype=np.float64)

    def resample(self, arms: list[Array], num_resamples: int, seed: int) -> list[Floats]:
        """For each arm the scores of every cell on the same random weights of images, `(resamples, seeds, draws)`."""
        if num_resamples < 2:
            raise ValueError(f"a variance takes at least 2 resamples; got {num_resamples}")
        if self.metric is METRICS["auroc"]:
            num_resamples = min(num_resamples, RESAMPLES_OF_AUROC)
        generator = np.random.default_rng(seed)
        step = max(1, BLOCK // self.num_items)
        blocks = []
        for start in range(0, num_resamples, step):
            shape = (self.num_units, min(step, num_resamples - start))
            weights = generator.standard_exponential(shape)[self.group]
            with _threads().limit(limits=1, user_api="blas"):
                blocks.append([self._weighted(arm, weights) for arm in arms])
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    def _weighted(self, predictions: Array, weights: Floats) -> Floats:
        cells = np.asarray(predictions, dtype=np.float64).reshape(-1, *np.shape(predictions)[2:])
        scores = np.stack([self.metric.weighted(self.labels, cell, weights) for cell in cells], axis=1)
        return scores.reshape(-1, *np.shape(predictions)[:2])

    def estimate(self, value: float, low: float, high: float, of_runs: float) -> Estimate:
        """Those numbers with what they are about."""
        return Estimate(
            value=value,
            low=low,
            high=high,
            num_seeds=self.num_seeds,
            num_draws=self.num_draws,
            num_items=self.num_items,
            num_groups=self.num_units if self.grouped else None,
            of_runs=of_runs,
            scope=self._scope(),
        )

    def _scope(self) -> str:
        units = "test groups" if self.grouped else "test images"
        if self.num_seeds > 1:
            return f"over seeds, draws and {units}" if self.num_draws > 1 else f"over seeds and {units}"
        if self.num_draws > 1:
            return f"for this one encoder: over draws and {units}"
        return f"for this one encoder and draw: over {units}"


@cache
def _threads() -> ThreadpoolController:
    """Found once, which takes longer than a small study; these products are too small for several threads."""
    return ThreadpoolController()


def _units(groups: Array | None, num_items: int) -> tuple[Array, int]:
    """For each image the number of its group, or its own, and how many there are to resample."""
    groups = np.arange(num_items) if groups is None else np.asarray(groups)
    group = np.unique(groups, return_inverse=True)[1]
    if group.shape != (num_items,):
        raise ValueError(f"groups name one group for each of the {num_items} images; got {groups.shape}")
    num_units = int(group.max()) + 1
    if num_units < 2:
        raise ValueError(f"an interval takes at least 2 test images, or groups where images have them; got {num_units}")
    return group, num_units


def _effective_items(labels: Array) -> float:
    """Images that would fix a mean over classes as well if all classes had the same number of them.

    The harmonic mean of the classes' counts, times their number.

    For multi-label data, the columns' harmonic mean of the same number over the two outcomes.
    """
    if labels.ndim == 1:
        return _evenly(np.bincount(labels))
    sizes = [_evenly(np.array([(column == 0).sum(), (column == 1).sum()])) for column in labels.T]
    return float(len(sizes) / (1 / np.array(sizes)).sum())


def _evenly(counts: Array) -> float:
    """`k^2 / sum(1 / counts)` over the `k` counts that are not 0; 1 where there are none."""
    counts = counts[counts > 0]
    return float(len(counts) ** 2 / (1 / counts).sum()) if len(counts) else 1.0


def _half_width(
    scores: Floats, resampled: Floats, layout: _Layout, confidence: float, *, least: float
) -> tuple[float, float]:
    """Half the width of the interval on the scale of the score, before the ends of the scale are minded.

    Also the share of the variance that is that of the runs.

    Args:
        scores: `(seeds, draws)`.
        resampled: `(resamples, seeds, draws)`.
        layout: Of both.
        confidence: In 0..1.
        least: Variance of the images, in units of one image's, below which it cannot be known to lie.
    """
    small_sample = (layout.num_units + 1) / (layout.num_units - 1)
    images = float(resampled.mean((1, 2)).var()) * small_sample
    floor = least * layout.num_items / layout.num_units / layout.effective_items**2
    degrees = 1 / (1 / (layout.num_units - 1) + 1 / (len(resampled) - 1))
    quantile = _student(confidence, degrees)
    alone = quantile * np.sqrt(images + floor)
    runs, shared = _runs(scores, resampled)
    if len(runs) < 2:
        return float(alone), 0.0
    of_runs = float(runs.var(ddof=1)) / len(runs)
    interaction = shared * small_sample / len(runs)
    of_images = max(images - interaction, 0.0) + floor
    total = of_runs + of_images
    mixed = (of_runs * _student(confidence, len(runs) - 1) + of_images * quantile) / total
    return float(max(mixed * np.sqrt(total), alone)), of_runs / total


def _runs(scores: Floats, resampled: Floats) -> tuple[Floats, float]:
    """Mean scores of each run, and the variance that resampled images give to the differences between runs.

    A run is a seed with all its draws, or a draw where there is one seed.
    """
    if len(scores) > 1:
        runs, resampled_runs = scores.mean(1), resampled.mean(2)
    else:
        runs, resampled_runs = scores[0], resampled[:, 0]
    if len(runs) < 2:
        return runs, 0.0
    apart = resampled_runs - resampled_runs.mean(1, keepdims=True)
    return runs, float(apart.var(0).sum() / (len(runs) - 1))


def _student(confidence: float, degrees: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, degrees))


def _turned_around(value: float, half: float, effective_items: float) -> tuple[float, float]:
    """Interval in 0..1: the truths that `value` does not contradict if they spread as a share does (Wilson)."""
    middle = (effective_items * value + 0.5) / (effective_items + 1)
    ratio = half**2 / (middle * (1 - middle))
    centre = (value + ratio / 2) / (1 + ratio)
    reach = np.sqrt(ratio * value * (1 - value) + ratio**2 / 4) / (1 + ratio)
    return float(np.clip(centre - reach, 0.0, value)), float(np.clip(centre + reach, value, 1.0))
