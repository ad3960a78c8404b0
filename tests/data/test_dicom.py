"""DICOM files become what they are meant to show, or an error that names nobody."""

import io
import logging
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs the extra medical")

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.sequence import Sequence

from kontrast.data.dicom import file as dicom_file
from kontrast.data.dicom import is_dicom, look, read
from kontrast.data.dicom.directory import list_dicomdir
from kontrast.data.dicom.file import DicomError, guarded, quiet_pydicom
from kontrast.data.reading import LeftOut, Reading
from kontrast.errors import InputError

CT, MR, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"
ALL = Reading(keep_captures=True)
SECRET = "Zzyzx^Quorumtail"
DAY = "19010203"
LARGE = 1_000_000
HERE = Path(pydicom.__file__).parent / "data" / "test_files"


def real_files():
    folders = [HERE]
    try:
        import data_store

        folders.append(Path(data_store.__file__).parent / "data")
    except ImportError:
        pass
    return sorted(file for folder in folders for file in folder.glob("*.dcm"))


def described(pixels: np.ndarray, *, stored: int | None = None, frames: int = 0, **tags) -> FileDataset:
    """An object with `(rows, columns)` or `(rows, columns, 3)` pixels, of each frame if there are several."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", MR)
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    shape = pixels.shape[1:] if frames else pixels.shape
    bits = pixels.dtype.itemsize * 8
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = MR, "1.2.3", "MR"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = SECRET, f"ID-{SECRET}", DAY
    dataset.PatientComments = f"lives at {SECRET}"
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 3 if len(shape) == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = frames
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored or bits, (stored or bits) - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    add_all(dataset, tags)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    return dataset


def content_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def made(tmp_path):
    """Writes an object or bytes and returns the path."""

    def made(content, name="image.dcm", **tags):
        content = described(content, **tags) if isinstance(content, np.ndarray) else content
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content_of(content))
        return path

    return made


def shown(path: Path, window: str = "auto") -> np.ndarray:
    """The only image of a file: `(height, width)` if grey."""
    (pixels,) = read(path, Reading(window=window))
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def lookup(values, *, first: int, bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "US", list(values))
    return Sequence([item])


def item(**tags) -> Dataset:
    return add_all(Dataset(), tags)


def add_all(dataset: Dataset, tags: dict) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some values are meant to be wrong
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
    return dataset


# What files are meant to show


def documented(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Grey values by the pipeline of pydicom's documentation, its range of output as 0 to 65535.

    What enhanced objects share between their frames is first put where that pipeline looks for it.
    """
    for shared in dataset.get("SharedFunctionalGroupsSequence", []):
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for group in shared.get(keyword, []):
                dataset.update(group)
    rescaled = apply_modality_lut(stored, dataset)
    values = apply_voi_lut(rescaled, dataset)
    if "VOILUTSequence" in dataset:
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowWidth" in dataset:
        half = 2 ** (dataset.BitsStored - 1)
        slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
        ends = np.array([-half, half - 1]) if dataset.PixelRepresentation else np.array([0, 2 * half - 1])
        low, high = ends * float(slope) + float(intercept)
    elif dataset.get("Modality") == "CT":
        low, high = -1024, 3071
    else:
        own = rescaled[rescaled > rescaled.min()]
        low, high = np.percentile(own, [0.5, 99.5])
    bright = np.clip((values.astype(float) - low) / (high - low), 0, 1) * 65535
    bright = 65535 - bright if dataset.PhotometricInterpretation == "MONOCHROME1" else bright
    return np.where(stored == dataset.get("PixelPaddingValue", np.nan), 0, bright)


