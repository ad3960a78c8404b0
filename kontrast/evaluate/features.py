"""Representations of a whole data set, computed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kontrast.augment.geometry import resize
from kontrast.batch import as_float
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.nn.encoders import Encoder


def features(encoder: Encoder, data: ImageSet, *, batch_size: int = 256) -> NDArray[np.float32]:
    """Representations of the images as they are, without augmentation, on the encoder's device and in float32.

    Args:
        encoder: Put into evaluation mode for the time being.
        data: Images of any side; resized to the one the encoder was trained on.
        batch_size: Images at a time; the result does not depend on it.

    Returns:
        `(n, width)` float32.

    Raises:
        InputError: The images have another number of channels than the encoder reads.
    """
    return apply(encoder, encoder, data, batch_size=batch_size)


def check_channels(encoder: Encoder, data: ImageSet) -> None:
    """Refuse images that the encoder cannot read.

    Raises:
        InputError: They have another number of channels.
    """
    if data.channels != encoder.spec.channels:
        raise InputError(
            f"images must have the encoder's number of channels; {data.name} has {data.channels} and the encoder "
            f"{encoder.spec.channels}, so use --channels {encoder.spec.channels}"
        )


@torch.no_grad()
def apply(model: nn.Module, encoder: Encoder, data: ImageSet, *, batch_size: int = 256) -> NDArray[np.float32]:
    """What `model`, of which `encoder` is the part that reads images, makes of each image: `(n, outputs)` float32."""
    check_channels(encoder, data)
    was_training = model.training
    model.eval()
    found = [model(image).float().cpu() for image in _images(encoder, data, batch_size)]
    model.train(was_training)
    return torch.cat(found).numpy()


def _images(encoder: Encoder, data: ImageSet, batch_size: int) -> Iterator[Tensor]:
    device = encoder.mean.device
    for start in range(0, len(data), batch_size):
        batch = data.batch(np.arange(start, min(start + batch_size, len(data)))).to(device)
        yield resize(as_float(batch.image), encoder.spec.size)
