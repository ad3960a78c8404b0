import io
import logging
import os
import socket
import threading
import weakref

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from kontrast.data.decode import Layout, arrange, match_channels, plan, shrink
from kontrast.data.pictures import read_header, read_pixels, strict_pillow
from kontrast.data.reading import Reading
from kontrast.data.scan import in_threads, scan


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(content: bytes, layout: Layout) -> np.ndarray:
    return arrange(read_pixels(content, side=layout.store, background=layout.background), layout)


def read(content: bytes, *, size: int | None = None, channels: int | None = None) -> np.ndarray:
    return decode(content, plan({"image": read_header(content)}, size=size, channels=channels))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_all_65536_levels_survive(kind):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = read(encoded(Image.fromarray(ramp), kind))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels[0], ramp)


def test_a_big_endian_tiff_of_16_bit_is_read_by_value():
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    header = b"MM\x00\x2a\x00\x00\x00\x08"
    entries = [
        (256, 3, 8),
        (257, 3, 8),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 110),
        (277, 3, 1),
        (278, 3, 8),
    ]
    directory = len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        field = value.to_bytes(4, "big") if kind == 4 else value.to_bytes(2, "big") + b"\0\0"
        directory += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + field
    content = (header + directory + bytes(4)).ljust(110, b"\0") + ramp.astype(">u2").tobytes()
    np.testing.assert_array_equal(read(content)[0], ramp)


def test_shrinking_16_bit_keeps_levels_between_the_8_bit_ones():
    flat = np.full((64, 64), 12345, np.uint16)
    assert (shrink(flat[..., None], 16) == 12345).all()


def test_in_a_mixed_set_8_bit_becomes_16_bit_by_257():
    content = encoded(Image.fromarray(np.array([[0, 1], [128, 255]], np.uint8)))
    pixels = decode(content, Layout(store=2, channels=1, dtype="uint16"))
    assert pixels[0].tolist() == [[0, 257], [128 * 257, 65535]]


def test_values_beyond_16_bit_are_refused():
    content = encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "tiff")
    with pytest.raises(ValueError, match="70000 do not fit 16 bit"):
        read(content)


def test_floating_point_files_are_refused():
    with pytest.raises(ValueError, match="no known range"):
        read_header(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "tiff"))


def test_transparent_pixels_are_black():
    image = Image.fromarray(np.full((2, 2, 4), 200, np.uint8), "RGBA")
    image.putpixel((0, 0), (200, 200, 200, 0))
    pixels = read(encoded(image))
    assert pixels[:, 0, 0].tolist() == [0, 0, 0]
    assert pixels[:, 1, 1].tolist() == [round(200 * 200 / 255)] * 3


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, [255]),
        ("L", 90, [90]),
        ("LA", (90, 255), [90]),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
    ],
)
def test_every_mode_gives_the_colour_that_was_saved(mode, color, expected):
    assert read(encoded(Image.new(mode, (3, 3), color)))[:, 1, 1].tolist() == expected


def test_a_coloured_palette_gives_its_colours_and_a_grey_one_a_single_channel():
    colour = Image.new("RGB", (2, 2), (200, 10, 60)).quantize(4)
    grey = Image.new("RGB", (2, 2), (70, 70, 70)).quantize(4)
    assert read(encoded(colour))[:, 0, 0].tolist() == [200, 10, 60]
    assert read(encoded(grey))[:, 0, 0].tolist() == [70]


def test_cmyk_is_read_as_colour():
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg", quality=100)
    red, green, blue = read(content)[:, 4, 4].tolist()
    assert red > 200 > 60 > max(green, blue)


def test_the_orientation_of_a_camera_is_undone():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255
    upright = read(encoded(Image.fromarray(pixels), "png", exif=exif))
    assert (upright[0, :4, 2:6] == 255).all()
    assert not upright[0, 4:].any()


