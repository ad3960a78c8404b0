"""DICOM files and volumes from the command line to a run and a page; what identifies a patient stays in the files."""

import csv
import gzip
import json
import logging
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import yaml

import kontrast.data as data
from kontrast.data.aliases import KEY
from kontrast.data.reading import Reading

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
TRAINING = ["--encoder", "test_efficientnet", "--stem", "standard", "--precision", "float32"]
FAST = [*TRAINING, "--epochs", "1", "--batch-size", "8"]
SECRETS = {
    "PatientName": "Zebedee^Quartermain",
    "PatientID": "MRN-777-4242",
    "PatientBirthDate": "19310718",
    "PatientAddress": "17 Foxglove Crescent",
    "StudyDate": "20190329",
    "SeriesDate": "20190330",
    "AcquisitionDate": "20190331",
    "AccessionNumber": "ACC99817",
    "InstitutionName": "Saint Wilfrid Infirmary",
    "ReferringPhysicianName": "Oglethorpe^Ursuline",
    "StudyID": "STUDYXQ81",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.11111",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.22222",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.33333",
    "PatientComments": "allergic to beeswax",
    "ImageComments": "seen by night porter",
    "OtherPatientIDs": "ALT-5511",
}


def write_dicom(path, pixels, *, patient=None, modality="CT", **tags):
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = pydicom.uid.CTImageStorage
    for name, value in {**SECRETS, **({"PatientID": patient} if patient else {}), **tags}.items():
        setattr(dataset, name, value)
    dataset.Modality = modality
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def slices(seed, *, kind, side=24):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 1200, (side, side))
    pixels[:, : side // 2] += 1800 * kind
    return pixels


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two classes of eight patients with two slices each, a localiser, a broken file and one without an image."""
    root = tmp_path_factory.mktemp("scans") / "set"
    for kind, name in enumerate(("ill", "well")):
        for number in range(16):
            patient = f"{SECRETS['PatientID']}-{kind}{number // 2}"
            write_dicom(root / name / f"{number:02d}.dcm", slices([kind, number], kind=kind), patient=patient)
    write_dicom(root / "ill" / "scout.dcm", slices(99, kind=0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    whole = (root / "ill" / "00.dcm").read_bytes()
    (root / "ill" / "broken.dcm").write_bytes(whole[: len(whole) - 300])
    return root


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))


def everything_below(*folders):
    """All bytes of all files, those inside archives too."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            content = path.read_bytes()
            yield path, path.name.encode() + content
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    yield path, b"".join(archive.read(name) for name in archive.namelist())
            if content[:2] == b"\x1f\x8b":
                yield path, gzip.decompress(content)


@pytest.fixture(scope="module")
def studied(scans, tmp_path_factory, one_thread):
    """Everything that can be made of them, with a cache of their own, and what was said on the way."""
    from kontrast.cli import main

    root = tmp_path_factory.mktemp("medical")
    said = root / "said.txt"
    handler = logging.FileHandler(said)
    logging.getLogger().addHandler(handler)
    before = os.environ.get("KONTRAST_CACHE")
    os.environ["KONTRAST_CACHE"] = str(root / "cache")
    words = [str(scans), "--max-unreadable", "0.5"]
    scoring = ["--seeds", "1", "--draws", "2", "--per-class", "2", "--finetune-steps", "2"]
    try:
        codes = [
            main(["pretrain", "simclr", *words, *FAST, "--out", str(root / "run")]),
            main(["study", *words, *FAST, *scoring, "--out", str(root / "study")]),
            main(["data", "check", *words, "--out", str(root / "check")]),
            main(["embed", str(root / "run"), *words, "--out", str(root / "e.csv")]),
        ]
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        os.environ.pop("KONTRAST_CACHE")
        if before is not None:
            os.environ["KONTRAST_CACHE"] = before
    assert codes == [0, 0, 0, 0], said.read_text()
    return root


def told_secrets(folder):
    """Each secret with the files below a folder that hold it."""
    secrets = [part for value in SECRETS.values() for part in value.split("^")]
    return {
        secret: {
            path.relative_to(folder).as_posix() for path, content in everything_below(folder) if holds(content, secret)
        }
        for secret in secrets
    }


def holds(content, secret):
    return secret.encode() in content or secret.encode("utf-16-le") in content


def test_nothing_that_identifies_a_patient_leaves_the_files(studied, scans):
    assert all(told_secrets(scans).values())
    assert not any(told_secrets(studied).values()), told_secrets(studied)


def test_patients_are_groups_that_the_split_does_not_cut(studied, scans, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(studied / "cache"))
    opened = data.open(scans, max_unreadable=0.5)
    assert len(opened) == 32
    assert len(set(opened.groups.tolist())) == 16
    train, test = data.hold_out(opened)
    assert not set(opened.groups[train]) & set(opened.groups[test])
    assert (scans / KEY).is_file()


def test_the_page_tells_what_was_left_out_and_what_the_files_are(studied):
    page = (studied / "study" / "report.html").read_text()
    assert "broken.dcm" in page
    assert "Left out by rule" in page
    assert "12 significant bits" in page
    assert "0.5 to 0.5 mm" in page


def test_localisers_are_left_out_by_rule_and_do_not_count_as_damage(scans, tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    opened = data.open(scans, max_unreadable=0.04)
    assert [name for name, _ in opened.left_out] == ["ill/scout.dcm"]
    assert [name for name, _ in opened.skipped] == ["ill/broken.dcm"]


def test_another_window_shows_other_values_and_other_data_are_read_as_the_run_was(
    scans, tmp_path, monkeypatch, kontrast
):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    words = [scans, "--max-unreadable", 0.5, "--window=-1024:1000", "--spacing", 1.0]
    assert kontrast("pretrain", "simclr", *words, *FAST, "--out", tmp_path / "run") == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["window"] == "-1024:1000"
    embed = ["embed", tmp_path / "run", scans, "--max-unreadable", 0.5]
    assert kontrast(*embed, "--out", tmp_path / "as_run.csv") == 0
    assert kontrast(*embed, "--window=-1024:1000", "--spacing", 1.0, "--out", tmp_path / "said.csv") == 0
    assert kontrast(*embed, "--window", "bone", "--out", tmp_path / "bone.csv") == 0
    assert kontrast(*embed, "--window", "auto", "--out", tmp_path / "auto.csv") == 0
    as_run, said, bone, auto = ((tmp_path / f"{name}.csv").read_text() for name in ("as_run", "said", "bone", "auto"))
    assert as_run == said
    assert len({as_run, bone, auto}) == 3
    fingerprint = json.loads((tmp_path / "run" / "run.json").read_text())["fingerprint"]
    check = ["data", "check", scans, "--max-unreadable", 0.5, "--run", tmp_path / "run", "--out", tmp_path / "check"]
    assert kontrast(*check) == 0
    assert json.loads((tmp_path / "check" / "check.json").read_text())["fingerprint"] == fingerprint
    assert kontrast("export", tmp_path / "run", "--out", tmp_path / "x.safetensors") == 0
    [card] = tmp_path.glob("x*.md")
    assert "Images were read with | window -1024:1000, spacing 1.0" in card.read_text()


def test_a_window_of_ct_is_not_put_on_radiographs(tmp_path, own_cache, refused):
    write_dicom(tmp_path / "set" / "a.dcm", slices(0, kind=0), modality="CR")
    words = ["pretrain", "simclr", tmp_path / "set", *FAST, "--out", tmp_path / "run"]
    assert "lung is a window of CT, which this file is not" in refused(*words, "--window", "lung")
    assert len(data.open(tmp_path / "set")) == 1


def test_volumes_named_as_masks_are_left_out_of_a_folder_and_not_of_a_table(tmp_path, own_cache, caplog):
    values = np.random.default_rng(0).integers(1, 900, (16, 16, 3)).astype(np.int16)
    for name in ("a.nii.gz", "a_seg.nii.gz", "b-mask.nii", "b_GT.nii.gz", "label.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / name)
    opened = data.open(tmp_path)
    assert {name.partition("#")[0] for name in opened.names} == {"a.nii.gz", "label.nii.gz"}
    assert "3 of 5 files are volumes named as masks" in caplog.text
    (tmp_path / "table.csv").write_text("path\na_seg.nii.gz\n")
    assert len(data.open(tmp_path / "table.csv")) == 3


def test_dicom_is_resampled_to_the_spacing_that_is_asked_for(scans, tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    opened = data.open(scans, max_unreadable=0.5, reading=Reading(spacing=1.0))
    assert opened.size == 12
    assert (opened.facts.spacing == 1.0).all()


def test_pictures_cannot_be_resampled_to_a_spacing(images, refused, tmp_path):
    words = ["pretrain", "simclr", images, "--spacing", 1.0, *FAST, "--out", tmp_path / "run"]
    assert "does not say how many millimetres" in refused(*words)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", "lungs"], "LOW:HIGH; got 'lungs'"),
        (["--window", "5:1"], "LOW:HIGH"),
        (["--spacing", 0], "length in millimetres; got 0"),
        (["--spacing", "nan"], "length in millimetres"),
    ],
)
def test_bad_ways_of_reading_are_refused_before_anything_is_read(images, refused, tmp_path, flags, message):
    assert message in refused("pretrain", "simclr", images, *flags, *FAST, "--out", tmp_path / "run")


def test_a_volume_becomes_a_run_slice_by_slice(tmp_path, kontrast, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    values = np.random.default_rng(0).integers(0, 900, (20, 24, 12)).astype(np.int16)
    values[..., :2] = 0
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1])), tmp_path / "brain.nii.gz")
    words = ["pretrain", "simclr", tmp_path / "brain.nii.gz", *FAST, "--policy", "mri", "--out", tmp_path / "run"]
    assert kontrast(*words) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images"] == 10
    out = tmp_path / "e.csv"
    assert kontrast("embed", tmp_path / "run", tmp_path / "brain.nii.gz", "--axis", "sagittal", "--out", out) == 0
    with out.open() as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert names == [f"brain.nii.gz#x{number}" for number in range(20)]


