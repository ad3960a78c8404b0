"""Load a finished encoder."""

from __future__ import annotations

from pathlib import Path

from kontrast.nn.encoders import Encoder, load_encoder


def load(*, run: Path | str) -> Encoder:
    """Load the encoder of a run, in evaluation mode: images in 0..1, or integers, to representations.

    Args:
        run: Folder of a run, or an exported `.safetensors` with its `.json` beside it.

    Raises:
        InputError: It is neither.
    """
    return load_encoder(Path(run)).eval()