def documented_colour(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        if not dataset.original_encoding[1]:  # pydicom takes the words of a palette for little-endian ones
            for colour in ("Red", "Green", "Blue"):
                element = dataset.get(f"{colour}PaletteColorLookupTableData")
                if element:
                    setattr(
                        dataset,
                        f"{colour}PaletteColorLookupTableData",
                        np.frombuffer(element, ">u2").astype("<u2").tobytes(),
                    )
        stored = apply_color_lut(stored, dataset)[..., :3]
    top = np.iinfo(stored.dtype).max
    return stored / (top / 255)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.stat().st_size > LARGE else [])
        for path in real_files()
    ],
)
def test_real_files_show_what_the_documentation_of_pydicom_says(path, recwarn, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        try:
            stored = pixel_array(dataset)
        except Exception as error:
            pytest.skip(f"pydicom cannot decode it here: {type(error).__name__}")
        try:
            contents = look(path, ALL)
        except LeftOut:
            assert dataset.Modality in ("SEG", "RTDOSE")
            return
        grey = dataset.PhotometricInterpretation.startswith("MONOCHROME")
        expected = documented(dataset, stored) if grey else documented_colour(dataset, stored)
    caplog.clear()
    images = list(read(path, ALL))
    assert not recwarn.list
    assert not caplog.records
    frames = int(dataset.get("NumberOfFrames") or 1)
    assert len(images) == len(contents.headers) == len(contents.parts) == frames
    for image, header, wanted in zip(images, contents.headers, expected if frames > 1 else [expected], strict=True):
        assert image.shape == (header.height, header.width, header.channels)
        assert image.dtype == (np.uint16 if grey else np.uint8)
        assert np.abs(image.squeeze().astype(float) - wanted.squeeze()).max() <= 0.51


def test_enough_real_files_were_compared():
    assert len(real_files()) >= 70


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 3.774114, "RescaleIntercept": -1024}])
def test_full_loses_no_level(made, bits, signed, rescale):
    ramp = np.arange(2**bits) - (2 ** (bits - 1) if signed else 0)
    kind = f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    path = made(ramp.astype(kind).reshape(16, -1), stored=bits, **rescale)
    pixels = shown(path, "full").ravel()
    assert len(np.unique(pixels)) == 2**bits
    np.testing.assert_array_equal(pixels, np.rint(np.arange(2**bits) * 65535 / (2**bits - 1)))
    assert look(path, Reading()).headers[0].bits == bits


def test_a_small_image_is_shown_as_a_large_one(made):
    values = np.array([[0, 7], [2000, 4095]], np.uint16)
    tags = {"stored": 12, "WindowCenter": 1000, "WindowWidth": 900}
    large = shown(made(np.tile(values, (64, 64)), **tags))
    np.testing.assert_array_equal(large, np.tile(shown(made(values, **tags)), (64, 64)))


def test_monochrome1_is_inverted_after_its_voi_lookup_table(made):
    stored = np.array([[0, 10, 11, 12, 200]], np.uint8)
    table = lookup([0, 1000, 4095], first=10, bits=12)
    pixels = shown(made(stored, PhotometricInterpretation="MONOCHROME1", VOILUTSequence=table))
    assert pixels.tolist() == [[65535, 65535, 65535 - round(1000 / 4095 * 65535), 0, 0]]