def test_aliases_stand_in_every_output_and_the_table_tells_them_apart(scans, tmp_path, monkeypatch, kontrast):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))
    words = [scans, "--max-unreadable", 0.5]
    assert kontrast("pretrain", "simclr", *words, *FAST, "--alias-paths", "--out", tmp_path / "run") == 0
    assert kontrast("embed", tmp_path / "run", *words, "--alias-paths", "--out", tmp_path / "e.csv") == 0
    assert kontrast("data", "aliases", *words, "--out", tmp_path / "aliases.csv") == 0
    with (tmp_path / "aliases.csv").open() as file:
        known = {row["alias"]: row for row in csv.DictReader(file)}
    with (tmp_path / "e.csv").open() as file:
        shown = [row["path"] for row in csv.DictReader(file)]
    assert {alias for alias, row in known.items() if row["path"] not in ("ill/broken.dcm", "ill/scout.dcm")} == set(
        shown
    )
    assert len(known) == len(shown) + 2
    assert known[shown[0]]["path"] == "ill/00.dcm"
    assert known[shown[0]]["group"] == known[shown[1]]["group"] != known[shown[2]]["group"]
    assert "00.dcm" not in (tmp_path / "e.csv").read_text()


def test_a_study_says_on_its_page_and_before_it_trains_that_test_images_are_copies(
    tmp_path, draw_folder, kontrast, caplog
):
    root = draw_folder(tmp_path / "set")
    rows = [("path", "label", "split")]
    for kind in ("dark", "light"):
        rows += [(f"{kind}/{number:02d}.png", kind, "test" if number < 8 else "train") for number in range(24)]
        (root / kind / "20.png").write_bytes((root / kind / "03.png").read_bytes())
    (root / "table.csv").write_text("\n".join(",".join(row) for row in rows))
    scoring = ["--seeds", "1", "--draws", "2", "--per-class", "2", "--finetune-steps", "2"]
    assert kontrast("study", root / "table.csv", *FAST, *scoring, "--out", tmp_path / "study") == 0
    sentence = "2 are exact copies of training images"
    assert sentence in caplog.text
    facts = json.loads((tmp_path / "study" / "study.json").read_text())["facts"]
    assert sentence in facts["Leaks"]
    assert sentence in (tmp_path / "study" / "report.html").read_text()