def test_luma_is_that_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(match_channels(pixels, 1)[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_the_luma_of_white_is_white_at_every_depth():
    for dtype, white in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        assert match_channels(np.full((1, 1, 3), white, dtype), 1).item() == pytest.approx(white, rel=1e-6)


def test_a_format_that_pillow_would_hand_to_another_program_is_not_an_image():
    with pytest.raises(UnidentifiedImageError):
        read_header(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_grey_becomes_three_equal_channels():
    pixels = read(encoded(Image.new("L", (3, 3), 7)), channels=3)
    assert pixels.shape == (3, 3, 3)
    assert (pixels == 7).all()


def test_a_large_image_is_scaled_with_its_aspect_and_centred_on_black():
    pixels = read(encoded(Image.new("L", (400, 200), 255)), size=28)
    assert pixels.shape == (1, 32, 32)
    assert (pixels[0, 8:24] == 255).all()
    assert not pixels[0, :8].any()
    assert not pixels[0, 24:].any()


def scene(height: int, width: int) -> np.ndarray:
    """Something like a photograph `(height, width, 3)`: noise with the spectrum of one, and sharp-edged discs."""
    rng = np.random.default_rng(0)
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    distance[0, 0] = 1
    noise = [np.fft.irfft2(np.exp(2j * np.pi * rng.random(distance.shape)) / distance, (height, width)) for _ in "rgb"]
    pixels = np.stack([plane / plane.std() * 40 + 120 for plane in noise], axis=-1)
    y, x = np.mgrid[:height, :width]
    for _ in range(10):
        top, left, radius = rng.random(3) * (height, width, height / 4)
        pixels[np.hypot(y - top, x - left) < radius] += rng.normal(0, 30, 3)
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "orientation", "size"),
    [("RGB", 1, 56), ("RGB", 6, 56), ("L", 3, 56), ("CMYK", 1, 56), ("RGB", 8, 112), ("RGB", 1, 300)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_jpeg_is_within_a_level_of_its_full_decode_scaled_by_pillow(mode, orientation, size, channels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(scene(403, 600)).convert(mode), "jpeg", quality=90, exif=exif)
    pixels = read(content, size=size, channels=channels)
    side = round(size * 8 / 7)
    with Image.open(io.BytesIO(content)) as image:
        full = ImageOps.exif_transpose(image.convert("RGB")).convert("L" if channels == 1 else "RGB")
    small = ImageOps.contain(full, (side, side), Image.Resampling.BICUBIC)
    expected = np.asarray(ImageOps.pad(small, (side, side))).reshape(side, side, channels).transpose(2, 0, 1)
    difference = np.abs(pixels.astype(float) - expected)
    assert difference.mean() < 1
    assert difference.max() < 15


def test_a_decompression_bomb_is_an_error(monkeypatch):
    content = encoded(Image.new("L", (20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with strict_pillow(), pytest.raises(Image.DecompressionBombWarning):
        read_header(content)


SUFFIXES = [".png", ".tif", ".jpg", ".dcm", ".nii", ".nii.gz", ".nrrd", ""]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("keep_empty", [False, True])
def test_pipes_devices_and_sockets_are_skipped_with_a_reason_and_never_opened(tmp_path, monkeypatch, keep_empty):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    pipes = [tmp_path / f"pipe{suffix}" for suffix in SUFFIXES]
    for path in pipes:
        os.mkfifo(path)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.png")
    others = [tmp_path / name for name in ("zero.png", "zero.nii", "folder.png", "socket.png")]
    sources = [(path,) for path in (*pipes, *others)] + [(pipes[0], pipes[1])]
    found = []
    worker = threading.Thread(target=lambda: found.extend(scan(sources, Reading(keep_empty=keep_empty))), daemon=True)
    worker.start()
    worker.join(30)
    is_stuck = worker.is_alive()
    for path in pipes:  # whoever waits for a writer has one
        if is_stuck:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    assert not is_stuck, "a scan waits for ever"
    assert [entry.reason for entry in found] == ["ValueError: it is no regular file"] * len(sources)
    assert not any(entry.is_left_out or entry.contents for entry in found)


def test_an_error_lets_go_of_what_was_read():
    class Held:
        pass

    freed = threading.Event()

    def work(_: int) -> None:
        held = Held()
        weakref.finalize(held, freed.set)
        raise MemoryError

    with pytest.raises(MemoryError) as caught:
        list(in_threads(work, [0], title="Working"))
    assert freed.is_set(), caught


def test_remarks_of_decoders_are_not_logged(caplog):
    with strict_pillow():
        logging.getLogger("tifffile").error("a word of the file")
    logging.getLogger("tifffile").error("as before")
    assert [record.message for record in caplog.records] == ["as before"]
