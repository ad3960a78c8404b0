"""The figures say their numbers, survive hostile titles and can be seen by everyone."""

import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from kontrast.study import figures
from kontrast.study.figures import PALETTE, Line


def line(title="SimCLR", counts=(40, 400), values=(0.8, 0.9), kind="method", margin=0.02):
    (style,) = figures.styles([kind])
    low, high = [v - margin for v in values], [v + margin for v in values]
    return Line(title=title, style=style, x=list(counts), y=list(values), low=low, high=high)


def draw_all(title):
    lines = [line(title), line("From scratch", values=(0.7, 0.91), kind="baseline")]
    single = [line(title, counts=(40,), values=(0.8,))]
    return [
        figures.label_efficiency(lines, label=title, width=760, height=400),
        figures.label_efficiency(lines, label=title, width=340, height=300),
        figures.forest(single, label=title, width=340),
        figures.curves(lines, label=title),
    ]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter("text")]


def contrast(a, b):
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1])
def test_every_colour_of_text_and_lines_contrasts_with_the_paper_by_4_5(mode):
    shown = {name: colours[mode] for name, colours in PALETTE.items() if name not in ("paper", "rule")}
    assert {name: c for name, c in shown.items() if contrast(c, PALETTE["paper"][mode]) < 4.5} == {}


def test_no_two_of_twelve_methods_and_six_baselines_look_the_same():
    for count, kind in ((12, "method"), (6, "baseline")):
        styles = figures.styles([kind] * count)
        assert len({(style.colour, style.marker, style.dashes) for style in styles}) == count


def test_the_first_methods_differ_in_colour_and_marker_and_line_each():
    styles = figures.styles(["method"] * 4 + ["baseline"] * 3)
    for looks in (
        [style.colour for style in styles],
        [style.marker for style in styles[:4]],
        [style.dashes for style in styles],
    ):
        assert len(set(looks)) == len(looks)


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


def test_a_difference_bar_is_in_scale_with_its_limit_and_stays_inside():
    bar = figures.difference(0.05, 0.0, 0.1, limit=0.1)
    assert 'cx="73.00%"' in bar
    assert 'x1="50.00%" x2="96.00%"' in bar
    assert "nan" not in figures.difference(math.nan, math.nan, math.nan, limit=1.0)


def test_the_label_of_a_figure_cannot_leave_its_attribute():
    class Names(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.extend(name for name, _ in attributes)

    seen = []
    Names().feed(figures.curves([line()], label='" onload="alert(1)'))
    assert "onload" not in seen


def test_shortening_keeps_both_ends_and_the_length_asked_for():
    assert figures.shorten("short", letters=10) == "short"
    assert figures.shorten("a" * 4000 + ".png", letters=21) == "a" * 10 + "…" + "aaaaaa.png"
    assert figures.shorten("two\nlines", letters=10) == "two lines"


def test_control_characters_become_visible_and_letters_stay():
    assert figures.visible("a\x00b\x1b\tc\n") == "a␀b␛\tc\n"
    assert figures.visible("\u202egnp.exe\udcff") == "\ufffdgnp.exe\ufffd"
    assert figures.visible("صورة Ω 深") == "صورة Ω 深"
