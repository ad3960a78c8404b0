"""Embeddings of whole data sets in the space that two towers share, computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kontrast.data import ImageSet
from kontrast.evaluate.features import apply
from kontrast.evaluate.stored import stored_features
from kontrast.nn.towers import Towers


def image_embeddings(towers: Towers, data: ImageSet, *, change: nn.Module | None = None) -> Tensor:
    """Embeddings `(n, d)` float32 of length 1 of the images as they are, on the CPU.

    Args:
        towers: In evaluation mode.
        data: Images of any side.
        change: What images `(n, c, h, w)` in 0..1 pass before they reach the encoder, such as a corruption.

    Raises:
        InputError: The images have another number of channels than the encoder reads.
    """
    path = [part for part in (change, towers.encoder, towers.project_image) if part is not None]
    return nn.functional.normalize(torch.from_numpy(apply(nn.Sequential(*path).eval(), towers.encoder, data)), dim=1)


@torch.no_grad()
def stored_image_embeddings(towers: Towers, data: ImageSet) -> Tensor:
    """As `image_embeddings`, but what the encoder makes of images is read from the cache where it is in it.

    Raises:
        InputError: As there.
    """
    found = torch.from_numpy(stored_features(towers.encoder, data)).to(towers.temperature.device)
    return nn.functional.normalize(towers.project_image(found).float(), dim=1).cpu()


@torch.no_grad()
def text_embeddings(towers: Towers, texts: Sequence[str], *, batch_size: int = 256) -> Tensor:
    """Embeddings `(n, d)` float32 of length 1, on the CPU; the result does not depend on the batch size."""
    found = [towers.encode_text(texts[start : start + batch_size]).cpu() for start in range(0, len(texts), batch_size)]
    return torch.cat(found)
