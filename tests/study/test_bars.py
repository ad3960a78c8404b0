"""Bars in tables are in scale, stay inside and hold no number that is none."""

import math
import re

import pytest

from kontrast.study import bars


def test_a_difference_bar_is_in_scale_with_its_limit_and_stays_inside():
    bar = bars.difference(0.05, 0.0, 0.1, limit=0.1)
    assert 'cx="73.00%"' in bar
    assert 'x1="50.00%" x2="96.00%"' in bar
    assert "nan" not in bars.difference(math.nan, math.nan, math.nan, limit=1.0)


def test_a_saving_bar_is_logarithmic_between_the_fewest_and_the_most_labels():
    bar = bars.saving(10, 100, 10, 1000, limits=(10, 1000))
    assert re.findall(r'cx="([\d.]+)%"', bar) == ["8.00", "50.00"]
    assert 'x1="8.00%" x2="92.00%"' in bar
    assert "arrow" not in bar


@pytest.mark.parametrize(
    ("needs", "low", "high", "arrows", "dots"),
    [(0, 0, 50, 1, 0), (math.inf, 500, math.inf, 1, 0), (100, 0, math.inf, 2, 1), (math.inf, math.inf, math.inf, 1, 0)],
)
def test_what_lies_beyond_the_compared_labels_has_an_arrow_and_no_dot(needs, low, high, arrows, dots):
    bar = bars.saving(10, needs, low, high, limits=(10, 1000))
    assert bar.count("arrow") == arrows
    assert bar.count("<circle cx") == dots
    assert all(0 <= float(place) <= 100 for place in re.findall(r'="([\d.]+)%"', bar))


def test_one_number_of_labels_and_no_number_still_draw():
    assert "nan" not in bars.saving(10, math.nan, math.nan, math.nan, limits=(10, 10))