def test_a_voi_lookup_table_of_bytes_with_many_entries_is_not_wrapped(made):
    stored = np.array([[0, 255, 256, 1023]], np.uint16)
    table = lookup([index // 4 for index in range(1024)], first=0, bits=8)
    assert shown(made(stored, VOILUTSequence=table)).tolist() == [[0, 63 * 257, 64 * 257, 255 * 257]]


def test_a_voi_lookup_table_comes_before_a_window(made):
    table = lookup([5, 5], first=0, bits=8)
    tags = {"VOILUTSequence": table, "WindowCenter": 1, "WindowWidth": 2}
    assert shown(made(np.array([[0, 1]], np.uint8), **tags)).tolist() == [[5 * 257, 5 * 257]]


def test_a_modality_lookup_table_comes_before_the_window(made):
    stored = np.array([[-3, -2, 5]], np.int16)
    table = lookup([100, 300], first=-2, bits=16)
    tags = {"ModalityLUTSequence": table, "WindowCenter": 200.5, "WindowWidth": 201}
    assert shown(made(stored, **tags)).tolist() == [[0, 0, 65535]]
    assert shown(made(stored, **tags), "full").tolist() == [[100, 100, 300]]


def test_signed_ct_is_shown_in_hounsfield_units(made):
    stored = np.array([[-24, 976, 1016, 1056]], np.int16)  # -1024, -24, 16 and 56 HU
    path = made(stored, stored=12, Modality="CT", SOPClassUID=CT, RescaleSlope=1, RescaleIntercept=-1000)
    assert shown(path).tolist() == [[0, round(1000 / 4095 * 65535), round(1040 / 4095 * 65535), 17284]]
    assert shown(path, "stroke").tolist() == [[0, 0, 0, 65535]]
    assert shown(path, "brain").tolist() == [[0, 0, round(16 / 80 * 65535), round(56 / 80 * 65535)]]
    assert shown(path, "-1024:56").tolist() == [[0, round(1000 / 1080 * 65535), round(1040 / 1080 * 65535), 65535]]


def test_the_first_window_of_a_ct_beats_the_whole_range(made):
    stored = np.array([[900, 1024, 1064, 1200]], np.uint16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": [40.5, 500], "WindowWidth": [81, 9]}
    pixels = shown(made(stored, stored=12, Modality="CT", SOPClassUID=CT, **tags))
    assert pixels.tolist() == [[0, 0, 32768, 65535]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", [0, 0, 4369, 65535]),
        ("LINEAR_EXACT", [0, 2048, 6144, 63487]),
        ("SIGMOID", [round(65535 / (1 + np.exp(-4 * (value - 15.5) / 16))) for value in (0, 8, 9, 23)]),
    ],
)
def test_the_functions_of_a_window(made, function, expected):
    stored = np.array([[0, 8, 9, 23]], np.uint8)
    pixels = shown(
        made(stored, WindowCenter=15.5 + 0.5 * (function == "LINEAR"), WindowWidth=16, VOILUTFunction=function)
    )
    assert pixels.tolist() == [expected]


def test_a_window_of_one_value_is_a_step(made):
    pixels = shown(made(np.array([[9, 10, 11]], np.uint8), WindowCenter=10.5, WindowWidth=1))
    assert pixels.tolist() == [[0, 0, 65535]]


def test_without_a_window_the_percentiles_of_all_frames_are_shown(made):
    frames = np.stack([np.full((10, 10), 100), np.arange(100).reshape(10, 10) + 1000]).astype(np.uint16)
    frames[0, 0, 0] = 0
    low, high = np.percentile(frames[frames > 0], [0.5, 99.5])
    path = made(frames, frames=2, stored=12)
    contents = look(path, Reading())
    assert contents.parts == ("#0", "#1")
    assert len(contents.headers) == 2
    for pixels, stored in zip(read(path, Reading()), frames, strict=True):
        expected = np.rint(np.clip((stored - low) / (high - low), 0, 1) * 65535)
        np.testing.assert_array_equal(pixels[..., 0], expected)


def test_percentiles_are_taken_of_a_file_that_has_a_window(made):
    path = made(np.arange(100, dtype=np.uint8).reshape(10, 10), WindowCenter=1, WindowWidth=2)
    assert len(np.unique(shown(path))) == 2
    assert len(np.unique(shown(path, "percentile"))) > 90


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_part_of_the_percentiles(made, photometric):
    stored = np.arange(100, 200, dtype=np.int16).reshape(10, 10)
    padded = np.vstack([np.full((5, 10), -2000, np.int16), stored, np.full((5, 10), -1990, np.int16)])
    tags = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990, "PhotometricInterpretation": photometric}
    pixels = shown(made(padded, **tags))
    assert not pixels[:5].any()
    assert not pixels[15:].any()
    np.testing.assert_array_equal(pixels[5:15], shown(made(stored, PhotometricInterpretation=photometric)))


def test_negative_padding_may_be_written_without_its_sign(made):
    dataset = described(np.array([[-2000, 1, 2]], np.int16), WindowCenter=-1500, WindowWidth=3000)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert shown(made(dataset))[0, 0] == 0


@pytest.mark.parametrize("high", [11, 15])
def test_bits_that_do_not_count_are_cut_off(made, high):
    values = np.array([[0, 1, -1, -2048, 2047]])
    words = ((values & 0xFFF) << (high - 11)).astype(np.uint16)
    overlay = np.uint16(0x5000 if high == 11 else 0x0005)
    for noise in (np.uint16(0), overlay):
        dataset = described((words | noise).view(np.int16), stored=12)
        dataset.HighBit = high
        expected = np.rint((values + 2048) / 4095 * 65535)
        np.testing.assert_array_equal(shown(made(dataset), "full"), expected)


# Colour


def with_palette(stored: np.ndarray, tables: np.ndarray, *, first: int = 0, bits: int = 16, **tags) -> FileDataset:
    dataset = described(stored, PhotometricInterpretation="PALETTE COLOR", **tags)
    for colour, table in zip(("Red", "Green", "Blue"), tables.T, strict=True):
        descriptor = [len(table) % 65536, first, bits]
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", descriptor)
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())
    return dataset


