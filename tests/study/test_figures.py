"""The figures say their numbers, survive hostile titles and can be seen by everyone."""

import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from kontrast.study import figures
from kontrast.study.contents import Reliability
from kontrast.study.figures import Line
from kontrast.study.looks import styles


def line(title="SimCLR", counts=(40, 400), values=(0.8, 0.9), kind="method", margin=0.02):
    (style,) = styles([kind])
    low, high = [v - margin for v in values], [v + margin for v in values]
    return Line(title=title, style=style, x=list(counts), y=list(values), low=low, high=high)


def bins(title="SimCLR", confidence=(0.55, 0.95), accuracy=(0.5, 0.9), count=(100, 300)):
    return Reliability(title=title, kind="method", confidence=confidence, accuracy=accuracy, count=count, ece=0.05)


def draw_all(title):
    lines = [line(title), line("From scratch", values=(0.7, 0.91), kind="baseline")]
    single = [line(title, counts=(40,), values=(0.8,))]
    return [
        figures.label_efficiency(lines, label=title, width=760, height=400),
        figures.label_efficiency(lines, label=title, width=340, height=300),
        figures.forest(single, label=title, width=340),
        figures.curves(lines, label=title),
        figures.reliability([bins(title)], styles(["method"]), label=title),
    ]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter("text")]


@pytest.mark.parametrize(
    "title",
    [
        "</text><script>alert(1)</script>",
        "quotes \" and ' and & and -->",
        "$\\frac{1}{0}$ $x^2$ costs 5$",
        "control \x00\x1b[31m\x07\r\n characters",
        "صورة الأشعة \u202ereversed",
        "深層学習",
        "w" * 4000,
        "surrogate \udcff",
        "#000101",
    ],
)
def test_a_hostile_title_stays_text_in_well_formed_drawings(title):
    for svg in draw_all(title):
        assert "script" not in [
            element.tag for element in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter()
        ]
        assert svg.encode()
        assert all(len(text) < 60 for text in texts(svg))


def test_a_title_with_dollars_is_shown_as_it_is_and_not_as_a_formula():
    svg = figures.forest([line("$x^2$", counts=(40,), values=(0.8,))], label="", width=760)
    assert "$x^2$" in texts(svg)


def test_the_same_numbers_give_the_same_bytes_whatever_the_user_has_configured():
    import matplotlib

    first = draw_all("SimCLR")
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.facecolor": "red"}):
        assert draw_all("SimCLR") == first


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_all("SimCLR")
    assert dict(matplotlib.rcParams) == before


def test_figures_name_their_colours_by_variables_and_reach_for_nothing_outside():
    for svg in draw_all("SimCLR"):
        assert "#0001" not in svg
        assert "http" not in svg
        assert "<style" not in svg
        assert "var(--method-1" in svg


def test_ids_are_unique_across_the_figures_of_a_page():
    ids = [name for svg in draw_all("SimCLR") for name in re.findall(r' id="([^"]*)"', svg)]
    assert len(set(ids)) == len(ids)
    for svg in draw_all("SimCLR"):
        assert set(re.findall(r"#([mp]\w{10})", svg)) <= set(re.findall(r' id="([^"]*)"', svg))


def test_the_wide_figure_names_each_line_beside_its_last_value_and_the_narrow_one_does_not():
    wide, narrow, *_ = draw_all("SimCLR")
    assert "90.0 %  SimCLR" in texts(wide)
    assert "91.0 %  From scratch" in texts(wide)
    assert not any("SimCLR" in text for text in texts(narrow))


def test_names_of_lines_that_end_together_do_not_overlap():
    lines = [line(f"arm {i}", values=(0.5, 0.9 + i * 1e-4)) for i in range(8)]
    svg = figures.label_efficiency(lines, label="", width=760, height=400)
    places = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>9\d\.\d %  arm', svg))
    assert len(places) == 8
    assert min(b - a for a, b in pairwise(places)) >= 16.9


def test_places_spread_as_little_as_needed():
    assert figures._spread([0.1, 0.5, 0.9], gap=0.2) == pytest.approx([0.1, 0.5, 0.9])
    assert figures._spread([0.5, 0.5], gap=0.2) == pytest.approx([0.4, 0.6])
    assert figures._spread([0.0, 0.5, 0.5, 0.5], gap=0.2) == pytest.approx([0.0, 0.3, 0.5, 0.7])
    assert figures._spread([1.0, 1.0, 1.0], gap=0.2) == pytest.approx([0.6, 0.8, 1.0])


def test_every_label_count_that_has_room_is_a_tick():
    svg = figures.label_efficiency(
        [line(counts=(40, 400, 4000), values=(0.1, 0.2, 0.3))], label="", width=760, height=400
    )
    assert {"40", "400", "4,000"} <= set(texts(svg))


@pytest.mark.parametrize("values", [(math.nan, math.nan), (0.5, math.nan), (math.inf, 0.5), (0.5, 0.5), (0.0, 1.0)])
def test_missing_equal_and_extreme_values_still_draw(values):
    lines = [line(values=values, margin=0.0)]
    figures.label_efficiency(lines, label="", width=760, height=400)
    figures.curves(lines, label="", percent=True)
    figures.curves(lines, label="")


def test_the_label_of_a_figure_cannot_leave_its_attribute():
    class Names(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.extend(name for name, _ in attributes)

    seen = []
    Names().feed(figures.curves([line()], label='" onload="alert(1)'))
    assert "onload" not in seen


def test_three_numbers_of_labels_are_drawn_with_bands_and_two_with_bars():
    few, many = (
        figures.label_efficiency(
            [line(counts=counts, values=(0.5, 0.6, 0.7)[: len(counts)])], label="", width=760, height=400
        )
        for counts in ((40, 400), (40, 400, 4000))
    )
    assert "fill-opacity: 0.09" in many
    assert "fill-opacity: 0.09" not in few


def test_panels_name_their_axis_and_write_large_numbers_short():
    svg = figures.curves([line(counts=(0, 2_500_000))], label="", axis="images through an encoder")
    assert "images through an encoder" in texts(svg)
    assert {"1 M", "2 M"} <= set(texts(svg))


def test_a_panel_holds_the_values_it_is_told_to_and_then_a_small_step_looks_small():
    def ticks(**how):
        level = Line(title="", style=line().style, x=[10, 20], y=[0.40, 0.41])
        return re.findall(r">(0[.]\d+|1)</text>", figures.curves([level], label="", **how))

    assert len(ticks()) > 1
    assert all(0.39 < float(tick) < 0.42 for tick in ticks())
    assert ticks(within=[1.0]) == ["0.4", "0.6", "0.8", "1"]


def test_a_reliability_diagram_survives_an_empty_arm_and_one_without_numbers():
    look = styles(["method", "baseline"])
    empty = bins(confidence=(), accuracy=(), count=())
    figures.reliability([empty, bins(confidence=(math.nan,), accuracy=(math.nan,), count=(0,))], look, label="")


def test_the_bins_of_a_reliability_diagram_stand_where_their_numbers_say():
    svg = figures.reliability([bins()], styles(["method"]), label="")
    points = [tuple(map(float, p)) for p in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="[^"]*method', svg)]
    width, height = 400 - 64 - 26, 430 - 140 - 12
    expected = [(64 + 0.55 * width, 12 + 0.5 * height), (64 + 0.95 * width, 12 + 0.1 * height)]
    assert points[:2] == [pytest.approx(point, abs=0.01) for point in expected]
