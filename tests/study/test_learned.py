"""A learned policy is drawn run by run, beside where it began, and a small step looks small."""

import re
from dataclasses import replace

import pytest

from kontrast.study.learned import exhibits


@pytest.fixture
def exhibit(full):
    (found,) = exhibits(full.learned)
    return found


def label(drawing):
    return re.search('aria-label="(.*?)"', drawing)[1]


def test_every_operation_has_a_panel_that_tells_each_run_and_the_start_in_words(exhibit):
    assert [operation.name for operation, _ in exhibit.panels] == ["area", "rotation"]
    assert label(exhibit.panels[1][1]) == (
        "rotation by epoch. 86 labels, seed 0: from 15 at epoch 0 to 22.5 at epoch 2. "
        "86 labels, seed 1: from 15 at epoch 0 to 23.2 at epoch 2. "
        "214 labels, seed 0: from 15 at epoch 0 to 15 at epoch 2. "
        "The start: from 15 at epoch 0 to 15 at epoch 2."
    )


def test_runs_with_other_numbers_of_labels_look_different_and_the_key_says_so(exhibit):
    assert [title for title, _ in exhibit.keys] == ["With 86 labels (2 runs)", "With 214 labels (1 run)", "The start"]
    assert len({drawing for _, drawing in exhibit.keys}) == 3


def test_a_method_without_labels_has_one_line_in_the_key(full):
    (given,) = full.learned
    operation = given.operations[0]
    ends = (replace(operation.ends[0], num_labels=None),)
    courses = tuple(replace(course, num_labels=None) for course in operation.courses)
    (found,) = exhibits([replace(given, operations=(replace(operation, ends=ends, courses=courses),))])
    assert [title for title, _ in found.keys] == ["Without labels (2 runs)", "The start"]


def test_a_policy_that_never_moved_is_drawn_all_the_same(full):
    (given,) = full.learned
    still = tuple(
        replace(one, courses=tuple(replace(course, values=(one.start,) * 3) for course in one.courses))
        for one in given.operations
    )
    (found,) = exhibits([replace(given, operations=still)])
    assert "from 15 at epoch 0 to 15 at epoch 2" in label(found.panels[1][1])
    assert [operation.name for operation, _ in found.panels] == ["area", "rotation"]


def test_the_axis_of_a_panel_reaches_to_the_value_that_does_nothing(exhibit):
    (_, area), (_, rotation) = exhibit.panels
    assert ">1</text>" in area
    assert rotation.count(">0</text>") == 2, "one on each axis"