def test_a_palette_of_16_bit_becomes_8_bit(made):
    tables = np.array([[0, 65535, 257], [128 * 257, 1, 65534]], "<u2")
    path = made(with_palette(np.array([[4, 5, 6, 255]], np.uint8), tables, first=5))
    assert shown(path).tolist() == [[[0, 255, 1], [0, 255, 1], [128, 0, 255], [128, 0, 255]]]
    header = look(path, Reading()).headers[0]
    assert (header.channels, header.bits) == (3, 8)


def test_a_palette_of_8_bit_may_be_written_as_words_or_bytes_and_be_long(made):
    tables = np.stack([np.arange(1000) // 4, np.zeros(1000), np.arange(1000) % 251], axis=-1).astype(np.uint8)
    stored = np.array([[0, 300, 999, 1000]], np.uint16)
    expected = [[tables[index].tolist() for index in (0, 300, 999, 999)]]
    assert shown(made(with_palette(stored, tables, bits=8))).tolist() == expected
    assert shown(made(with_palette(stored, tables.astype("<u2"), bits=8))).tolist() == expected
    assert shown(made(with_palette(stored, tables.astype("<u2"), bits=16))).tolist() == expected


def test_a_palette_in_segments(made):
    segments = [0, 2, 0, 257, 1, 3, 4 * 257, 0, 1, 65535, 2, 1, 8, 0]  # the third is a line, the last repeats it
    dataset = described(np.arange(9, dtype=np.uint8)[None], PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [9, 0, 16])
        data = struct.pack(f"<{len(segments)}H", *segments)
        dataset.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", data)
    expected = [0, 1, 2, 3, 4, 255, 171, 87, 4]
    np.testing.assert_allclose(shown(made(dataset))[0, :, 0], expected, atol=1)


def test_a_palette_in_segments_cannot_grow_without_bound(made):
    dataset = described(np.zeros((1, 2), np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
        data = struct.pack("<3H", 0, 1, 7) + struct.pack("<3H", 1, 65535, 9) * 100_000
        dataset.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", data)
    assert shown(made(dataset)).shape == (1, 2, 3)


def test_ybr_becomes_rgb_once(made):
    ybr = np.array([[[76, 85, 255], [149, 43, 21], [255, 128, 128]]], np.uint8)  # red, green, white
    pixels = shown(made(ybr, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(pixels, [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]], atol=1)


def test_frames_of_ybr_422(made):
    red, white = [76, 76, 85, 255], [255, 255, 128, 128]  # two pixels share their colour
    dataset = described(np.zeros((3, 1, 2, 3), np.uint8), frames=3, PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = bytes(red + white + red)
    frames = list(read(made(dataset), Reading()))
    for frame, colour in zip(frames, ([255, 0, 0], [255, 255, 255], [255, 0, 0]), strict=True):
        np.testing.assert_allclose(frame, [[colour, colour]], atol=1)


def test_planes_of_colour(made):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    dataset = described(pixels, PlanarConfiguration=1)
    dataset.PixelData = pixels.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(shown(made(dataset)), pixels)


def test_colour_of_16_bit_becomes_8_bit(made):
    pixels = np.array([[[0, 257, 65535], [128, 129, 32768]]], np.uint16)
    assert shown(made(pixels)).tolist() == [[[0, 1, 255], [0, 1, 128]]]


# What the header says


def test_enhanced_frames_have_tags_of_their_own(made):
    frames = np.array([[[0, 100]], [[0, 100]]], np.uint16)
    own = [
        item(
            PixelValueTransformationSequence=Sequence([item(RescaleSlope=slope, RescaleIntercept=0)]),
            FrameVOILUTSequence=Sequence([item(WindowCenter=center, WindowWidth=101)]),
            PixelMeasuresSequence=Sequence([item(PixelSpacing=[slope, 2])]),
        )
        for slope, center in ((1, 50.5), (2, 150.5))
    ]
    path = made(frames, frames=2, stored=12, PerFrameFunctionalGroupsSequence=Sequence(own))
    assert [pixels[..., 0].tolist() for pixels in read(path, Reading())] == [[[0, 65535]], [[0, 65535]]]
    full = [pixels[0, 1, 0] for pixels in read(path, Reading(window="0:200"))]
    assert full == [32768, 65535]
    assert [header.spacing for header in look(path, Reading()).headers] == [(1, 2), (2, 2)]


def test_shared_tags_hold_for_every_frame(made):
    shared = item(
        PixelValueTransformationSequence=Sequence([item(RescaleSlope=2, RescaleIntercept=10)]),
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.25])]),
    )
    path = made(np.array([[[0, 45]]] * 3, np.uint8), frames=3, SharedFunctionalGroupsSequence=Sequence([shared]))
    assert [pixels[0, 1, 0] for pixels in read(path, Reading(window="0:100"))] == [65535] * 3
    assert {header.spacing for header in look(path, Reading()).headers} == {(0.5, 0.25)}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.5, 0.7]}, (0.5, 0.7)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"PixelSpacing": [0.5, 0.7], "ImagerPixelSpacing": [0.1, 0.2]}, (0.5, 0.7)),
        ({"PixelSpacing": [0, 0.7], "ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"PixelSpacing": [-1, 1]}, None),
        ({"PixelSpacing": ""}, None),
    ],
)
def test_spacing(made, tags, expected):
    assert look(made(np.zeros((2, 3), np.uint8), **tags), Reading()).headers[0].spacing == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PatientID": " 17 "}, ("patient:17",)),
        ({"PatientID": "17", "IssuerOfPatientID": "North"}, ("patient:17",)),
        ({"PatientID": "17", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.4"}, ("patient:17", "study:1.2")),
        ({"PatientID": "Anon_12"}, ("patient:Anon_12",)),
        *(
            ({"PatientID": nobody, "StudyInstanceUID": "1.2"}, ("study:1.2",))
            for nobody in ("", "  ", "ANON", "Anonymous", "unknown", "N/A", "0000", "xxx", "de-identified", "--")
        ),
        ({"PatientID": "", "SeriesInstanceUID": "1.4"}, ("series:1.4",)),
        ({"PatientID": ""}, ()),
    ],
)
def test_groups(made, tags, expected):
    assert look(made(np.zeros((2, 3), np.uint8), **tags), Reading()).groups == expected


