"""Hearts and brains in volumes; masks lie beside them and are no images."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from kontrast.data.adapters.layout import Row, listed
from kontrast.data.folder import FileListing

_log = logging.getLogger("kontrast")
_ACDC_PARTS = {"training": "train", "testing": "test"}
_BRATS = (("t1", "t1n"), ("t1ce", "t1c"), ("t2", "t2w"), ("flair", "t2f"))
"""Kinds of images, in the order of the channels, under their names until 2021 and from 2023 on."""


def acdc(folder: Path) -> FileListing:
    """ACDC (Bernard et al., TMI 2018): short-axis cine MRI of 150 hearts, end of diastole and of systole.

        training/patient001/Info.cfg, patient001_frame01.nii.gz, patient001_frame12.nii.gz, ..._gt.nii.gz (masks)
        testing/patient101/...

    Label: `Group` of Info.cfg (DCM, HCM, MINF, NOR, RV). Group: the patient. Split: training and testing, where both
    are there. The whole films, patient001_4d.nii.gz, are left out: their frames are the same images again.
    """
    paths = [path for path in sorted(folder.rglob("patient*_frame*.nii*")) if not _stem(path).endswith("_gt")]
    parts = {path: _ACDC_PARTS.get(path.parent.parent.name, "") for path in paths}
    both = {"train", "test"} <= set(parts.values())
    rows = [
        Row(path=path, label=_acdc_group(path.parent), group=path.parent.name, part=parts[path] if both else "")
        for path in paths
    ]
    return listed("acdc", folder, rows, layout="training/patient001/patient001_frame01.nii.gz and so on")


def mmwhs(folder: Path) -> FileListing:
    """MM-WHS (Zhuang & Shen, MedIA 2016): whole hearts in CT and MRI.

        ct_train/ct_train_1001_image.nii.gz, ct_train_1001_label.nii.gz (a mask), mr_train/..., ct_test/..., mr_test/...

    No labels: its task is segmentation. Group: the volume. A window in Hounsfield units suits CT alone: give it with
    the folder ct_train, and keep `--window auto` (percentiles) for both kinds together.
    """
    paths = sorted(folder.rglob("*_image.nii*"))
    rows = [Row(path=path, group=_stem(path).removesuffix("_image")) for path in paths]
    return listed("mmwhs", folder, rows, layout="ct_train_1001_image.nii.gz or mr_train_1001_image.nii.gz and so on")


def brats(folder: Path) -> FileListing:
    """BraTS 2017 to 2024, or folders like it: a brain in four kinds of MRI, which become the channels of each slice.

        BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz     until 2021
        BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz        from 2023 on

    Channels: T1, T1 with contrast, T2, FLAIR, always in this order. No labels. Group: the patient; in the names from
    2023 on the last number is the visit, not the patient. The mask, seg, is left out, and cases that lack a kind are.
    """
    rows, incomplete = [], 0
    for first in sorted(folder.rglob("*.nii*")):
        match = re.fullmatch(r"(.+)([_-])(t1|t1n)", _stem(first))
        if match is None:
            continue
        paths = [path for names in _BRATS if (path := _brats_file(first, match[1] + match[2], names))]
        if len(paths) == len(_BRATS):
            rows.append(Row(path=paths[0], channels=tuple(paths[1:]), group=_brats_patient(match[1])))
        else:
            incomplete += 1
    if incomplete:
        _log.warning("%d cases lack one of the four kinds of images and are left out", incomplete)
    return listed("brats", folder, rows, layout="CASE/CASE_t1.nii.gz, _t1ce, _t2 and _flair")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _acdc_group(patient: Path) -> str:
    """What Info.cfg says, "" without one."""
    info = patient / "Info.cfg"
    if not info.is_file():
        return ""
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Group:")), "")


def _brats_file(first: Path, prefix: str, names: tuple[str, str]) -> Path | None:
    """The file of one kind, by either name, if it is there."""
    suffix = first.name.removeprefix(_stem(first))
    found = (first.with_name(f"{prefix}{name}{suffix}") for name in names)
    return next((path for path in found if path.is_file()), None)


def _brats_patient(case: str) -> str:
    visit = re.fullmatch(r"(BraTS-.+-\d+)-\d+", case)
    return visit[1] if visit else case
