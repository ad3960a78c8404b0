"""Every section shows the numbers that it was given."""

import math
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from kontrast.study import sections
from kontrast.study.contents import Confusion
from kontrast.study.page import render


def section(html, name):
    return re.search(rf'<section aria-labelledby="{name}".*?</section>', html, re.DOTALL)[0]


def words(html):
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def cells(html):
    rows = re.findall("<tr>.*?</tr>", html, re.DOTALL)
    return [[words(cell) for cell in re.findall("<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def alone(full, **changes):
    """A page without what takes time to draw."""
    return render(replace(full, rows=(), curves={}, **changes))


def test_the_counts_of_every_class_are_in_the_table(full_html):
    assert cells(section(full_html, "data"))[1:] == [
        ["healthy", "300", "70"],
        ["pneumonia", "301", "69"],
        ["effusion", "302", "68"],
    ]


def test_the_outlook_stands_below_the_recommendation(full_html):
    said = words(section(full_html, "recommendation"))
    assert said.index("Use SimCLR") < said.index("More draws would narrow the interval.")


def test_savings_are_said_in_a_sentence_and_in_the_table(full_html):
    found = section(full_html, "savings")
    said = "From scratch needs 340 labels [210, 800] to reach what SimCLR reaches with 86: 4.0 times as many."
    assert said in words(found)
    assert "was tried with 86 to 857 labels" in words(found)
    assert cells(found)[1:] == [
        ["SimCLR", "86", "340 [210, 800]", "", "4.0 ×"],
        ["SimCLR", "214", "more than 857 [500, more than 857]", "", "more than 4.0 ×"],
    ]


def test_differences_stand_below_what_was_subtracted(full_html):
    assert cells(section(full_html, "differences"))[1:] == [
        ["Minus From scratch"],
        ["SimCLR", "86", "+6.6 [5.6, 7.6]", "", "helps"],
        ["Minus MoCo v2"],
        ["SimCLR", "86", "+0.4 [−0.6, 1.4]", "", "no difference shown"],
    ]


def test_the_table_of_classes_holds_scores_differences_and_gaps(full_html):
    found = cells(section(full_html, "closeup"))
    assert found[:4] == [
        ["Class", "Test images", "SimCLR: recall", "Difference of recalls"],
        ["healthy", "70", "90.0 % [88.7, 91.3]", "–"],
        ["pneumonia", "9", "80.0 % [78.7, 81.3]", "−2.1 [−3.4, −0.8]"],
        ["effusion", "410", "70.0 % [68.7, 71.3]", "−2.1 [−3.4, −0.8]"],
    ]


def test_the_confusion_matrix_holds_per_cent_row_by_row_and_says_what_is_missing(full_html):
    found = cells(section(full_html, "closeup"))
    assert found[4:8] == [
        ["True class", "healthy", "pneumonia", "effusion"],
        ["healthy", "90", "10", "<1"],
        ["pneumonia", "25", "75", "0"],
        ["effusion", "–", "–", "–"],
    ]


def test_only_the_diagonal_of_the_confusion_matrix_is_right(full_html):
    marked = re.findall(r'<td class="(right|wrong)[^"]*" style="--share: ([\d.]+)">', full_html)
    assert [kind for kind, _ in marked] == ["right", "wrong", "wrong", "wrong", "right", "wrong"]
    assert [float(depth) ** 2 for _, depth in marked] == pytest.approx([0.9, 0.096, 0.004, 0.25, 0.75, 0.0], abs=2e-3)


def test_with_more_than_twelve_classes_the_fifteen_commonest_confusions_are_listed(full):
    shares = np.random.default_rng(0).dirichlet(np.ones(13), size=13)
    names = tuple(f"class {i}" for i in range(13))
    given = Confusion(classes=names, shares=tuple(map(tuple, shares.tolist())))
    html = alone(full, closeup=replace(full.closeup, confusion=given))
    expected = [(f"class {i}", f"class {j}", shares[i, j]) for i in range(13) for j in range(13) if i != j]
    expected.sort(key=lambda pair: -pair[2])
    found = cells(section(html, "closeup"))
    assert found[5:] == [[true, taken, f"{100 * share:.1f} %"] for true, taken, share in expected[:15]]
    assert 'class="confusion"' not in html


def test_confusions_of_a_class_without_test_images_are_not_listed(full):
    assert sections.confusions(full.closeup.confusion) == [
        ("pneumonia", "healthy", 0.25),
        ("healthy", "pneumonia", 0.096),
        ("healthy", "effusion", 0.004),
    ]


def test_multi_label_data_have_no_confusion_and_the_rest_all_the_same(full):
    html = alone(full, closeup=replace(full.closeup, confusion=None))
    assert "taken for which" not in html
    assert "Whether its probabilities" in html


def test_the_calibration_error_is_said_and_the_diagram_says_its_bins(full_html):
    found = section(full_html, "closeup")
    assert "3.1 % for SimCLR , and 12.5 % for From scratch ." in words(found)
    label = re.search('aria-label="(How often predictions[^"]*)"', found)[1]
    assert "SimCLR: expected calibration error 3.1 % over 1,120 predictions; at 55 % right in 50 % of 120" in label
    assert "at 95 % right in 91 % of 1,000." in label


def test_an_arm_has_the_same_look_in_the_reliability_diagram_as_in_the_curves(full_html):
    key = re.search(r'(<svg class="key".*?</svg>)<span class="name">From scratch', section(full_html, "closeup"))[1]
    assert key in section(full_html, "scores")


def test_every_hard_image_has_its_label_its_prediction_and_its_probability(full_html):
    cards = re.findall("<li>.*?</li>", section(full_html, "closeup").split("hardest")[1], re.DOTALL)
    shown = [card for card in cards if "taken for" in card]
    assert len(shown) == 3
    assert words(shown[1]) == "labelled effusion , taken for healthy its label got 2.1 %, wrong in 90 % hard.png"
    assert 'alt="patients/1/hard.png, labelled effusion"' in shown[1]


def test_neighbours_are_counted_and_those_of_another_label_are_marked(full_html):
    found = section(full_html, "queries")
    assert "2 of the 3 labelled neighbours shown have the label of their query" in words(found)
    assert [words(each) for each in re.findall("<li.*?</li>", found, re.DOTALL)] == [
        "healthy train, 0.98 0.png",
        "healthy train, 0.88 1.png",
        "≠ pneumonia train, 0.78 2.png",
    ]
    assert found.count('class="other"') == 1


def test_a_neighbour_without_a_label_neither_agrees_nor_differs(full):
    [first] = full.queries
    near = replace(first.neighbours[0], label=None)
    found = section(
        render(replace(full, queries=(replace(first, neighbours=(near, *first.neighbours[1:])),))), "queries"
    )
    assert "1 of the 2 labelled neighbours shown have the label of their query" in words(found)
    assert "1 neighbour has no label." in words(found)
    assert "≠ no label" not in words(found)
    assert "no label train" in words(found)


def test_the_gallery_names_the_original_and_each_view(full_html):
    found = section(full_html, "gallery")
    assert "Policy chest." in words(found)
    assert re.findall('alt="([^"]*)"', found) == [f"a/train.png, {what}" for what in ("original", "view 1", "view 2")]


def test_cost_and_the_way_to_repeat_are_told(full_html):
    said = words(section(full_html, "repeat"))
    for part in ("Encoder passes 1,234,567", "kontrast study --from study/", "kontrast study chests/", "torch 2.13.0"):
        assert part in said


def test_the_map_holds_one_mark_an_image_and_projection_and_one_sheet(full, full_html):
    found = section(full_html, "map")
    assert found.count("data-code=") == 2 * 9 + 3
    assert found.count("data:image/") == 1
    assert found.count("<title>healthy\ntest/0000.png</title>") == 2
    assert 'data-columns="4"' in found


def test_a_point_is_said_to_be_the_mean_of_as_many_models_as_it_is(full):
    assert sections.draws(full.rows) == "2 seeds × 5 draws of labels"
    mixed = (full.rows[0], replace(full.rows[0], num_seeds=1, num_draws=1))
    assert sections.draws(mixed) == "1 to 2 seeds × 1 to 5 draws of labels"


def test_scores_that_are_not_numbers_are_drawn_and_said_nowhere_as_numbers(full):
    broken = replace(
        full.closeup.reliability[0], confidence=(math.nan,), accuracy=(math.nan,), count=(0,), ece=math.nan
    )
    html = alone(full, closeup=replace(full.closeup, reliability=(broken,)))
    assert "nan" not in re.sub('base64,[^")]*|<style.*?</style>|<script.*?</script>', "", html, flags=re.DOTALL)