@pytest.mark.parametrize(
    ("tags", "rule"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "structured report"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.59"}, "structured report"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "presentation state"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "segmentation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, "dose"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "encapsulated document"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1"}, "waveform"),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "directory"),
        ({"Modality": "SEG"}, "segmentation"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "CT_SOM5 TOP", "TOPOGRAM"]}, "localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "saved screen"),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, "dose report"),
        ({"SOPClassUID": SC, "ConversionType": "SD"}, "scanned document"),
    ],
)
def test_what_a_rule_leaves_out(made, tags, rule):
    path = made(np.zeros((2, 3), np.uint8), **tags)
    for use in (look, lambda path, how: list(read(path, how))):
        with pytest.raises(LeftOut, match=rule):
            use(path, Reading())


def test_an_object_of_a_maker_without_an_image_is_left_out(made):
    dataset = described(np.zeros((2, 3), np.uint8), SOPClassUID="1.3.12.2.1107.5.9.1")
    del dataset.Rows
    with pytest.raises(LeftOut, match="of its maker"):
        look(made(dataset), Reading())


@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": SC, "ConversionType": "WSD", "ImageType": ["DERIVED", "SECONDARY"]},
        {"SOPClassUID": SC, "ConversionType": "DF"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX", "BurnedInAnnotation": "YES"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.1", "Modality": "RTIMAGE"},
        {"SOPClassUID": "1.3.12.2.1107.5.9.1"},
    ],
)
def test_what_no_rule_leaves_out(made, tags):
    path = made(np.zeros((2, 3), np.uint8), **tags)
    assert len(look(path, ALL).headers) == len(list(read(path, ALL))) == 1


