"""16-bit colour and pictures of many channels keep every level, or are refused in a sentence."""

import builtins
import io

import numpy as np
import pytest
import torch
from PIL import Image

import kontrast.data as data
from kontrast.data.pictures import read_header, read_pixels
from kontrast.errors import InputError

imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")
RAMPS = np.stack([np.random.default_rng(seed).permutation(65536).reshape(256, 256) for seed in range(5)], axis=-1)
RAMPS = RAMPS.astype(np.uint16)


def png(pixels):
    return imagecodecs.png_encode(np.ascontiguousarray(pixels))


def tiff(pixels, **how):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **how)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("channels", "content"),
    [
        (3, png(RAMPS[..., :3])),
        (3, tiff(RAMPS[..., :3], photometric="rgb")),
        (3, tiff(RAMPS[..., :3], photometric="rgb", compression="zlib", predictor=True)),
        (3, tiff(RAMPS[..., :3].transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")),
        (3, tiff(RAMPS[..., :3], photometric="rgb", byteorder=">")),
        (5, tiff(RAMPS, photometric="minisblack", planarconfig="contig")),
        (2, tiff(RAMPS[..., :2], photometric="minisblack", planarconfig="contig")),
    ],
    ids=["png", "tiff", "deflated", "planes", "big-endian", "five channels", "two channels"],
)
def test_all_65536_levels_of_every_channel_survive(channels, content):
    header, pixels = read_header(content), read_pixels(content, side=256)
    assert (header.height, header.width, header.channels, header.bits) == (256, 256, channels, 16)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, RAMPS[..., :channels])


def test_8_bit_tiffs_of_many_channels_keep_them_all():
    pixels = (RAMPS >> 8).astype(np.uint8)
    content = tiff(pixels, photometric="minisblack", planarconfig="contig")
    assert read_header(content).bits == 8
    np.testing.assert_array_equal(read_pixels(content, side=256), pixels)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_transparency_of_16_bit_shows_the_background(kind, background):
    pixels = np.full((2, 2, 4), 40000, np.uint16)
    pixels[0, 0, 3], pixels[1, 1, 3] = 0, 65535
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    content = png(pixels) if kind == "png" else tiff(pixels, **alpha)
    assert read_header(content).channels == 3
    found = read_pixels(content, side=2, background=background)
    assert found[0, 0].tolist() == [background * 257] * 3
    assert found[1, 1].tolist() == [40000] * 3
    expected = 40000 * 40000 / 65535 + background * 257 * (1 - 40000 / 65535)
    assert found[0, 1, 0] == round(expected)


def composited(pixels, background, *, at, colours, associated):
    """What the channels but that of opacity show; of associated opacity the colours are multiplied already."""
    top = np.iinfo(pixels.dtype).max
    opacity = pixels[..., at : at + 1] / top
    shown = np.delete(pixels, at, axis=-1) * opacity
    if associated:
        shown[..., :colours] = pixels[..., :colours]
    return np.clip(shown + background / 255 * top * (1 - opacity), 0, top)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("further", [0, 2])
