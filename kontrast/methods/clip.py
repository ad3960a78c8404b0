"""CLIP: Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021.

With weights above 0 of the cyclic terms it is CyCLIP: Goel et al., *CyCLIP: Cyclic Contrastive Language-Image
Pretraining*, NeurIPS 2022. Written from the equations.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kontrast import distributed, losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.errors import InputError
from kontrast.methods.base import Method, Objective
from kontrast.nn.encoders import Encoder
from kontrast.nn.text import TextTower
from kontrast.nn.tokenizer import Tokens
from kontrast.nn.towers import Towers, projections, save_towers

log = logging.getLogger("kontrast")

Freeze = Literal["none", "image", "text", "both"]
COLDEST, WARMEST = 0.01, 1.0
"""The temperature stays between these."""


class Pairs(NamedTuple):
    """Embeddings of one's own pairs, and of the pairs of all processes, of which they are a block of rows."""

    image: Tensor
    text: Tensor
    all_image: Tensor
    all_text: Tensor
    offset: int
    share: float
    """Of the loss that one's own rows make, over the mean of all processes: 1 but for unequal blocks."""
    text_id: Tensor
    """`(m,)` int64, equal where the tokens of two texts are."""


class CLIP(Method):
    """Each image finds its own text among those of the batch, and each text its image.

    The cyclic terms ask besides that two images are as similar as their texts, the sum of (<I_j, I_k> - <T_j, T_k>)^2,
    and that an image is to another's text as the other is to its own, the sum of (<I_j, T_k> - <I_k, T_j>)^2. On
    several processes, each makes its own rows against the pairs of all, and the mean over processes is the whole.
    """

    reads_texts: ClassVar[bool] = True
    optimiser = "adamw"
    lr = 0.001
    """5e-4 at the batch of 128 of Goel et al."""
    weight_decay = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of CLIP."""

        in_modal: float = 0.0
        """Weight of the sum of (<I_j, I_k> - <T_j, T_k>)^2, `cylambda1` of the authors' code; 0 for CLIP."""
        cross_modal: float = 0.0
        """Weight of the sum of (<I_j, T_k> - <I_k, T_j>)^2, `cylambda2` of the authors' code; 0 for CLIP."""
        normalization: losses.Normalization = "pairs"
        """What divides those sums over a batch of N: `pairs`, N (N - 1), so that it does not grow with the batch;
        `rows`, N, as the authors released it. A weight for `pairs` is N - 1 times that for `rows`."""
        temperature: float = 0.07
        """Divides the cosines when training begins; it learns, within 0.01..1."""
        width: int = 512
        """Of the space that both towers are projected to; 0 to take towers of one width as they are."""
        duplicates: losses.Duplicates = "ignore"
        """What pairs with equal texts are to each other, as reports have them: `ignore`, negatives; `mask`, nothing;
        `multi_positive`, positives."""
        freeze: Freeze = "none"
        """Which tower stays as it is: `none`, `image`, `text` or `both`; projections and temperature always learn."""
        micro_batch: int = 0
        """Pairs that pass the towers at a time, in a second pass for the gradient: memory is that of so many, negatives
        are those of the whole batch (batch norm sees the parts, twice). 0 for all at once, in one pass."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None, *, text: TextTower) -> None:
        """Begin with an image and a text tower.

        Raises:
            InputError: A setting is out of its range, or the towers' widths differ and are not to be projected.
        """
        config = config or self.Config()
        _check(config)
        super().__init__(encoder, augment)
        self.config, self.text = config, text
        self.project_image, self.project_text = projections(encoder.width, text.width, config.width)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        for tower in self._frozen():
            tower.requires_grad_(False)

    @property
    def temperature(self) -> Tensor:
        """Scalar that divides cosines; the logarithm of its inverse is what learns."""
        return (-self.logit_scale).exp()

    def forward(self, batch: Batch) -> Objective:
        """CLIP's loss and the weighted cyclic terms of the pairs of all processes, as far as they are one's own."""
        tokens = self.text.tokens(_texts(batch))
        pairs = self._embed(self.augment(batch.image), tokens)
        columns, config = (pairs.all_image, pairs.all_text), self.config
        contrast = losses.clip(
            *(pairs.image, pairs.text),
            temperature=self.temperature,
            columns=columns,
            offset=pairs.offset,
            duplicates=config.duplicates,
            text_id=pairs.text_id,
        )
        masked = pairs.text_id if config.duplicates == "mask" else None
        shared = {"normalization": config.normalization, "columns": columns}
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.in_modal > 0):
            in_modal = losses.cyclic_in_modal(pairs.image, pairs.text, offset=pairs.offset, text_id=masked, **shared)  # type: ignore[arg-type]
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.cross_modal > 0):
            cross_modal = losses.cyclic_cross_modal(pairs.image, pairs.text, **shared)  # type: ignore[arg-type]
        loss = contrast
        for weight, term in ((config.in_modal, in_modal), (config.cross_modal, cross_modal)):
            loss = loss + weight * term if weight else loss
        metrics = {
            "spread": measures.spread(pairs.image.detach()),
            "clip": contrast.detach(),
            "in_modal": in_modal.detach(),
            "cross_modal": cross_modal.detach(),
            "temperature": self.temperature.detach(),
            "batch_accuracy": _accuracy(pairs),
            "log_batch": contrast.new_tensor(math.log(len(pairs.all_image))),
            "texts_cut": tokens.is_cut.float().mean(),
        }
        return Objective(loss * pairs.share, metrics)

    def _embed(self, image: Tensor, tokens: Tokens) -> Pairs:
        """Own embeddings, which are gathered in one go."""
        own = torch.cat([self._embed_images(image), self._embed_texts(tokens)], dim=1)
        everyone, place = distributed.gather(own), distributed.place(own)
        text_id = distributed.gather(tokens.identity().to(own.device))
        (image, text), (all_image, all_text) = own.chunk(2, dim=1), everyone.chunk(2, dim=1)
        return Pairs(image, text, all_image, all_text, place.offset, place.share, text_id)

    def _embed_images(self, image: Tensor) -> Tensor:
        parts = torch.split(image, self.config.micro_batch or len(image))
        return torch.cat([self._part(self.encoder, self.project_image, part) for part in parts])

    def _embed_texts(self, tokens: Tokens) -> Tensor:
        parts = tokens.split(self.config.micro_batch or len(tokens))
        return torch.cat([self._part(self.text, self.project_text, part) for part in parts])

    def _part(self, tower: nn.Module, project: nn.Module, part: Tensor | Tokens) -> Tensor:
        """Embeddings of a part; with micro-batches, what the gradient needs is made again when it is needed."""
        if not self.config.micro_batch or not torch.is_grad_enabled():
            embedding: Tensor = project(tower(part))
            return embedding
        again: Tensor = checkpoint(lambda x: project(tower(x)), part, use_reentrant=False)
        return again

    def _frozen(self) -> list[nn.Module]:
        named = {"image": self.encoder, "text": self.text}
        return [tower for name, tower in named.items() if self.config.freeze in (name, "both")]

    def train(self, mode: bool = True) -> CLIP:
        """Frozen towers stay in evaluation mode: running statistics are no less theirs than weights."""
        super().train(mode)
        for tower in self._frozen():
            tower.eval()
        return self

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Keep the temperature in its range."""
        self.logit_scale.clamp_(-math.log(WARMEST), -math.log(COLDEST))

    def begin(self, batches: Iterable[Batch], num_images: int) -> None:
        """Say what the weights of cyclic terms are in both normalisations, since published ones differ by N - 1."""
        if self.config.in_modal or self.config.cross_modal:
            num = distributed.place(next(iter(batches)).image).total
            factor = max(num - 1, 1)
            pairs, rows = (1.0, 1 / factor) if self.config.normalization == "pairs" else (factor, 1.0)
            for name in ("in_modal", "cross_modal"):
                weight = getattr(self.config, name)
                log.info("%s: %g of pairs is %g of rows, at %d a batch", name, weight * pairs, weight * rows, num)

    def leave(self, out: Path, batches: Iterable[Batch]) -> None:
        """Keep the text tower, the projections and the temperature, by which the run compares images with texts."""
        parts = (self.encoder, self.text, self.project_image, self.project_text)
        save_towers(Towers(*parts, temperature=self.temperature.item()), out)