def group_sets(opened):
    return sorted(sorted(np.array(opened.names)[opened.groups == code].tolist()) for code in np.unique(opened.groups))


def test_folders_of_patients_are_no_classes(tmp_path, own_cache, caplog):
    for number, patient in enumerate(("DOE", "ROE", "POE")):
        for part in range(2):
            write_dicom(tmp_path / "pat" / patient / f"{part}.dcm", slices([number, part], kind=0), patient=patient)
    opened = data.open(tmp_path / "pat")
    assert opened.labels is None
    assert opened.classes == ()
    assert "one patient, subject or volume" in caplog.text
    for number, kind in enumerate(("ill", "well")):
        write_dicom(tmp_path / "pat" / kind / "x.dcm", slices([9, number], kind=0), patient=f"N{number}")
        write_dicom(tmp_path / "pat" / kind / "y.dcm", slices([8, number], kind=0), patient=f"M{number}")
    assert set(data.open(tmp_path / "pat").classes) >= {"ill", "well"}


def test_subjects_of_bids_are_groups_and_no_classes(tmp_path, own_cache):
    values = np.random.default_rng(0).integers(1, 900, (16, 16, 3)).astype(np.int16)
    for subject in ("sub-00", "sub-01"):
        for kind in ("T1w", "T2w"):
            path = tmp_path / "bids" / subject / "anat" / f"{subject}_{kind}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    opened = data.open(tmp_path / "bids")
    assert opened.labels is None
    assert [len(names) for names in group_sets(opened)] == [6, 6]


