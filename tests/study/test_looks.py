"""Everyone can read the colours, and no two arms or classes look the same."""

from itertools import combinations

import numpy as np
import pytest

from kontrast.study import looks
from kontrast.study.looks import CLASSES, PALETTE, SHADES, SHAPES

# Machado, Oliveira & Fernandes, IEEE TVCG 15(6), 2009, severity 1: what each kind of colour blindness sees.
SIGHT = {
    "all": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour):
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    dark, light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (a, b))
    return (light + 0.05) / (dark + 0.05)


def lab(light):
    """CIELAB of linear light, as CIE 15 defines it, under D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    ratio = to_xyz @ np.clip(light, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("mode", [0, 1])
def test_every_colour_of_text_and_lines_contrasts_with_the_paper_by_4_5(mode):
    shown = {name: colours[mode] for name, colours in PALETTE.items() if name not in ("paper", "rule")}
    assert {name: c for name, c in shown.items() if contrast(c, PALETTE["paper"][mode]) < 4.5} == {}


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("shade", list(SHADES))
def test_a_number_is_readable_on_every_shade_of_a_cell(mode, shade):
    paper, strongest = (
        np.array([int(c[mode][i : i + 2], 16) for i in (1, 3, 5)]) for c in (PALETTE["paper"], SHADES[shade])
    )
    for strength in np.linspace(0, 1, 21):
        ground = "#" + "".join(f"{round(v):02x}" for v in paper + strength * (strongest - paper))
        assert contrast(PALETTE["ink"][mode], ground) >= 4.5
        if strength <= 0.005**0.5:  # where a share is too small to be written, and the number is muted
            assert contrast(PALETTE["muted"][mode], ground) >= 4.5


@pytest.mark.parametrize("mode", [0, 1])
def test_every_colour_of_a_class_contrasts_with_the_paper_by_3(mode):
    assert min(contrast(colours[mode], PALETTE["paper"][mode]) for colours in CLASSES.values()) >= 3


@pytest.mark.parametrize("sight", list(SIGHT))
@pytest.mark.parametrize("mode", [0, 1])
def test_the_colours_of_two_classes_differ_to_every_eye(mode, sight):
    seen = [lab(SIGHT[sight] @ linear(colours[mode])) for colours in CLASSES.values()]
    # A difference of 2.3 is just noticeable side by side; 20 is plain in marks that lie apart.
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= 20 - 0.5


def test_no_two_of_56_classes_look_the_same_and_the_first_seven_share_neither_colour_nor_shape():
    symbols = [looks.symbol(code) for code in range(56)]
    assert len(set(symbols)) == 56
    assert len({symbol.colour for symbol in symbols[:7]}) == len({symbol.shape for symbol in symbols[:7]}) == 7
    assert {symbol.shape for symbol in symbols} == set(range(len(SHAPES)))


def test_an_image_of_no_single_class_looks_like_none():
    assert looks.symbol(-1) not in [looks.symbol(code) for code in range(56)]


def test_no_two_of_twelve_methods_and_six_baselines_look_the_same():
    for count, kind in ((12, "method"), (6, "baseline")):
        styles = looks.styles([kind] * count)
        assert len({(style.colour, style.marker, style.dashes) for style in styles}) == count


def test_the_first_methods_differ_in_colour_and_marker_and_line_each():
    styles = looks.styles(["method"] * 4 + ["baseline"] * 3)
    for found in (
        [style.colour for style in styles],
        [style.marker for style in styles[:4]],
        [style.dashes for style in styles],
    ):
        assert len(set(found)) == len(found)
