"""Images, their labels and their splits. `open` hides the builtin where it is imported by name, on purpose."""

from kontrast.data.images import ImageSet
from kontrast.data.loader import Loader
from kontrast.data.open import open
from kontrast.data.split import draw, hold_out, validation_part

__all__ = ["ImageSet", "Loader", "draw", "hold_out", "open", "validation_part"]
