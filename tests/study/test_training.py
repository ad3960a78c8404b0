"""Curves are drawn against what all runs have, and thinned without losing a peak."""

import math

import pytest

from kontrast.study import training
from kontrast.study.arms import Arm
from kontrast.study.figures import Line
from kontrast.study.looks import styles

(LOOK,) = styles(["method"])


def runs(num_epochs=4, seconds=60.0, **drop):
    rows = [
        {"epoch": float(i), "loss": 5.0 / i, "passes": 2000.0 * i, "seconds": seconds} for i in range(1, num_epochs + 1)
    ]
    return {"simclr": [[{key: value for key, value in row.items() if key not in drop} for row in rows]]}


def labels(found):
    return {axis.key: str(drawing).split('aria-label="')[1].split('"')[0] for axis, drawing in found.drawings}


def test_every_axis_says_where_its_line_starts_and_ends():
    (panel,) = training.panels({"simclr": Arm("SimCLR", LOOK)}, runs())
    assert labels(panel) == {
        "epoch": "Loss of SimCLR by epoch. SimCLR: from 5 at epoch 1 to 1.25 at epoch 4.",
        "passes": (
            "Loss of SimCLR by images through an encoder. SimCLR: from 5 after 2,000 images to 1.25 after 8,000 images."
        ),
        "time": "Loss of SimCLR by minutes. SimCLR: from 5 after 1 minute to 1.25 after 4 minutes.",
    }


@pytest.mark.parametrize(("seconds", "unit"), [(1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours")])
def test_time_has_a_unit_that_fits_it(seconds, unit):
    assert training.axes(runs(seconds=seconds))[-1].unit == unit


def test_an_axis_that_one_row_lacks_is_not_offered():
    partial = runs() | {"moco": [[{"epoch": 1.0, "loss": 1.0}]]}
    assert [axis.key for axis in training.axes(partial)] == ["epoch"]
    assert [axis.key for axis in training.axes(runs(passes=True))] == ["epoch", "time"]
    assert [axis.key for axis in training.axes({})] == ["epoch"]


def test_a_long_line_keeps_its_ends_its_peaks_and_its_gaps():
    y = [1.0 + math.sin(i) for i in range(5000)]
    y[1234], y[2345], y[3456] = 50.0, -50.0, math.nan
    thin = training._thin(Line(title="", style=LOOK, x=range(5000), y=y))
    assert len(thin.y) < 2 * training.MOST_POINTS
    assert {0, 1234, 2345, 3456, 4999} <= set(thin.x)
    assert list(thin.x) == sorted(thin.x)
    assert all(
        math.isnan(y[x]) if math.isnan(value) else y[x] == value for x, value in zip(thin.x, thin.y, strict=True)
    )


def test_a_short_line_is_left_as_it_is():
    line = Line(title="", style=LOOK, x=range(200), y=[0.0] * 200)
    assert training._thin(line) is line


def test_a_measure_that_no_run_has_gets_no_panel():
    assert [panel.title for panel in training.panels({"simclr": Arm("SimCLR", LOOK)}, runs())] == ["Loss of SimCLR"]
    assert training.panels({"simclr": Arm("SimCLR", LOOK)}, runs(loss=True)) == []


def test_what_a_method_says_of_its_policy_gets_no_panel_here():
    found = runs()
    for row in found["simclr"][0]:
        row |= {"policy.rotation": 15.0, "policy.contrast": 0.4, "contrast": 4.0, "labels": 1.8, "objective": -0.2}
    assert [panel.title for panel in training.panels({"simclr": Arm("SimCLR", LOOK)}, found)] == ["Loss of SimCLR"]
