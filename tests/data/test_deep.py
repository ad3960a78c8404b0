"""16-bit colour and pictures of many channels keep every level, or are refused in a sentence."""

import builtins
import io

import numpy as np
import pytest
import torch

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
