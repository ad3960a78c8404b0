"""Known data sets on made copies of their publishers' layouts."""

import csv
import gzip
import json
import math

import numpy as np
import pytest

import kontrast.data as data
from kontrast.data.adapters import ADAPTERS
from kontrast.data.adapters.chest import NIH_FINDINGS
from kontrast.errors import InputError

nibabel = pytest.importorskip("nibabel")


def write_csv(path, rows, *, compressed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if compressed else path.open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_volume(path, number, *, shape=(12, 10, 3)):
    values = np.random.default_rng(number).integers(1, 1000, shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8, 1])), path)
    return values


def labels(opened):
    return [opened.classes[code] if code >= 0 else "" for code in opened.labels]


def in_one_group(opened):
    """Names of the images of each group, in order."""
    return sorted(sorted(np.array(opened.names)[opened.groups == code].tolist()) for code in np.unique(opened.groups))


@pytest.mark.parametrize("table", ["HAM10000_metadata.csv", "HAM10000_metadata"])
def test_ham10000_groups_by_lesion_over_both_folders(tmp_path, save, table):
    rows = [
        {"lesion_id": "HAM_0000118", "image_id": "ISIC_0027419", "dx": "bkl", "dx_type": "histo", "age": "80.0"},
        {"lesion_id": "HAM_0000118", "image_id": "ISIC_0025030", "dx": "bkl", "dx_type": "histo", "age": "80.0"},
        {"lesion_id": "HAM_0002730", "image_id": "ISIC_0026769", "dx": "nv", "dx_type": "histo", "age": ""},
    ]
    write_csv(tmp_path / table, rows)
    save(tmp_path / "HAM10000_images_part_1" / "ISIC_0027419.jpg", 0)
    save(tmp_path / "HAM10000_images_part_2" / "ISIC_0025030.jpg", 1)
    save(tmp_path / "HAM10000_images_part_1" / "ISIC_0026769.jpg", 2)
    opened = data.open(f"ham10000:{tmp_path}")
    assert labels(opened) == ["nv", "bkl", "bkl"]
    assert in_one_group(opened) == [
        ["HAM10000_images_part_1/ISIC_0026769.jpg"],
        ["HAM10000_images_part_1/ISIC_0027419.jpg", "HAM10000_images_part_2/ISIC_0025030.jpg"],
    ]


@pytest.mark.parametrize("parts", [("training", "testing"), ("training",)])
def test_acdc_takes_the_frames_and_neither_masks_nor_films(tmp_path, parts):
    for part, patient, group in (("training", "patient001", "DCM"), ("testing", "patient101", "NOR")):
        if part not in parts:
            continue
        folder = tmp_path / part / patient
        for number, frame in enumerate(("frame01", "frame12")):
            write_volume(folder / f"{patient}_{frame}.nii.gz", number)
            write_volume(folder / f"{patient}_{frame}_gt.nii.gz", number)
        write_volume(folder / f"{patient}_4d.nii.gz", 9, shape=(12, 10, 3, 2))
        (folder / "Info.cfg").write_text(f"ED: 1\nES: 12\nGroup: {group}\nHeight: 184.0\n")
    opened = data.open(f"acdc:{tmp_path}")
    assert len(opened) == 2 * 3 * len(parts)
    assert not [name for name in opened.names if "_gt" in name or "_4d" in name]
    assert len(in_one_group(opened)) == len(parts)
    assert set(labels(opened)) == {"DCM", "NOR"} if len(parts) == 2 else {"DCM"}
    if len(parts) == 2:
        assert dict(zip(labels(opened), opened.parts, strict=True)) == {"DCM": "train", "NOR": "test"}
    else:
        assert opened.parts is None


def test_mmwhs_takes_images_and_not_labels(tmp_path):
    for kind in ("ct", "mr"):
        for what in ("image", "label"):
            write_volume(tmp_path / f"{kind}_train" / f"{kind}_train_1001_{what}.nii.gz", 1)
    opened = data.open(f"mmwhs:{tmp_path}")
    assert {name.partition("#")[0] for name in opened.names} == {
        "ct_train/ct_train_1001_image.nii.gz",
        "mr_train/mr_train_1001_image.nii.gz",
    }
    assert len(in_one_group(opened)) == 2
    assert opened.labels is None


