"""Which DICOM objects are left out by rule, and which images belong together.

The rules are choices of Kontrast. Secondary captures may be kept, since some collections of radiographs are stored as
captures of a workstation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kontrast.data.dicom.header import text
from kontrast.data.reading import LeftOut

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SECONDARY_CAPTURE = "7"
"""The class itself, and what its kinds begin with, after `_STORAGE`."""
_RT_IMAGE = "481.1"
_KINDS = {
    "4.2": "a spectrum",
    "9": "a waveform",
    "11": "a presentation state",
    "30": "a parametric map",
    "66": "raw data, a registration or a segmentation",
    "67": "a mapping of values",
    "68": "a surface",
    "78": "a measurement of the eye",
    "79": "a measurement of the eye",
    "80": "a measurement of the eye",
    "88": "a structured report",
    "90": "an assessment",
    "104": "an encapsulated document",
    "131": "a display protocol",
    "200": "a protocol",
    "481": "a radiotherapy plan, dose or structure set",
}
"""Storage classes, after `_STORAGE`, that hold no image to learn from."""
_DIRECTORY = "1.2.840.10008.1.3.10"
_MODALITIES = {
    "AU": "a sound",
    "DOC": "a document",
    "ECG": "a waveform",
    "EEG": "a waveform",
    "EMG": "a waveform",
    "FID": "a registration",
    "HD": "a waveform",
    "KO": "a key object selection",
    "PLAN": "a plan",
    "PR": "a presentation state",
    "REG": "a registration",
    "RTDOSE": "a radiotherapy dose",
    "RTPLAN": "a radiotherapy plan",
    "RTRECORD": "a radiotherapy record",
    "RTSTRUCT": "a radiotherapy structure set",
    "RWV": "a mapping of values",
    "SEG": "a segmentation",
    "SR": "a structured report",
}
"""Modalities without an image, for files that do not say their class."""
_PAPERS = {"SD": "a scanned document", "DRW": "a drawing"}
"""ConversionType of secondary captures that are no pictures of a patient."""
_SCENES = {
    "LOCALIZER": "a localiser",
    "LOCALISER": "a localiser",
    "TOPOGRAM": "a localiser",
    "SCOUT": "a localiser",
    "SCREENSAVE": "a saved screen",
    "DOSE": "a dose report",
}
"""How a value of ImageType begins, letters only, where the image is no picture to learn from."""
_PLACEHOLDERS = {
    "ANON",
    "ANONYM",
    "ANONYMISED",
    "ANONYMIZED",
    "ANONYMOUS",
    "DEIDENTIFIED",
    "NA",
    "NAN",
    "NONE",
    "NOTAVAILABLE",
    "NULL",
    "PATIENT",
    "REMOVED",
    "UNKNOWN",
    "UNSPECIFIED",
}
"""What stands for a patient nobody knows, letters and digits only."""


def refuse_left_out(dataset: FileDataset, *, keep_captures: bool) -> None:
    """Leaves out what holds no image, or none to learn from.

    Raises:
        LeftOut: With the rule.
    """
    reason = _by_class(dataset) or _MODALITIES.get(text(dataset, "Modality").upper(), "") or _by_image_type(dataset)
    if reason:
        raise LeftOut(f"{reason}, not an image to learn from")
    if not keep_captures and _is_capture(class_of(dataset)):
        raise LeftOut("a secondary capture; --keep-captures takes those for images")


def groups_of(dataset: FileDataset) -> tuple[str, ...]:
    """The patient and the study, or the series where there is no study; what the file does not name is left out.

    A PatientID of blanks, zeros, X or a word such as ANON or UNKNOWN names nobody. Its issuer is not looked at, since
    many files lack it: the same number at two hospitals makes one group too large, never a patient cut in two.
    """
    patient, study = text(dataset, "PatientID"), text(dataset, "StudyInstanceUID")
    series = text(dataset, "SeriesInstanceUID")
    visit = f"study:{study}" if study else f"series:{series}" if series else ""
    return tuple(key for key in ("" if _is_placeholder(patient) else f"patient:{patient}", visit) if key)


def class_of(dataset: FileDataset) -> str:
    """The class of the object, by the file's own header if by nothing else; "" where it is unknown."""
    return text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")


def _by_class(dataset: FileDataset) -> str:
    found = class_of(dataset)
    if found == _DIRECTORY:
        return "a directory of a medium"
    if not found.startswith(_STORAGE):
        return "an object of its maker without an image" if found and not text(dataset, "Rows") else ""
    kind = found.removeprefix(_STORAGE)
    if _is_capture(found):
        return _PAPERS.get(text(dataset, "ConversionType").upper(), "")
    if kind == _RT_IMAGE:
        return ""
    return _KINDS.get(kind, "") or _KINDS.get(kind.partition(".")[0], "")


def _is_capture(found: str) -> bool:
    """Whether a class is secondary capture, of one frame or several."""
    return found.removeprefix(_STORAGE).partition(".")[0] == _SECONDARY_CAPTURE


def _by_image_type(dataset: FileDataset) -> str:
    for part in text(dataset, "ImageType").upper().split("\\"):
        letters = re.sub("[^A-Z]", "", part)
        for start, reason in _SCENES.items():
            if letters.startswith(start):
                return reason
    return ""


def _is_placeholder(patient: str) -> bool:
    signs = re.sub(r"[\W_]", "", patient.upper())
    return not signs.strip("0") or not signs.strip("X") or signs in _PLACEHOLDERS