def test_groups_that_a_table_leaves_open_are_those_of_the_files(tmp_path, own_cache):
    for patient in ("A", "B"):
        for part in range(3):
            write_dicom(tmp_path / f"{patient}{part}.dcm", slices([part, ord(patient)], kind=0), patient=patient)
    rows = "\n".join(
        f"{patient}{part}.dcm,{'mine' if (patient, part) == ('A', 1) else ''}" for patient in "AB" for part in range(3)
    )
    (tmp_path / "table.csv").write_text(f"path,group\n{rows}\n")
    assert group_sets(data.open(tmp_path / "table.csv")) == [
        [f"{patient}{part}.dcm" for part in range(3)] for patient in "AB"
    ]


def test_a_file_without_a_patient_follows_its_study(tmp_path, own_cache):
    for number, patient in enumerate(("A", "B", "UNKNOWN")):
        study = {"StudyInstanceUID": f"1.2.{min(number, 1)}"}
        write_dicom(tmp_path / f"{number}.dcm", slices(number, kind=0), patient=patient, **study)
    assert group_sets(data.open(tmp_path)) == [["0.dcm"], ["1.dcm", "2.dcm"]]


def test_a_new_key_makes_new_aliases(tmp_path, own_cache):
    write_dicom(tmp_path / "0.dcm", slices(0, kind=0))
    write_dicom(tmp_path / "1.dcm", slices(1, kind=0), patient="ROE")
    first = data.open(tmp_path)
    assert data.open(tmp_path).group_names == first.group_names
    (tmp_path / KEY).unlink()
    second = data.open(tmp_path)
    assert not set(second.group_names) & set(first.group_names)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_level_of_a_file_reaches_the_batch(tmp_path, own_cache, bits):
    """From the file through the cache, at every depth; the readers' own tests hold them to the standard."""
    levels = np.arange(1 << min(bits, 12)).reshape(-1, 16) << (bits - min(bits, 12))
    stored = levels.astype(np.uint8 if bits == 8 else np.uint16)
    nibabel.save(nibabel.Nifti1Image(np.repeat(stored[..., None], 2, axis=2), np.eye(4)), tmp_path / "a.nii.gz")
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = pydicom.uid.MRImageStorage, "1.2.3", "A"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.PixelData = stored.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        "1.2.3",
    )
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    for name in ("a.nii.gz", "b.dcm"):
        opened = data.open(tmp_path / name, reading=Reading(window="full"), size=max(stored.shape))
        assert opened.pixels.dtype == np.uint16
        assert opened.facts.bits[0] == (8 if bits == 8 else 16 if name == "a.nii.gz" else bits)
        image = opened.batch(np.array([0])).image[0, 0].numpy()
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        shown = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        low, high = (0, (1 << bits) - 1) if name == "b.dcm" else (stored.min(), stored.max())
        expected = np.sort(np.rint((stored.astype(float) - low) / (high - low) * 65535).ravel())
        np.testing.assert_array_equal(np.sort(shown.ravel()), expected)


def test_pydicom_tells_no_tag_in_a_process_that_has_not_imported_it_yet(tmp_path):
    uid = "SECRET-OF-ZEBEDEE"
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        write_dicom(tmp_path / "set" / "a.dcm", slices(0, kind=0), StudyInstanceUID=uid)
    code = "import logging, sys; logging.basicConfig(level=logging.DEBUG); from kontrast import data; "
    code += "print(len(data.open(sys.argv[1])), 'pydicom' in sys.modules)"
    environment = {**os.environ, "KONTRAST_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, tmp_path / "set"], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["1", "True"], done.stderr
    assert uid not in done.stderr
