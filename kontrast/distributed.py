"""The only reader of the launcher's environment. One process for now; methods already speak as if there were more."""

from __future__ import annotations

import os

from torch import Tensor

from kontrast.errors import InputError


def start() -> None:
    """Refuse a launch with several processes, which would train the same model several times over.

    Raises:
        InputError: The launcher's `WORLD_SIZE` is above 1.
    """
    if world_size() > 1:
        raise InputError(
            f"this version trains in one process, but the launcher started {world_size()}; "
            "start `kontrast` without torchrun"
        )


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def gather(embedding: Tensor) -> Tensor:
    """Embeddings `(n, d)` of all processes, stacked in order of rank: on one process, the embedding itself."""
    return embedding