@pytest.mark.parametrize(
    ("cases", "kinds", "patients"),
    [
        (["BraTS20_Training_001", "BraTS20_Training_002"], ["_t1", "_t1ce", "_t2", "_flair", "_seg"], 2),
        (["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], ["-t1n", "-t1c", "-t2w", "-t2f", "-seg"], 1),
    ],
)
def test_the_four_kinds_of_brats_are_channels_in_one_order(tmp_path, cases, kinds, patients):
    for number, case in enumerate(cases):
        for channel, kind in enumerate(kinds):
            write_volume(tmp_path / case / f"{case}{kind}.nii.gz", 10 * number + channel)
    opened = data.open(f"brats:{tmp_path}")
    assert opened.channels == 4
    assert len(opened) == 2 * 3
    assert len(in_one_group(opened)) == patients
    for channel, kind in enumerate(kinds[:4]):
        (tmp_path / "alone").mkdir(exist_ok=True)
        source = tmp_path / cases[0] / f"{cases[0]}{kind}.nii.gz"
        (tmp_path / "alone" / source.name).write_bytes(source.read_bytes())
        alone = data.open(tmp_path / "alone" / source.name)
        np.testing.assert_array_equal(
            opened.batch(np.arange(3)).image[:, channel], alone.batch(np.arange(3)).image[:, 0]
        )


def test_a_slice_that_is_empty_in_one_channel_alone_is_kept(tmp_path):
    for number, kind in enumerate(("t1", "t1ce", "t2", "flair")):
        values = np.random.default_rng(number).integers(1, 1000, (12, 10, 3)).astype(np.int16)
        values[..., 0] = 0 if kind == "t1" else values[..., 0]
        values[..., 2] = 0 if kind == "t2" else values[..., 2]
        (tmp_path / "B").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "B" / f"B_{kind}.nii.gz")
    opened = data.open(f"brats:{tmp_path}")
    assert [name.partition("#")[2] for name in opened.names] == ["z1", "z2"]
    image = opened.batch(np.arange(2)).image.int()
    assert image[0].amax((1, 2)).min() > 0
    assert image[1, 2].max() == 0 < image[1, 0].max()


def test_channels_of_another_size_make_the_case_unreadable(tmp_path):
    for number, kind in enumerate(("t1", "t1ce", "t2", "flair")):
        write_volume(tmp_path / "B" / f"B_{kind}.nii.gz", number)
        write_volume(tmp_path / "C" / f"C_{kind}.nii.gz", number, shape=(12, 10 + number, 3))
    opened = data.open(f"brats:{tmp_path}", max_unreadable=0.5)
    assert {name[0] for name in opened.names} == {"B"}
    assert "must have the same voxels" in opened.skipped[0][1]


def test_channels_that_lie_beside_each_other_make_the_case_unreadable(tmp_path):
    for case in ("B", "C"):
        for number, kind in enumerate(("t1", "t1ce", "t2", "flair")):
            write_volume(tmp_path / case / f"{case}_{kind}.nii.gz", number)
    moved = nibabel.load(tmp_path / "C" / "C_t2.nii.gz")
    affine = moved.affine.copy()
    affine[0, 3] += 4
    nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), affine), tmp_path / "C" / "C_t2.nii.gz")
    opened = data.open(f"brats:{tmp_path}", max_unreadable=0.5)
    assert [name for name, _ in opened.skipped] == ["C/C_t1.nii.gz"]


def test_a_brats_case_without_one_kind_is_counted_and_left_out(tmp_path, caplog):
    for kind in ("t1", "t1ce", "t2", "flair"):
        write_volume(tmp_path / "B" / f"B_{kind}.nii.gz", 1)
        if kind != "flair":
            write_volume(tmp_path / "C" / f"C_{kind}.nii.gz", 1)
    assert {name.partition("/")[0] for name in data.open(f"brats:{tmp_path}").names} == {"B"}
    assert "1 cases lack one of the four kinds" in caplog.text


