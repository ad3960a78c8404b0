"""How a page writes numbers and names: the same everywhere, in tables, sentences and figures."""

from __future__ import annotations

import math
import re

from kontrast.study.contents import METRICS, Saving, Score


def metric(name: str) -> str:
    """Name a metric in the reader's words."""
    return METRICS.get(name, name.replace("_", " "))


def metric_inline(name: str) -> str:
    """Name a metric in the middle of a sentence: "accuracy", "macro-F1", "AUROC"."""
    text = metric(name)
    return text if text.isupper() else text[0].lower() + text[1:]


def count(number: float, thing: str = "") -> str:
    """Write a whole number, and what it counts: "1 label", "1,200 labels"."""
    text = f"{number:,.0f}"
    return f"{text} {thing}{'s' if number != 1 else ''}" if thing else text


def share(value: float, *, decimals: int = 1) -> str:
    """Write a share of 0..1 in per cent."""
    return f"{100 * value:.{decimals}f} %" if math.isfinite(value) else "not defined"


def points(value: float) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    text = f"{100 * value:+.1f}" if math.isfinite(value) else "not defined"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def gain(difference: Score) -> str:
    """Write a difference with its interval, as `+6.4 points [3.6, 9.2]`."""
    return f"{points(difference.value)} points {interval(difference)}"


def number(value: float, *, decimals: int = 2) -> str:
    """Write any number, with the sign that typography has."""
    return f"{value:.{decimals}f}".replace("-", "−") if math.isfinite(value) else "not defined"


def figure(value: float) -> str:
    """Write a number of any size with three digits, as far as thousandths."""
    text = f"{value:#.3g}".rstrip(".") if abs(value) >= 0.001 else f"{value:.3f}"
    return text.replace("-", "−")


def with_labels(num_labels: int | None) -> str:
    """Say how many labels a method had: "with 48 labels"; "without labels" for None."""
    return "without labels" if num_labels is None else f"with {count(num_labels, 'label')}"


def interval(score: Score) -> str:
    """Write the ends of an interval in per cent, without the unit."""
    return bracket(score.low, score.high)


def bracket(low: float, high: float) -> str:
    """Write two ends in per cent, without the unit."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "(no interval)"
    return f"[{100 * low:.1f}, {100 * high:.1f}]".replace("-0.0", "0.0").replace("-", "−")


def needed(labels: float, saving: Saving) -> str:
    """Write a number of labels that the arm from scratch needs; 0 and infinity lie beyond what was compared."""
    if math.isnan(labels):
        return "not defined"
    if math.isinf(labels):
        return f"more than {saving.most:,}"
    return f"{labels:,.0f}" if labels > 0 else f"{saving.fewest:,} or fewer"


def needed_between(saving: Saving) -> str:
    """Write the interval of that number, with open ends in words."""
    low, high = needed(saving.low, saving), needed(saving.high, saving)
    return f"[{low}]" if low == high and not 0 < saving.low < math.inf else f"[{low}, {high}]"


def times(saving: Saving) -> str:
    """Write how many times as many labels that is as the arm has."""
    if math.isnan(saving.value):
        return "not defined"
    if math.isinf(saving.value):
        return f"more than {_factor(saving.most / saving.num_labels)}"
    if saving.value <= 0:
        return f"at most {_factor(saving.fewest / saving.num_labels)}"
    return _factor(saving.value / saving.num_labels)


def shorten(text: str, *, letters: int) -> str:
    """Put a text on one line, without its middle where it is longer than `letters`."""
    text = " ".join(visible(text).split())
    if len(text) <= letters:
        return text
    head = math.ceil((letters - 1) / 2)
    return text[:head] + "…" + text[len(text) - (letters - 1 - head) :]


def visible(text: str) -> str:
    """Show control characters as symbols; replace what UTF-8 cannot encode or what would turn the reading direction."""
    text = text.replace("\r\n", "\n")
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda match: chr(0x2400 + ord(match[0])), text)
    return re.sub(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def _factor(ratio: float) -> str:
    return f"{ratio:,.0f} ×" if ratio >= 9.95 else f"{ratio:.1f} ×"
