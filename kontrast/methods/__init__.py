"""Methods, each in one file that reads like its paper's algorithm box. The whole list is written out here."""

from kontrast.methods.base import Method, Objective
from kontrast.methods.byol import BYOL
from kontrast.methods.clip import CLIP, CyCLIP
from kontrast.methods.ebclr import EBCLR
from kontrast.methods.learned_views import LearnedViews
from kontrast.methods.moco import MoCo
from kontrast.methods.simclr import SimCLR
from kontrast.methods.simsiam import SimSiam
from kontrast.methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "byol": BYOL,
    "clip": CLIP,
    "cyclip": CyCLIP,
    "ebclr": EBCLR,
    "learned_views": LearnedViews,
    "moco": MoCo,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "supervised": Supervised,
}

__all__ = [
    "BYOL",
    "CLIP",
    "EBCLR",
    "METHODS",
    "CyCLIP",
    "LearnedViews",
    "Method",
    "MoCo",
    "Objective",
    "SimCLR",
    "SimSiam",
    "Supervised",
]  # fmt: skip