def test_kermany_groups_by_patient_and_its_folders_are_no_split(tmp_path, save):
    names = [
        "train/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "train/PNEUMONIA/person1946_bacteria_4875.jpeg",
        "test/PNEUMONIA/person1_virus_6.jpeg",
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/IM-0115-0002.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
        "train/CNV/CNV-1016042-1.jpeg",
        "train/CNV/CNV-1016042-2.jpeg",
    ]
    for number, name in enumerate(names):
        save(tmp_path / name, number)
    opened = data.open(f"kermany:{tmp_path}")
    assert opened.parts is None
    assert set(labels(opened)) == {"CNV", "NORMAL", "PNEUMONIA"}
    assert sorted(map(len, in_one_group(opened))) == [1, 1, 2, 2, 2]


@pytest.mark.parametrize("lists", [True, False])
def test_nih_has_fourteen_findings_and_patients(tmp_path, save, lists):
    rows = [
        {"Image Index": "00000001_000.png", "Finding Labels": "Cardiomegaly|Emphysema", "Patient ID": "1", "": ""},
        {"Image Index": "00000001_001.png", "Finding Labels": "No Finding", "Patient ID": "1", "": ""},
        {"Image Index": "00000002_000.png", "Finding Labels": "Hernia", "Patient ID": "2", "": ""},
        {"Image Index": "00000003_000.png", "Finding Labels": "Mass", "Patient ID": "3", "": ""},
    ]
    write_csv(tmp_path / "Data_Entry_2017.csv", rows)
    save(tmp_path / "images_001" / "images" / "00000001_000.png", 0)
    save(tmp_path / "images_001" / "images" / "00000001_001.png", 1)
    save(tmp_path / "images_002" / "images" / "00000002_000.png", 2)
    if lists:
        (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
        (tmp_path / "test_list.txt").write_text("00000002_000.png\n")
    opened = data.open(f"nih-chest:{tmp_path}")
    assert opened.classes == NIH_FINDINGS
    positive = [{NIH_FINDINGS[code] for code in np.flatnonzero(row)} for row in opened.labels]
    assert positive == [{"Cardiomegaly", "Emphysema"}, set(), {"Hernia"}]
    assert opened.groups[0] == opened.groups[1] != opened.groups[2]
    assert (opened.parts.tolist() if lists else opened.parts) == (["train", "train", "test"] if lists else None)


@pytest.mark.parametrize("compressed", [True, False])
def test_mimic_cxr_knows_uncertain_from_absent(tmp_path, save, compressed):
    suffix = ".csv.gz" if compressed else ".csv"
    studies = [("10000032", "50414267", "a", "train"), ("10000032", "50414267", "b", "train")]
    studies += [("11000033", "50414268", "c", "validate"), ("12000034", "50414269", "d", "test")]
    keys = ("subject_id", "study_id", "dicom_id", "split")
    write_csv(
        tmp_path / f"mimic-cxr-2.0.0-split{suffix}",
        [dict(zip(keys, row, strict=True)) for row in studies],
        compressed=compressed,
    )
    findings = [
        {"subject_id": "10000032", "study_id": "50414267", "No Finding": "", "Edema": "1.0", "Fracture": "-1.0"},
        {"subject_id": "11000033", "study_id": "50414268", "No Finding": "1.0", "Edema": "0.0", "Fracture": ""},
    ]
    write_csv(tmp_path / f"mimic-cxr-2.0.0-chexpert{suffix}", findings, compressed=compressed)
    for number, (subject, study, image, _) in enumerate(studies):
        save(tmp_path / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{image}.jpg", number)
    opened = data.open(f"mimic-cxr:{tmp_path}")
    assert opened.classes == ("Edema", "Fracture", "No Finding")
    known = [[None if math.isnan(value) else value for value in row] for row in opened.labels]
    assert known == [[1, None, None], [1, None, None], [0, None, 1], [None, None, None]]
    assert opened.parts.tolist() == ["train", "train", "validation", "test"]
    assert opened.groups[0] == opened.groups[1]
    assert len(set(opened.groups.tolist())) == 3


def annotation(*studies):
    parts = {"train": [], "val": [], "test": []}
    for part, row in studies:
        parts[part].append({"report": "The heart is normal.", "split": part, **row})
    return json.dumps(parts)


def test_iu_xray_keeps_both_views_of_a_study_together(tmp_path, save):
    ids = [("train", "CXR2384_IM-0942"), ("val", "CXR1_IM-0001"), ("test", "CXR2_IM-0002")]
    rows = [(part, {"id": name, "image_path": [f"{name}/0.png", f"{name}/1.png"]}) for part, name in ids]
    (tmp_path / "annotation.json").write_text(annotation(*rows))
    for number, (_, name) in enumerate(ids):
        save(tmp_path / "images" / name / "0.png", 2 * number)
        save(tmp_path / "images" / name / "1.png", 2 * number + 1)
    opened = data.open(f"iu-xray:{tmp_path}")
    assert [len(names) for names in in_one_group(opened)] == [2, 2, 2]
    assert sorted(opened.parts) == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2
    assert opened.labels is None


def test_mimic_cxr_in_r2gens_layout_groups_by_patient(tmp_path, save):
    paths = ["p10/p10000032/s1/a.jpg", "p10/p10000032/s2/b.jpg", "p11/p11000033/s3/c.jpg"]
    rows = [
        ("train", {"id": "a", "image_path": [paths[0]]}),
        ("train", {"id": "b", "image_path": [paths[1]], "subject_id": "p10000032"}),
        ("test", {"id": "c", "image_path": [paths[2]]}),
    ]
    (tmp_path / "annotation.json").write_text(annotation(*rows))
    for number, path in enumerate(paths):
        save(tmp_path / "images" / path, number)
    opened = data.open(f"mimic-cxr:{tmp_path}")
    assert [len(names) for names in in_one_group(opened)] == [2, 1]


@pytest.mark.parametrize("text", ["[]", "{}", '{"train": [{}], "val": [], "test": []}', "not json", '{"train": 3}'])
def test_an_annotation_of_another_shape_is_refused(tmp_path, text):
    (tmp_path / "annotation.json").write_text(text)
    with pytest.raises(InputError, match="holds train, val and test"):
        data.open(f"iu-xray:{tmp_path}")


def test_paths_that_leave_the_folder_are_not_followed(tmp_path, save):
    outside = save(tmp_path / "outside.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "annotation.json").write_text(annotation(("train", {"id": "a", "image_path": [str(outside)]})))
    with pytest.raises(InputError, match="no image of that layout"):
        data.open(f"iu-xray:{tmp_path / 'set'}")


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_empty_or_missing_folder_is_refused_with_what_was_expected(tmp_path, name):
    with pytest.raises(InputError, match=r"add it|no image of that layout"):
        data.open(f"{name}:{tmp_path}")
    with pytest.raises(InputError, match="there is no folder"):
        data.open(f"{name}:{tmp_path}/nowhere")


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_adapter_shows_its_layout(name):
    assert "Group: " in ADAPTERS[name].__doc__


def test_a_table_of_ones_own_labels_goes_with_a_known_data_set(tmp_path):
    write_volume(tmp_path / "ct_train" / "ct_train_1001_image.nii.gz", 1)
    (tmp_path / "labels.csv").write_text("path,label\nct_train/ct_train_1001_image.nii.gz,ill\n")
    opened = data.open(f"mmwhs:{tmp_path}", labels=tmp_path / "labels.csv")
    assert labels(opened) == ["ill"] * 3


def test_a_table_that_lacks_a_column_is_refused(tmp_path):
    write_csv(tmp_path / "HAM10000_metadata.csv", [{"image_id": "a", "dx": "nv"}])
    with pytest.raises(InputError, match="lacks lesion_id"):
        data.open(f"ham10000:{tmp_path}")
