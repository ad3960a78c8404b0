"""Volumes of NIfTI and NRRD: slices of them as images, masks that pair with these, and the way back to a volume."""

from kontrast.data.nifti.reader import check_same, is_volume, look, open_stack, read, read_mask
from kontrast.data.nifti.stack import Stack

__all__ = ["Stack", "check_same", "is_volume", "look", "open_stack", "read", "read_mask"]