@pytest.mark.parametrize("kind", ["", ".1", ".2", ".3", ".4"])
def test_secondary_captures_are_left_out_unless_they_are_asked_for(made, kind):
    path = made(np.zeros((2, 3), np.uint8), SOPClassUID=SC + kind)
    for use in (look, lambda path, how: list(read(path, how))):
        with pytest.raises(LeftOut, match="--keep-captures"):
            use(path, Reading())
    assert len(look(path, ALL).headers) == 1


@pytest.mark.parametrize(
    ("tags", "said"), [({"BurnedInAnnotation": "YES"}, True), ({"BurnedInAnnotation": "NO"}, False), ({}, False)]
)
def test_burnt_in_text_is_passed_on_where_the_file_says_so(made, tags, said):
    assert look(made(np.zeros((2, 3), np.uint8), **tags), Reading()).headers[0].has_burnt_in_text == said


def test_other_classes_whose_number_begins_with_a_seven_are_no_captures(made):
    path = made(np.zeros((2, 3), np.uint8), SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4", Modality="XC")
    assert len(look(path, Reading()).headers) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("a.dcm", "a.DICOM", "a.Ima", "IM0001", "1.2.840.113")),
        *((name, False) for name in ("a.png", "DICOMDIR", "dicomdir", "notes.txt")),
    ],
)
def test_is_dicom(made, name, expected):
    assert is_dicom(made(np.zeros((2, 2), np.uint8), name=name)) is expected


def test_a_file_without_a_suffix_is_known_by_its_content(tmp_path):
    (tmp_path / "README").write_bytes(b"DICM" * 10)
    (tmp_path / "folder").mkdir()
    assert not any(is_dicom(tmp_path / name) for name in ("README", "folder", "missing"))


# Directories of media


def directory(*names) -> Dataset:
    dataset = described(np.zeros((1, 1), np.uint8), SOPClassUID="1.2.840.10008.1.3.10")
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    records = [item(OffsetOfTheNextDirectoryRecord=0, DirectoryRecordType="PATIENT", PatientName=SECRET)]
    for name in names:
        records.append(item(OffsetOfTheNextDirectoryRecord=400, DirectoryRecordType="IMAGE", ReferencedFileID=name))
    dataset.DirectoryRecordSequence = Sequence(records)
    return dataset


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-implicit", "DICOMDIR-bigEnd", "DICOMDIR-reordered"])
def test_a_real_directory_lists_its_files(name):
    path = HERE / "dicomdirtests" / name
    if not path.is_file():
        pytest.skip("this pydicom does not have it")
    files = list_dicomdir(path)
    assert len(files) == len(set(files)) == 31
    assert list(files) == sorted(files)
    assert all(file.is_file() and is_dicom(file) for file in files)


def test_names_in_a_directory_match_whatever_their_case(tmp_path, made):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "im1").write_bytes(b"")
    path = made(directory(["DATA", "IM1"], ["DATA", "IM1"], ["DATA", "GONE"]), name="DICOMDIR")
    assert list_dicomdir(path) == (tmp_path / "data" / "GONE", tmp_path / "data" / "im1")


def test_names_that_lead_out_of_a_directory_are_passed_over(tmp_path, made):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "out").symlink_to(tmp_path)
    hostile = [["..", "image.dcm"], ["/etc/passwd"], ["out", "image.dcm"], ["a", ".", "b"], ["C:", "b"]]
    path = made(directory(*hostile, ["GOOD"]), name="media/DICOMDIR")
    assert list_dicomdir(path) == (tmp_path / "media" / "GOOD",)
    with pytest.raises(InputError, match="names none"):
        list_dicomdir(made(directory(*hostile), name="media/DICOMDIR"))


@pytest.mark.parametrize(
    "content", [b"", b"no directory at all" * 20, content_of(described(np.zeros((2, 2), np.uint8)))]
)
def test_what_is_no_directory(made, content):
    with pytest.raises(InputError, match="DICOMDIR") as caught:
        list_dicomdir(made(content, name="DICOMDIR"))
    assert SECRET not in str(caught.value)


# Damaged and hostile files


def deep(levels: int) -> bytes:
    """A sequence in a sequence in a sequence."""
    return b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * levels


