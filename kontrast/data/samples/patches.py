"""Patches of one brain by lobe: Colin27's T1, labelled by the region of AAL that each is centred on.

A patch is a square of one axial slice. The brain is divided into blocks along anterior-posterior and inferior-superior;
each spans both hemispheres, so a patch and its mirror image always lie in one block. A patch lies wholly in its block,
whose last voxels stay unused, so that patches of two blocks share no voxel, nor mirrored one, and do not touch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.annotations import Annotations, group_codes
from kontrast.data.arrays import ArrayListing
from kontrast.data.nifti.stored_nifti import open_nifti

SIDE = 32
"""Pixels of a patch, of 1 mm."""
STEP = 4
"""Distance of neighbouring centres in mm, along all three axes."""
BLOCK = (48, 20)
"""Voxels of a block from posterior to anterior and from inferior to superior; it spans both hemispheres."""
GAP = 4
"""Voxels of each block, at its anterior and superior end, that no patch uses."""

LOBES = {
    "frontal": (
        "Precentral", "Frontal_Sup", "Frontal_Sup_Orb", "Frontal_Mid", "Frontal_Mid_Orb", "Frontal_Inf_Oper",
        "Frontal_Inf_Tri", "Frontal_Inf_Orb", "Rolandic_Oper", "Supp_Motor_Area", "Olfactory", "Frontal_Sup_Medial",
        "Frontal_Med_Orb", "Rectus", "Paracentral_Lobule",
    ),
    "parietal": ("Postcentral", "Parietal_Sup", "Parietal_Inf", "SupraMarginal", "Angular", "Precuneus"),
    "temporal": (
        "Heschl", "Temporal_Sup", "Temporal_Pole_Sup", "Temporal_Mid", "Temporal_Pole_Mid", "Temporal_Inf", "Fusiform",
    ),
    "occipital": ("Calcarine", "Cuneus", "Lingual", "Occipital_Sup", "Occipital_Mid", "Occipital_Inf"),
    "limbic": ("Insula", "Cingulum_Ant", "Cingulum_Mid", "Cingulum_Post", "Hippocampus", "ParaHippocampal", "Amygdala"),
    "central": ("Caudate", "Putamen", "Pallidum", "Thalamus"),
    "cerebellum": ("Cerebelum", "Vermis"),
}  # fmt: skip
"""Classes by AAL's names without the hemisphere; those of the cerebellum by the beginning of the names.

They are those of the first digit of AAL's codes (2 frontal, 4 limbic, 5 occipital, 6 parietal, 7 central, 8 temporal,
9 cerebellum) but for three choices of ours: the fusiform gyrus (5) is temporal, the paracentral lobule (6), mostly
motor, frontal, and the insula (3), which has a digit of its own, limbic.
"""
CLASSES = tuple(LOBES)
_FIRST = (8, 0)
"""First voxel of the first block; with it every lobe has patches on both sides."""


def brain_patches(folder: Path) -> ArrayListing:
    """`ch2.nii.gz`, `aal.nii.gz` and `aal.nii.txt`: patches by lobe, in two parts and grouped by block.

    Raises:
        InputError: nibabel is not installed.
    """
    brain, regions = (open_nifti(folder / name).load()[..., 0] for name in ("ch2.nii.gz", "aal.nii.gz"))
    lobes = lobe_of_region((folder / "aal.nii.txt").read_text(encoding="ascii"))[regions]
    found = centres(lobes)
    blocks = block_of(found)
    groups, group_names = group_codes([f"block {y}-{z}" for y, z in blocks.tolist()])
    return ArrayListing(
        name="sample:brain-patches",
        names=tuple(f"x{x}y{y}z{z}" for x, y, z in found.tolist()),
        pixels=np.stack([patch(brain, centre) for centre in found])[..., None],
        annotations=Annotations(
            labels=lobes[tuple(found.T)],
            classes=CLASSES,
            groups=groups,
            group_names=group_names,
            parts=np.where(blocks.sum(axis=1) % 3 == 0, "test", "train"),
        ),
    )


def lobe_of_region(table: str) -> NDArray[np.int64]:
    """The class of each number of AAL, -1 for none, `(256,)`; from lines of number, name and code."""
    number = {name: CLASSES.index(lobe) for lobe, names in LOBES.items() for name in names}
    found = np.full(256, -1)
    for region, name, _ in (line.split() for line in table.splitlines() if line.strip()):
        plain = name.removesuffix("_L").removesuffix("_R")
        found[int(region)] = number[plain.partition("_")[0] if plain.startswith(LOBES["cerebellum"]) else plain]
    return found


def centres(lobes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels `(n, 3)` on a grid that are of a lobe and whose patches lie wholly in the volume and in one block."""
    x, y, z = (np.arange(size) for size in lobes.shape)
    half = SIDE // 2
    along, up = (y - _FIRST[0]) % BLOCK[0], (z - _FIRST[1]) % BLOCK[1]
    in_volume = (y >= max(half, _FIRST[0])) & (y <= len(y) - half)
    x = x[(x % STEP == len(x) // 2 % STEP) & (x >= half) & (x <= len(x) - half)]
    y = y[in_volume & (along % STEP == 0) & (along >= half) & (along + half <= BLOCK[0] - GAP)]
    z = z[(up % STEP == 0) & (up < BLOCK[1] - GAP)]
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid[lobes[tuple(grid.T)] >= 0])


def block_of(voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Blocks `(n, 2)` of voxels `(n, 3)`, counted from posterior to anterior and from inferior to superior."""
    return np.asarray((voxels[:, 1:] - _FIRST) // BLOCK)


def patch(brain: NDArray[Any], centre: NDArray[np.int64]) -> NDArray[Any]:
    """The square `(SIDE, SIDE)` around a voxel of a volume in RAS+, anterior at the top, left at the left."""
    half = SIDE // 2
    x, y, z = (int(position) for position in centre)
    return brain[x - half : x + half, y - half : y + half, z].T[::-1]
