"""Runs find the arms that they belong to."""

import pytest

from kontrast.study.arms import Arm, arms_of, runs_of
from kontrast.study.contents import Page, Row


def page(arms, curves):
    rows = [
        Row(
            arm=arm,
            title=title,
            kind=kind,
            fraction=None,
            num_labels=40,
            scores={},
            validation=None,
            num_seeds=1,
            num_draws=1,
        )
        for arm, title, kind in arms
    ]
    said = dict.fromkeys(("title", "recommendation", "settings", "command"), "")
    runs = {name: [] for name in curves}
    lists = dict.fromkeys(("verdict", "differences", "health", "notes", "skipped"), ())
    return Page(
        **said,
        **lists,
        metric="accuracy",
        facts={},
        versions={},
        rows=tuple(rows),
        curves=runs,
    )


ARMS = [("simclr", "SimCLR", "method"), ("moco_v2", "MoCo v2", "method"), ("supervised", "From scratch", "baseline")]


def test_a_run_belongs_to_the_arm_with_the_longest_key_in_its_name():
    runs = runs_of(page(ARMS, ["moco_v2-seed0", "runs/simclr/1", "simclr-init_2", "presimclr"]))
    assert {arm: len(group) for arm, group in runs.items()} == {"moco_v2": 1, "simclr": 2, "presimclr": 1}


def test_a_run_that_several_arms_read_is_drawn_once_in_the_look_of_the_first():
    read = [
        (f"{arm}-{key}", f"{title}, {reading}", kind)
        for arm, title, kind in ARMS[1::-1]
        for key, reading in (("linear", "linear probe"), ("knn", "k-NN"))
    ]
    given = page(read, [f"runs/simclr-seed-{i}" for i in range(3)])
    arms = arms_of(given)
    assert {name: len(group) for name, group in runs_of(given).items()} == {"simclr": 3}
    assert arms["simclr"] == Arm("SimCLR", arms["simclr-linear"].style)


@pytest.mark.parametrize("name", ["a (b", "[x", "\\", "", "."])
def test_a_key_with_signs_that_expressions_use_is_a_key_like_any_other(name):
    assert set(runs_of(page([(name, "Title", "method")], [f"{name} seed-0", "other"]))) <= {
        name,
        f"{name} seed-0",
        "other",
    }
