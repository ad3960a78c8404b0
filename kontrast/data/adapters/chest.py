"""Chest X-rays."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from kontrast.data.adapters.layout import Row, first_file, listed, read_rows
from kontrast.data.folder import FileListing
from kontrast.errors import InputError

NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
_MIMIC = "mimic-cxr-2.0.0"
_KERMANY_PATIENT = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-|([A-Z]+-\d+)-\d+")


def kermany(folder: Path) -> FileListing:
    """Chest X-rays of children, and OCT (Kermany et al., Cell 2018): normal and ill, in any of their versions.

        train/NORMAL/IM-0115-0001.jpeg, train/PNEUMONIA/person1_bacteria_1.jpeg, val/..., test/...
        train/CNV/CNV-1016042-1.jpeg, ...                                                   (OCT)

    Label: the innermost folder. Group: the patient, by the number in the name. The folders train, val and test are not
    taken for a split, since the number of one person may stand in several of them, and nobody says whether it is the
    same person: one is drawn by patient.
    """
    rows = []
    for path in sorted(path for path in folder.rglob("*.jp*g") if not path.name.startswith(".")):
        match = _KERMANY_PATIENT.match(path.name)
        rows.append(Row(path=path, label=path.parent.name, group=match[match.lastindex or 0] if match else ""))
    return listed("kermany", folder, rows, layout="train/NORMAL/*.jpeg, train/PNEUMONIA/*.jpeg and so on")


def nih_chest(folder: Path) -> FileListing:
    """ChestX-ray14 (Wang et al., CVPR 2017): 112,120 frontal X-rays of 30,805 patients with 14 findings.

        Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv)     Image Index, Finding Labels, Patient ID and more
        images_001/images/00000001_000.png ...                 or all below images/
        train_val_list.txt, test_list.txt                      the publisher's split, by patient

    Labels: 14 findings, each 0 or 1; "No Finding" is 0 for all. Group: the patient. Split: by the lists, if both exist.
    """
    table = first_file(folder, ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"), "the table of ChestX-ray14")
    images = {path.name: path for path in sorted(folder.rglob("*.png"))}
    parts = _nih_parts(folder)
    rows = [
        Row(
            path=images.get(row["Image Index"], folder / row["Image Index"]),
            group=row["Patient ID"],
            part=parts.get(row["Image Index"], ""),
            findings=tuple(float(name in row["Finding Labels"].split("|")) for name in NIH_FINDINGS),
        )
        for row in read_rows(table, "Image Index", "Finding Labels", "Patient ID")
    ]
    layout = "Data_Entry_2017.csv and images 00000001_000.png below it"
    return listed("nih-chest", folder, rows, layout=layout, classes=NIH_FINDINGS)


def mimic_cxr(folder: Path) -> FileListing:
    """MIMIC-CXR (Johnson et al., Scientific Data 2019), as JPEG or DICOM, or in R2Gen's layout.

        files/p10/p10000032/s50414267/02aa804e-....jpg (or .dcm)
        mimic-cxr-2.0.0-split.csv(.gz)        dicom_id, study_id, subject_id, split
        mimic-cxr-2.0.0-chexpert.csv(.gz)     subject_id, study_id and 14 findings; may be missing
        annotation.json, images/...           instead of these: R2Gen's selection

    Labels: CheXpert's findings of the study, 1 or 0; unknown where it is uncertain (-1) or silent. Group: the patient.
    Split: the publisher's, or R2Gen's.
    """
    if (folder / "annotation.json").is_file():
        return _r2gen("mimic-cxr", folder, lambda row: str(row.get("subject_id", "")) or _patient_folder(row))
    names = (f"{_MIMIC}-split.csv", f"{_MIMIC}-split.csv.gz")
    table = read_rows(
        first_file(folder, names, "the split of MIMIC-CXR"), "dicom_id", "study_id", "subject_id", "split"
    )
    findings, classes = _chexpert(folder)
    unknown = (math.nan,) * len(classes)
    rows = [
        Row(
            path=_mimic_file(folder, row),
            group=row["subject_id"],
            part={"validate": "validation"}.get(row["split"], row["split"]),
            findings=findings.get(row["study_id"], unknown),
        )
        for row in table
    ]
    layout = f"{_MIMIC}-split.csv and files/p10/p10000032/s50414267/*.jpg or .dcm"
    return listed("mimic-cxr", folder, rows, layout=layout, classes=classes)


def iu_xray(folder: Path) -> FileListing:
    """IU X-ray in R2Gen's selection (Chen et al., EMNLP 2020): two views of each of 2,955 studies, with their reports.

        annotation.json                  {"train": [{"id", "report", "image_path": [...], "split"}], "val", "test"}
        images/CXR2384_IM-0942/0.png     and 1.png

    No labels; the reports are not read here. Group: the study, whose views never part. Split: R2Gen's.
    """
    return _r2gen("iu-xray", folder, lambda row: str(row["id"]))


def _nih_parts(folder: Path) -> dict[str, str]:
    """The part of each image, by its name; empty without both lists."""
    lists = {"train": folder / "train_val_list.txt", "test": folder / "test_list.txt"}
    if not all(path.is_file() for path in lists.values()):
        return {}
    return {name: part for part, path in lists.items() for name in path.read_text(encoding="utf-8").split()}


def _mimic_file(folder: Path, row: dict[str, str]) -> Path:
    subject, study = f"p{row['subject_id']}", f"s{row['study_id']}"
    stem = folder / "files" / subject[:3] / subject / study / row["dicom_id"]
    dicom = stem.with_name(f"{stem.name}.dcm")
    return dicom if dicom.is_file() else stem.with_name(f"{stem.name}.jpg")


def _chexpert(folder: Path) -> tuple[dict[str, tuple[float, ...]], tuple[str, ...]]:
    """Findings of each study, and their names; both empty without the table."""
    paths = [folder / f"{_MIMIC}-chexpert.csv{suffix}" for suffix in ("", ".gz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}, ()
    rows = read_rows(path, "study_id", "No Finding")
    classes = tuple(sorted(set(rows[0]) - {"subject_id", "study_id"})) if rows else ()
    values = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0}
    return {row["study_id"]: tuple(values.get(row[name], math.nan) for name in classes) for row in rows}, classes


def _patient_folder(row: dict[str, Any]) -> str:
    """`p10000032` of `p10/p10000032/s50414267/02aa804e.jpg`."""
    parts = str(row["image_path"][0]).split("/")
    return parts[1] if len(parts) > 2 else ""


def _r2gen(name: str, folder: Path, patient: Any) -> FileListing:
    file = first_file(folder, ("annotation.json",), f"the annotation of {name}")
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))
        rows = [
            Row(path=folder / "images" / path, group=patient(row), part={"val": "validation"}.get(part, part))
            for part in ("train", "val", "test")
            for row in parts[part]
            for path in row["image_path"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"annotation.json holds train, val and test, lists of objects with id and image_path; {file} does not "
            f"({type(error).__name__}: {error}): use R2Gen's own file"
        ) from error
    return listed(name, folder, rows, layout="annotation.json and images/")