class CyCLIP(CLIP):
    """CLIP with both cyclic terms."""

    @dataclass(frozen=True, kw_only=True)
    class Config(CLIP.Config):
        """CLIP's, with the authors' weights of 0.25 for `rows` at their batch of 128, as weights for `pairs`."""

        in_modal: float = 31.75
        """Weight of the sum of (<I_j, I_k> - <T_j, T_k>)^2, `cylambda1` of the authors' code."""
        cross_modal: float = 31.75
        """Weight of the sum of (<I_j, T_k> - <I_k, T_j>)^2, `cylambda2` of the authors' code."""


def _texts(batch: Batch) -> tuple[str, ...]:
    if batch.text is None:
        raise InputError(
            "clip learns from images with texts; these images have none, so name a table with a column `text`"
        )
    return batch.text


@torch.no_grad()
def _accuracy(pairs: Pairs) -> Tensor:
    """Share of images whose own text is nearer than every other that differs from it.

    Ties count against, and so do texts beside which there is no other.
    """
    image, text = (F.normalize(each.float(), dim=1) for each in (pairs.image, pairs.all_text))
    rows, right = torch.arange(len(image), device=image.device), []
    for some in torch.split(rows, max(1, losses.SIMILARITIES // len(text))):
        own = (some + pairs.offset)[:, None]
        with torch.autocast(image.device.type, enabled=False):
            cosine = image[some] @ text.T
        is_foreign = pairs.text_id[own] != pairs.text_id
        right.append(~((cosine >= cosine.gather(1, own)) & is_foreign).any(1) & is_foreign.any(1))
    return torch.cat(right).float().mean()


def _check(config: CLIP.Config) -> None:
    rules = {
        "in_modal must be 0 or more, and finite": 0 <= config.in_modal < math.inf,
        "cross_modal must be 0 or more, and finite": 0 <= config.cross_modal < math.inf,
        f"temperature must be in {COLDEST}..{WARMEST:g}": COLDEST <= config.temperature <= WARMEST,
        "width must be 0 or more": config.width >= 0,
        "micro_batch must be 0 or more": config.micro_batch >= 0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(f"{rule}; got {getattr(config, rule.split()[0])}, so leave it out or change it")
    for name, kind in (("normalization", losses.Normalization), ("duplicates", losses.Duplicates), ("freeze", Freeze)):
        if getattr(config, name) not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise InputError(f"{name} is one of {known}; got {getattr(config, name)!r}, so choose one")
