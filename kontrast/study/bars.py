"""Small bars inside tables that say their numbers in figures too: SVG without text, hidden from screen readers."""

from __future__ import annotations

import math


def saving(has: float, needs: float, low: float, high: float, *, limits: tuple[float, float]) -> str:
    """Draw the labels of two arms on a log axis, for a table that says them in figures too.

    Args:
        has: What the arm has: a ring.
        needs: What the other arm needs for the same score: a dot; outside of `limits` an arrow.
        low: Lower end of its interval.
        high: Upper end of its interval.
        limits: The fewest and the most labels compared, which all bars of a table share.
    """
    places = [_place(labels, limits) for labels in (has, needs, low, high)]
    mark = f'<circle cx="{places[1]:.2f}%" cy="50%" r="4"/>' if limits[0] <= needs <= limits[1] else ""
    arrows = "".join(
        f'<svg x="{x}%" y="50%"><path class="arrow" d="{path}"/></svg>'
        for x, path, beyond in ((0, "M6-4 1 0 6 4", low <= 0), (100, "M-6-4-1 0-6 4", math.isinf(high)))
        if beyond
    )
    return (
        '<svg class="interval" aria-hidden="true">'
        f'<line class="zero" x1="{places[0]:.2f}%" x2="{places[1]:.2f}%" y1="50%" y2="50%"/>'
        f'<line x1="{places[2]:.2f}%" x2="{places[3]:.2f}%" y1="50%" y2="50%"/>'
        f'<circle class="has" cx="{places[0]:.2f}%" cy="50%" r="3.5"/>{mark}{arrows}</svg>'
    )


def difference(value: float, low: float, high: float, *, limit: float) -> str:
    """Draw a difference and its interval as a small bar around zero, for a table that says them in figures too.

    Args:
        value: The difference.
        low: Lower end of its interval.
        high: Upper end of its interval.
        limit: What both ends of the bar stand for, so that all bars of a table share a scale.
    """
    x, start, end = (f"{50 + 46 * _clip(end / limit):.2f}%" for end in (value, low, high))
    return (
        '<svg class="interval" aria-hidden="true"><line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>'
        f'<line x1="{start}" x2="{end}" y1="50%" y2="50%"/><circle cx="{x}" cy="50%" r="4"/></svg>'
    )


def _place(labels: float, limits: tuple[float, float]) -> float:
    """Where a number of labels stands, in per cent of the width; the ends of the bar lie beyond the limits."""
    if labels <= 0:
        return 0.0
    if not math.isfinite(labels):
        return 100.0
    span = math.log(limits[1] / limits[0]) or 1.0
    return min(100.0, max(0.0, 8 + 84 * math.log(labels / limits[0]) / span))


def _clip(value: float) -> float:
    return min(1.0, max(-1.0, value)) if math.isfinite(value) else 0.0
