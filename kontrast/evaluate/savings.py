"""Labels saved: with how many labels a baseline scores as high as another arm does with fewer.

Between two numbers of labels the baseline's score is interpolated on the logarithm of the number; what it needs is
where that curve reaches the other arm's score. The interval comes from tests turned around, as Fieller did for a ratio
(*Some problems in interval estimation*, J. R. Stat. Soc. B 16, 1954): it is made of the numbers of labels at which the
paired difference of the two scores, a contrast of the arm and of both neighbours on the curve, has an interval that
holds 0. So it is open where the data cannot close it, and covers as often as the intervals of differences do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, isnan, log, nan

from kontrast.evaluate.intervals import Estimate, Replicates
from kontrast.evaluate.metrics import Array

STEPS = 25
"""Numbers of labels that are looked at between two that were tried."""


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """A number of labels with its 95 % interval; NaN where the images do not define the score."""

    value: float
    """0: the baseline scores as high with the fewest labels tried; infinity: it scores lower with the most."""
    low: float
    """0 where the fewest labels tried may do."""
    high: float
    """Infinity where the most labels tried may not do."""


def equivalent_labels(
    labels: Array,
    ours: Array,
    baseline: Sequence[Array],
    counts: Sequence[int],
    metric: str,
    *,
    groups: Array | None = None,
    num_resamples: int = 1000,
) -> Equivalent:
    """How many labels the baseline needs for our score.

    Args:
        labels: `(n,)` or `(n, classes)`, of the test images.
        ours: `(seeds, draws, n, classes)` probabilities of the arm at its number of labels.
        baseline: For each number of labels, the baseline's probabilities of the same layout.
        counts: The numbers of labels, ascending, one for each of `baseline`.
        metric: A name in `kontrast.evaluate.metrics.METRICS`.
        groups: `(n,)`, resampled as a whole.
        num_resamples: Of the images.

    Raises:
        ValueError: Fewer than two numbers of labels, they do not ascend, or layouts that do not fit.
    """
    if len(counts) < 2 or list(counts) != sorted(set(counts)) or len(counts) != len(baseline):
        raise ValueError(
            f"a curve takes two or more ascending numbers of labels, each with predictions; got {list(counts)} "
            f"for {len(baseline)} predictions"
        )
    replicates = Replicates(labels, [ours, *baseline], metric, groups=groups, num_resamples=num_resamples)
    gains = list(_gains(replicates, counts))
    if any(isnan(gain.value) for _, gain in gains):
        return Equivalent(value=nan, low=nan, high=nan)
    return Equivalent(
        value=_first(gains, "value", counts), low=_first(gains, "low", counts), high=_last(gains, "high", counts)
    )


def _gains(replicates: Replicates, counts: Sequence[int]) -> Iterator[tuple[float, Estimate]]:
    """What is gained over the baseline at each number of labels along its curve."""
    for i in range(len(counts) - 1):
        last = i == len(counts) - 2
        for step in range(STEPS + last):
            share = step / STEPS
            weights = [1.0, *(0.0 for _ in counts)]
            weights[1 + i], weights[2 + i] = share - 1, -share
            place = exp((1 - share) * log(counts[i]) + share * log(counts[i + 1]))
            yield place, replicates.contrast(weights)


def _first(gains: list[tuple[float, Estimate]], end: str, counts: Sequence[int]) -> float:
    """Where an end of the gain first falls to 0, or below; 0 where it is there from the start, infinity if never."""
    at = next((i for i, (_, gain) in enumerate(gains) if getattr(gain, end) <= 0), None)
    if at is None:
        return inf if end == "value" else float(counts[-1])
    return 0.0 if at == 0 else _between(gains[at - 1], gains[at], end)


def _last(gains: list[tuple[float, Estimate]], end: str, counts: Sequence[int]) -> float:
    """Where an end of the gain is above 0 for the last time; infinity where it still is with the most labels."""
    at = next((i for i, (_, gain) in reversed(list(enumerate(gains))) if getattr(gain, end) >= 0), None)
    if at is None:
        return float(counts[0])
    return inf if at == len(gains) - 1 else _between(gains[at], gains[at + 1], end)


def _between(before: tuple[float, Estimate], after: tuple[float, Estimate], end: str) -> float:
    """Where the end is 0 between two neighbours, on the log axis."""
    a, b = getattr(before[1], end), getattr(after[1], end)
    share = a / (a - b) if a != b else 0.0
    return exp((1 - share) * log(before[0]) + share * log(after[0]))