@pytest.mark.parametrize(("photometric", "colours"), [("rgb", 3), ("minisblack", 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_opacity_of_a_tiff_is_found_and_applied_once(
    dtype, photometric, colours, further, compression, planar, kind, background
):
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    pixels = rng.integers(0, top + 1, (9, 7, colours + 1 + further))
    if kind == "assocalpha":
        pixels[..., :colours] = pixels[..., :colours] * pixels[..., colours : colours + 1] // top
    pixels[0, 0, colours] = 0
    pixels[0, 0, :colours] *= kind == "unassalpha"
    pixels = pixels.astype(dtype)
    stored = pixels if planar == "contig" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    extra = [kind] + ["unspecified"] * further
    content = tiff(stored, photometric=photometric, planarconfig=planar, extrasamples=extra, compression=compression)
    found = read_pixels(content, side=9, background=background)
    assert read_header(content).channels == found.shape[2] == colours + further
    expected = composited(pixels, background, at=colours, colours=colours, associated=kind == "assocalpha")
    assert np.abs(found - expected).max() <= (2 if dtype == np.uint8 else 0.5)  # Pillow rounds on the way
    assert (found[0, 0] == background * (top // 255)).all()


def test_of_several_opacities_the_first_counts_and_the_others_are_no_channels():
    pixels = RAMPS[:8, :8]
    content = tiff(pixels, photometric="rgb", extrasamples=["unassalpha", "assocalpha"])
    assert read_header(content).channels == 3
    expected = composited(pixels[..., :4], 0, at=3, colours=3, associated=False)
    np.testing.assert_array_equal(read_pixels(content, side=8), np.rint(expected))


def test_opacity_behind_a_channel_of_its_own_is_found():
    pixels = RAMPS[:8, :8]
    content = tiff(pixels, photometric="rgb", extrasamples=["unspecified", "unassalpha"])
    assert read_header(content).channels == 4
    expected = composited(pixels, 0, at=4, colours=3, associated=False)
    np.testing.assert_array_equal(read_pixels(content, side=8), np.rint(expected))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_0_is_white_every_level_is_turned_round(dtype, compression, byteorder):
    levels = np.arange(np.iinfo(dtype).max + 1).reshape(16, -1).astype(dtype)
    content = tiff(levels, photometric="miniswhite", compression=compression, byteorder=byteorder)
    found = read_pixels(content, side=levels.shape[1])
    np.testing.assert_array_equal(found[..., 0], np.iinfo(dtype).max - levels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_0_is_white_all_channels_are_turned_round(dtype):
    pixels = (RAMPS >> 16 - 8 * np.dtype(dtype).itemsize).astype(dtype)
    content = tiff(pixels, photometric="miniswhite", planarconfig="contig")
    np.testing.assert_array_equal(read_pixels(content, side=256), np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_where_0_is_white_opacity_is_not_turned_round(kind, background):
    opacity = np.array([[0, 20000, 65535]], np.uint16)
    ink = np.array([[0, 5000, 10000]], np.uint16)  # of a share of ink, as much as the opacity lets
    content = tiff(
        np.stack([ink, opacity], axis=-1), photometric="miniswhite", planarconfig="contig", extrasamples=[kind]
    )
    bright = (opacity / 65535) * 65535 - ink if kind == "assocalpha" else (65535 - ink) * (opacity / 65535)
    expected = bright + background * 257 * (1 - opacity / 65535)
    np.testing.assert_array_equal(read_pixels(content, side=3, background=background)[..., 0], np.rint(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_deep_pictures_are_turned_as_pillow_turns_others(kind, orientation):
    pixels = RAMPS[:5, :8, :3]
    exif = Image.Exif()
    exif[274] = orientation
    shallow = (pixels >> 8).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(shallow).save(buffer, "png", exif=exif)
    if kind == "tiff":
        content = tiff(pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        small = png(pixels)
        chunk = buffer.getvalue().split(b"eXIf")[0][-4:], buffer.getvalue().split(b"eXIf")[1].split(b"IDAT")[0][:-4]
        content = small[:33] + chunk[0] + b"eXIf" + chunk[1] + small[33:]
    found, expected = read_pixels(content, side=8), read_pixels(buffer.getvalue(), side=8)
    np.testing.assert_array_equal(found >> 8, expected)
    for header in (read_header(content), read_header(buffer.getvalue())):
        assert (header.height, header.width) == found.shape[:2]


@pytest.mark.parametrize("photometric", ["separated", "palette"])
def test_samples_that_are_no_brightness_are_refused(photometric):
    if photometric == "separated":
        content = tiff(RAMPS[..., :4], photometric="separated")
    else:
        content = tiff(RAMPS[..., 0], photometric="palette", colormap=np.zeros((3, 65536), np.uint16))
    with pytest.raises(ValueError, match="neither grey, nor red, green and blue"):
        read_header(content)


def test_a_set_of_16_bit_colour_reaches_the_batch_as_it_is(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(np.roll(RAMPS[..., :3], number, axis=0)))
    opened = data.open(tmp_path)
    batch = opened.batch(np.array([0]))
    assert batch.image.dtype == torch.uint16
    np.testing.assert_array_equal(batch.image[0].numpy(), RAMPS[..., :3].transpose(2, 0, 1))
    assert opened.facts.bits.tolist() == [16, 16]
    assert opened.facts.shape.tolist() == [[256, 256]] * 2


@pytest.mark.parametrize("damage", [40, 1000, 100_000])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_truncated_file_is_skipped_with_a_reason(tmp_path, kind, damage):
    content = png(RAMPS[..., :3]) if kind == "png" else tiff(RAMPS[..., :3], photometric="rgb")
    (tmp_path / f"0.{kind}").write_bytes(content)
    (tmp_path / f"1.{kind}").write_bytes(content[:damage])
    opened = data.open(tmp_path, max_unreadable=0.5)
    assert opened.names == (f"0.{kind}",)
    assert [name for name, _ in opened.skipped] == [f"1.{kind}"]


def test_floating_point_channels_are_refused():
    with pytest.raises(ValueError, match="no known range"):
        read_header(tiff(np.zeros((4, 4, 5), np.float32), photometric="minisblack", planarconfig="contig"))


def test_channels_of_several_kinds_cannot_be_one_set(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(RAMPS, photometric="minisblack", planarconfig="contig"))
    (tmp_path / "b.png").write_bytes(png(RAMPS[..., :3]))
    with pytest.raises(InputError, match=r"a\.tif has 5 where 3 are wanted"):
        data.open(tmp_path)


@pytest.mark.parametrize(("package", "kind"), [("imagecodecs", "png"), ("tifffile", "tiff")])
def test_without_the_package_depth_is_not_dropped_silently(tmp_path, monkeypatch, package, kind):
    content = png(RAMPS[..., :3]) if kind == "png" else tiff(RAMPS[..., :3], photometric="rgb")
    (tmp_path / f"0.{kind}").write_bytes(content)
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=rf"need {package}.*kontrast\[medical\]"):
        data.open(tmp_path)