def before(content: bytes, tag: bytes, inserted: bytes) -> bytes:
    place = content.index(tag)
    return content[:place] + inserted + content[place:]


def plain(**tags) -> bytes:
    return content_of(described(np.zeros((8, 8), np.uint16), **tags))


def deflated(content: bytes, more: bytes = b"") -> bytes:
    head = content.index(b"\x08\0\x16\0UI")
    meta = content[:head].replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return meta + packer.compress(content[head:] + more) + packer.flush()


def swapped(old: bytes, new: bytes, **tags) -> bytes:
    content = plain(**tags)
    assert content.count(old) == 1
    return content.replace(old, new)


SPOILT = {
    "empty": b"",
    "no DICOM": b"\xff\xd8" + SECRET.encode() * 30,
    "cut in the pixels": plain()[:-20],
    "cut in the tags": plain()[:400],
    "cut in the name": plain()[: plain().index(SECRET.encode()) + 3],
    "no rows": plain(Rows=0),
    "too many rows": plain(Rows=65535, Columns=65535),
    "absurd": plain(Rows=65535, Columns=65535, NumberOfFrames=99999),
    "more frames than there are": plain(NumberOfFrames=2),
    "millions of frames": plain(NumberOfFrames=400_000, Rows=1, Columns=1),
    "frames in words": swapped(b"IS\x04\x001234", b"IS\x04\0" + b"Zzyz", NumberOfFrames="1234"),
    "a window in words": swapped(b"DS\x08\x0012345678", b"DS\x08\0Zzyzx^Qu", WindowCenter="12345678", WindowWidth=1),
    "a slope of nothing": plain(RescaleSlope=0, RescaleIntercept=1),
    "a slope in words": swapped(
        b"DS\x08\x0012345678", b"DS\x08\0Zzyzx^Qu", RescaleSlope="12345678", RescaleIntercept=1
    ),
    "another kind of rows": swapped(b"\x28\0\x10\0US\2\0\x08\0", b"\x28\0\x10\0LO\2\0Zz"),
    "an unknown photometry": plain(PhotometricInterpretation="ZZYZX^QUORUM"),
    "bits of nothing": plain(BitsStored=0),
    "odd bits": plain(BitsAllocated=24),
    "huge length": swapped(b"PN\x10\0" + SECRET.encode(), b"UT\0\0\xff\xff\xff\x7f" + SECRET.encode()[4:]),
    "without pixels": plain()[: plain().index(b"\xe0\x7f\x10\0")],
    "unknown encoding": swapped(
        b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0", b"\x02\0\x10\0UI\x10\0" + SECRET.encode()
    ),
    "deep": before(plain(), b"\x28\0\x02\0US", deep(20_000)),
    "deflated and cut": deflated(plain())[:-30],
    "a lookup table without entries": plain(VOILUTSequence=lookup([1], first=0, bits=16)).replace(
        b"\x06\0\x01\0\0\0\x10\0", b"\x06\0\xff\xff\0\0\x10\0"
    ),
    "no palette": plain(PhotometricInterpretation="PALETTE COLOR"),
    "no colour": plain(PhotometricInterpretation="RGB"),
}


def traces(error: BaseException | None) -> str:
    """All that an error and those behind it say."""
    return "" if error is None else f"{error!r} {traces(error.__context__)} {traces(error.__cause__)}"


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_an_error_that_names_nobody(made, name, caplog, recwarn, capfd):
    path = made(SPOILT[name])
    caplog.set_level(logging.DEBUG)
    raised = []
    for use in (look, lambda path, how: list(read(path, how))):
        try:
            use(path, Reading())
        except Exception as error:
            raised.append(error)
    assert raised
    assert isinstance(raised[-1], DicomError)
    told = " ".join(map(traces, raised)) + caplog.text + "".join(map(str, recwarn.list)) + "".join(capfd.readouterr())
    assert not any(part in told for part in ("Zzyz", "Quorum", DAY))


def test_what_is_raised_inside_is_told_by_its_kind_alone():
    def fail():
        raise KeyError(SECRET)

    with pytest.raises(DicomError, match=r"it failed \(KeyError\)") as caught:
        guarded(fail, "it failed")
    assert SECRET not in traces(caught.value)


