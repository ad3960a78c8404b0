"""Numbers and names are written the same everywhere, and nothing that cannot be shown gets through."""

import math

import pytest

from kontrast.study import wording
from kontrast.study.contents import Saving


def saving(value, low=0.0, high=math.inf, num_labels=86):
    return Saving(
        arm="simclr", title="SimCLR", num_labels=num_labels, value=value, low=low, high=high, fewest=43, most=857
    )


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    assert [wording.points(value) for value in (0.0004, -0.0004, 0.0006)] == ["0.0", "0.0", "+0.1"]


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (340.4, 210.0, 800.0, ("340", "[210, 800]", "4.0 ×")),
        (340.4, 0.0, math.inf, ("340", "[43 or fewer, more than 857]", "4.0 ×")),
        (0.0, 0.0, 60.0, ("43 or fewer", "[43 or fewer, 60]", "at most 0.5 ×")),
        (0.0, 0.0, 0.0, ("43 or fewer", "[43 or fewer]", "at most 0.5 ×")),
        (math.inf, 500.0, math.inf, ("more than 857", "[500, more than 857]", "more than 10 ×")),
        (math.inf, math.inf, math.inf, ("more than 857", "[more than 857]", "more than 10 ×")),
        (60.0, 60.0, 60.0, ("60", "[60, 60]", "0.7 ×")),
        (math.nan, math.nan, math.nan, ("not defined", "[not defined]", "not defined")),
    ],
)
def test_labels_beyond_those_compared_are_written_as_bounds(value, low, high, expected):
    given = saving(value, low, high)
    assert (wording.needed(value, given), wording.needed_between(given), wording.times(given)) == expected


def test_counts_have_thousands_apart_and_their_thing_in_the_right_number():
    assert wording.count(1234567) == "1,234,567"
    assert [wording.count(n, "label") for n in (0, 1, 2000)] == ["0 labels", "1 label", "2,000 labels"]


def test_negative_ends_of_intervals_have_a_minus_and_zero_has_none():
    assert wording.bracket(-0.031, -0.0001) == "[−3.1, 0.0]"
    assert wording.bracket(math.nan, 1.0) == "(no interval)"
    assert wording.number(-0.256) == "−0.26"


def test_shortening_keeps_both_ends_and_the_length_asked_for():
    assert wording.shorten("short", letters=10) == "short"
    assert wording.shorten("a" * 4000 + ".png", letters=21) == "a" * 10 + "…" + "aaaaaa.png"
    assert wording.shorten("two\nlines", letters=10) == "two lines"


def test_control_characters_become_visible_and_letters_stay():
    assert wording.visible("a\x00b\x1b\tc\n") == "a␀b␛\tc\n"
    assert wording.visible("\u202egnp.exe\udcff") == "\ufffdgnp.exe\ufffd"
    assert wording.visible("صورة Ω 深") == "صورة Ω 深"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(22.494, "22.5"), (0.4, "0.400"), (4 / 3, "1.33"), (180, "180"), (0, "0.000"), (1e-7, "0.000"), (-0.25, "−0.250")],
)
def test_a_number_of_any_size_has_three_digits_as_far_as_thousandths(value, expected):
    assert wording.figure(value) == expected


def test_a_method_is_said_to_have_its_labels_or_none():
    assert [wording.with_labels(count) for count in (1, 1200, None)] == [
        "with 1 label", "with 1,200 labels", "without labels",
    ]  # fmt: skip
