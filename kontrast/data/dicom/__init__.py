"""DICOM: which files are, what they hold, and their images as they are meant to be shown."""

from kontrast.data.dicom.directory import list_dicomdir
from kontrast.data.dicom.file import quiet_pydicom
from kontrast.data.dicom.reader import is_dicom, look, read

__all__ = ["is_dicom", "list_dicomdir", "look", "quiet_pydicom", "read"]