def test_a_deflated_file_is_read_but_no_bomb(made, monkeypatch):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    content = content_of(described(values))
    path = made(deflated(content))
    np.testing.assert_array_equal(shown(path, "full"), values)
    assert look(path, Reading()).headers[0].height == 8
    monkeypatch.setattr(dicom_file, "MAX_INFLATED", 1 << 20)
    bomb = made(deflated(content, b"\0" * (1 << 21)))
    for use in (look, lambda path, how: list(read(path, how))):
        with pytest.raises(DicomError, match="expands to more than"):
            use(bomb, Reading())


def encapsulated(frame: bytes, syntax: str, **tags) -> FileDataset:
    dataset = described(np.zeros((8, 8), np.uint8), **tags)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


@pytest.mark.parametrize(
    ("frame", "syntax"),
    [
        (b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x01" + bytes(20), uid.JPEGBaseline8Bit),
        (b"\xff\x4f\xff\x51\0\x29\0\0" + b"\x7f\xff\xff\xff" * 2 + bytes(24) + b"\0\1" + bytes(20), uid.JPEG2000),
        (b"Zzyzx^Quorumtail" * 4, uid.JPEG2000Lossless),
        (b"\xff\xd8\xff\xd9", uid.JPEGBaseline8Bit),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), uid.JPEG2000),
    ],
)
def test_a_compressed_frame_is_not_believed(made, frame, syntax):
    if not get_decoder(syntax).is_available:
        pytest.skip("needs a decoder")
    with pytest.raises(DicomError, match="a compressed frame"):
        shown(made(encapsulated(frame, syntax)))


def test_a_compressed_frame_of_few_bytes_may_not_be_huge(made):
    path = made(encapsulated(bytes(100), uid.RLELossless, Rows=20_000, Columns=20_000))
    with pytest.raises(DicomError, match="far more pixels"):
        shown(path)


def test_a_missing_decoder_is_named(made, monkeypatch):
    monkeypatch.setattr(get_decoder(uid.JPEGLSLossless), "_available", {})
    path = made(encapsulated(b"\xff\xd8\xff\xd9", uid.JPEGLSLossless))
    for use in (look, lambda path, how: list(read(path, how))):
        with pytest.raises(DicomError, match=r"JPEG-LS Lossless.*no decoder"):
            use(path, Reading())


def test_video_is_refused_by_name(made):
    with pytest.raises(DicomError, match=r"MPEG2.*cannot be read"):
        look(made(encapsulated(bytes(8), uid.MPEG2MPML)), Reading())


def test_a_missing_file_is_an_error_by_its_cause(tmp_path):
    with pytest.raises(DicomError, match="No such file"):
        look(tmp_path / "missing.dcm", Reading())
    with pytest.raises(DicomError, match="no ordinary file"):
        look(tmp_path, Reading())


def test_without_pydicom_the_way_out_is_named(made, monkeypatch):
    path = made(np.zeros((2, 2), np.uint8))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for use in (look, lambda path, how: list(read(path, how))):
        with pytest.raises(InputError, match=r"such files cannot be read: pip install 'kontrast\[medical\]'"):
            use(path, Reading())
    with pytest.raises(InputError, match="needs pydicom"):
        list_dicomdir(path)


def test_a_window_that_is_none_is_refused_at_once(made):
    path = made(np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="a window is"):
        look(path, Reading(window="kidney"))


def test_threads_read_quietly_and_leave_everything_as_it_was(made, recwarn):
    logger = logging.getLogger("pydicom")
    before_all = (logger.level, logger.propagate, list(logger.handlers), list(warnings.filters))
    expected = np.rint(np.arange(256).reshape(16, 16) * 257)
    paths = [made(np.arange(256, dtype=np.uint8).reshape(16, 16), name=f"{number}.dcm") for number in range(4)]
    failed = []

    def work(path):
        for _ in range(10):
            look(path, Reading())
            if not np.array_equal(shown(path, "full"), expected):
                failed.append(path)

    with quiet_pydicom():
        threads = [threading.Thread(target=work, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not logger.propagate
    assert not failed
    assert not recwarn.list
    assert (logger.level, logger.propagate, list(logger.handlers), list(warnings.filters)) == before_all


def test_others_are_warned_all_the_same(made):
    with quiet_pydicom(), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)
