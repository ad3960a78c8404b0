"""The bias field of MR scanners, estimated and divided out by SimpleITK's N4."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.stored import needed

_SHRINK = 4
"""The field is smooth, so it is estimated on every fourth voxel of each axis that is long enough."""
_ITERATIONS = (50, 50, 50, 50)
_BINS = 200
_MAX_VOXELS = 1 << 28
"""Of a volume; the correction holds it several times over."""


def corrected(values: NDArray[Any], sides: tuple[float, float, float]) -> NDArray[np.float32]:
    """Values `(x, y, z)` divided by their bias field, as float32; the object is what lies above Otsu's threshold.

    Args:
        values: Finite values, of which MR has none below 0.
        sides: Sides of a voxel in mm.

    Raises:
        InputError: SimpleITK is not installed.
        ValueError: More than `_MAX_VOXELS`.
    """
    if values.size > _MAX_VOXELS:
        raise ValueError(f"N4 corrects volumes of at most {_MAX_VOXELS:,} voxels; this one has {values.size:,}")
    sitk = needed("SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T, dtype=np.float32))
    image.SetSpacing([float(side) for side in sides])
    factors = [min(_SHRINK, max(1, count // 8)) for count in values.shape]
    small = sitk.Shrink(image, factors)
    mask = sitk.Shrink(sitk.OtsuThreshold(image, 0, 1, _BINS), factors)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(_ITERATIONS))
    corrector.Execute(small, mask)
    field = np.asarray(sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)), dtype=np.float32)
    np.exp(field, out=field)
    return np.asarray(np.divide(values, field.T, out=field.T, dtype=np.float32, casting="same_kind"))
