"""Zero-shot classification: an image belongs to the class whose sentences are nearest to it, and no label was seen.

Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kontrast.evaluate.classes import Classes

EncodeText = Callable[[Sequence[str]], Tensor]
"""From `n` texts to embeddings `(n, d)`, any length."""


@torch.no_grad()
def class_embeddings(classes: Classes, encode_text: EncodeText) -> Tensor:
    """The embedding of each class: the mean over its sentences, each at length 1, again at length 1.

    Returns:
        `(classes, d)` float32.
    """
    return _means([classes.prompts(number) for number in range(len(classes.names))], encode_text)


@torch.no_grad()
def absence_embeddings(classes: Classes, encode_text: EncodeText) -> Tensor:
    """The embedding of each class's absence, likewise from the sentences that deny it; `(classes, d)` float32."""
    return _means([classes.denials(number) for number in range(len(classes.names))], encode_text)


def _means(sentences: Sequence[Sequence[str]], encode_text: EncodeText) -> Tensor:
    """All are encoded in one go, then averaged class by class."""
    found = F.normalize(encode_text([text for some in sentences for text in some]).float(), dim=1)
    return F.normalize(
        torch.stack([part.mean(0) for part in torch.split(found, [len(some) for some in sentences])]), dim=1
    )


@torch.no_grad()
def zero_shot(image: Tensor, text: Tensor, *, temperature: float = 0.01) -> NDArray[np.float32]:
    """Probabilities of the classes: the softmax of cosines over the temperature.

    Args:
        image: `(n, d)`, any length.
        text: `(classes, d)`, those of `class_embeddings`.
        temperature: That of the towers; it does not change which class comes first.

    Returns:
        `(n, classes)` in 0..1, rows of sum 1.

    Raises:
        ValueError: Images and classes differ in width, or the temperature is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is above 0; got {temperature}")
    return (cosines(image, text) / temperature).softmax(1).cpu().numpy()


@torch.no_grad()
def zero_shot_findings(image: Tensor, present: Tensor, absent: Tensor, *, temperature: float) -> NDArray[np.float32]:
    """Of classes that may be present together, the probability of each: the softmax over its presence and absence.

    Args:
        image: `(n, d)`, any length.
        present: `(classes, d)`, those of `class_embeddings`.
        absent: `(classes, d)`, those of `absence_embeddings`.
        temperature: That of the towers.

    Returns:
        `(n, classes)` in 0..1.

    Raises:
        ValueError: Images and classes differ in width.
    """
    return ((cosines(image, present) - cosines(image, absent)) / temperature).sigmoid().cpu().numpy()


@torch.no_grad()
def cosines(image: Tensor, text: Tensor) -> Tensor:
    """Of every image with every class, `(n, classes)` float32.

    Raises:
        ValueError: Images and classes differ in width.
    """
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1]:
        raise ValueError(
            f"images are (n, d) and classes (classes, d); got {tuple(image.shape)} and {tuple(text.shape)}"
        )
    return F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T


def in_top(scores: Tensor, label: Tensor, k: int) -> NDArray[np.bool_]:
    """Whether fewer than k other classes score as much as the true one or more, so that ties count against.

    Args:
        scores: `(n, classes)`.
        label: `(n,)` int64.
        k: 1 or more.

    Returns:
        `(n,)`; their mean is top-k accuracy.
    """
    own = scores.gather(1, label[:, None])
    above = (scores >= own).sum(1) - 1
    found: NDArray[np.bool_] = (above < k).cpu().numpy()
    return found


def fine(scores: Tensor, label: Tensor, superclasses: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """Whether the true class scores highest among those of its superclass, `(n,)`; arguments as in `in_top`."""
    superclass = _superclass_of(superclasses, scores)
    is_rival = superclass[None] == superclass[label, None]
    return in_top(scores.masked_fill(~is_rival, -torch.inf), label, 1)


def coarse(scores: Tensor, label: Tensor, superclasses: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """Whether the true superclass scores highest, `(n,)`, where a superclass scores what its best class does."""
    best = torch.stack([scores[:, list(members)].amax(1) for members in superclasses.values()], dim=1)
    return in_top(best, _superclass_of(superclasses, scores)[label], 1)


def _superclass_of(superclasses: Mapping[str, Sequence[int]], scores: Tensor) -> Tensor:
    """The number of each class's superclass."""
    found = torch.empty(scores.shape[1], dtype=torch.int64, device=scores.device)
    for number, members in enumerate(superclasses.values()):
        found[list(members)] = number
    return found
