"""MedMNIST+, the twelve 2-D sets in four sizes, by the index of the installed package `medmnist`.

`pathmnist` is that set at 28 px; `pathmnist-64`, `-128` and `-224` are the larger ones. The index is read as a literal,
since importing the package would load torchvision and make a folder in the user's home. It gives MD5 digests only.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kontrast.data.arrays import ArrayListing, list_npz
from kontrast.data.samples.sample import Pack, Pinned, Sample
from kontrast.data.sources import Address, installed_folder
from kontrast.data.unpack import SourceError
from kontrast.errors import InputError

NAMES = (
    "bloodmnist", "breastmnist", "chestmnist", "dermamnist", "octmnist", "organamnist", "organcmnist", "organsmnist",
    "pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist",
)  # fmt: skip
SIZES = (28, 64, 128, 224)
_NAME = re.compile(rf"({'|'.join(NAMES)})(?:-({'|'.join(map(str, SIZES))}))?")
_FAMILIES = dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), "the CT volumes of LiTS")
"""One patient's organs, seen from three sides."""
_CAUTIONS = {
    "dermamnist": " Its official split has photographs of one lesion on both sides (Abhishek et al., 2025).",
    **dict.fromkeys(_FAMILIES, " The three organ sets show the same patients from three sides: never combine them."),
}


def is_name(name: str) -> bool:
    """Whether this names a set of MedMNIST+, such as "pathmnist-64"."""
    return _NAME.fullmatch(name) is not None


def origin(name: str) -> str:
    """The family of a set, all sizes of it together; "" for what is no name of a set."""
    match = _NAME.fullmatch(name)
    return _FAMILIES.get(match[1], match[1]) if match else ""


def sample(name: str) -> Sample:
    """The sample of that name, by the installed index.

    Raises:
        InputError: The package `medmnist` is not installed, or its index is of another kind.
    """
    match = _NAME.fullmatch(name)
    assert match is not None, "asked after is_name"
    size = int(match[2] or 28)
    known = _index()[match[1]]
    suffix = "" if size == 28 else f"_{size}"
    url, _, query = str(known[f"url{suffix}"]).partition("?")
    folder, _, file = url.rpartition("/")
    counts = dict(known["n_samples"])
    count = sum(counts.values())
    return Sample(
        kind="images",
        title=f"{known['python_class']}, {known['task']}, {size} px",
        count=count,
        licence=known["license"],
        citation="Yang et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
        "classification, Sci. Data 10, 2023, and the source that MedMNIST names for this set",
        caveat="Small, standardised images for research, not for clinical use." + _CAUTIONS.get(match[1], ""),
        megabytes=round(count * size**2 * int(known["n_channels"]) / 1e6, 1),
        origin=origin(name),
        packs=(
            Pack(
                sources=(Address(folder, f"?{query}" if query else ""),),
                files=(Pinned(member=file, digest=known[f"MD5{suffix}"], what="train, validation and test"),),
            ),
        ),
        build=partial(_build, name, file, dict(known["label"])),
    )


def _index() -> dict[str, Any]:
    """`INFO` of `medmnist/info.py`, without running it."""
    try:
        code = (installed_folder("medmnist") / "info.py").read_text(encoding="utf-8")
    except (SourceError, OSError) as error:
        raise InputError(
            f"MedMNIST+ is fetched by the index of its own package; medmnist is {error}: "
            "`pip install --no-deps medmnist`"
        ) from error
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["INFO"]:
            found: dict[str, Any] = ast.literal_eval(node.value)
            return found
    raise InputError(
        "MedMNIST+ is fetched by the index of its own package; this medmnist has none that can be read: "
        "install medmnist 3.0 or later"
    )


def _build(name: str, file: str, meaning: dict[str, str], folder: Path) -> ArrayListing:
    """The arrays of the .npz, under the names of the classes."""
    found = list_npz(folder / file)
    classes = tuple(meaning[code] for code in found.annotations.classes)
    return replace(found, name=f"sample:{name}", annotations=replace(found.annotations, classes=classes))
