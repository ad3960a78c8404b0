"""EBCLR: Kim & Ye, *Energy-Based Contrastive Learning of Visual Representations*, NeurIPS 2022.

Written from the equations. Defaults are those of the authors' released code unless a field says otherwise; no figure of
the paper is claimed to be reproduced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from kontrast import gradient, losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch, as_float
from kontrast.distributed import gather
from kontrast.errors import InputError
from kontrast.methods.base import Method, Objective
from kontrast.nn.encoders import Encoder
from kontrast.nn.energy import Energy, energy_head, save_energy
from kontrast.nn.norms import has_batch_norm
from kontrast.nn.sampling import OLD, Drawn, ReplayBuffer, langevin

log = logging.getLogger("kontrast")

Stored = Literal["float32", "float16"]
KEYS = 4096
"""Training views at most whose embeddings a run keeps, to score other images by."""
SHOWN = 64
"""Samples of a picture."""
APART = 0.05
"""Share of the range of scores, 4 / temperature, from which on data and samples are apart, if they still diverge. On
digits they end at a hundredth where the rate falls along a cosine, and reached a seventh at a constant one."""
ALIKE = 0.25
"""Variety of old samples, as a share of that of images, below which they are all one. On digits it stays near 1, and
the noise of one visit alone makes about 0.05."""
RISES = 3
"""Epochs before a gap of the scores is said to grow."""


class EBCLR(Method):
    """SimCLR as an energy model of pairs of views: log q(v, v') = log q(v' | v) + log q(v), and both are maximised.

    The first term is NT-Xent on squared distances. The second rises for views and falls for samples of the model, which
    Langevin chains draw from a replay buffer. A loop of one's own may call `begin` before the first step; without, the
    buffer begins with views of the first batch.
    """

    begins_narrow = True
    optimiser = "adamw"
    lr = 0.0004
    weight_decay = 0.0

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of EBCLR, at the values of the authors' code where nothing else is said."""

        temperature: float = 0.1
        """Divides squared distances of unit vectors: SimCLR's temperature of half the size."""
        width: int = 128
        """Width of the embedding."""
        gen_weight: float = 0.1
        """Of the generative term; 0 leaves NT-Xent alone, and samples nothing."""
        norm_weight: float = 0.128
        """Of the squared lengths of embeddings, which is the code's 0.001 for a sum over its batch of 128."""
        norm_reduction: losses.Reduction = "mean"
        """`mean` over images, so that batches of any size are regularised alike; `sum`, as released, goes with a weight
        of 0.001. This default is ours."""
        langevin_steps: int = 10
        """Steps of a chain each time it is drawn; each is one pass forward and one backward."""
        step_size: float = 0.05
        """Multiplies the gradient of the score, where pixels are -1..1."""
        clamp: float = 1.0
        """Largest element of that gradient: proximal Langevin dynamics."""
        noise_min: float = 0.01
        """Standard deviation of the noise of each step in old chains, where pixels are -1..1."""
        noise_max: float = 0.05
        """In new chains; it falls along a line: multi-stage Langevin dynamics."""
        age_max: int = 3
        """Visits after which a chain is old."""
        renewal: float = 0.2
        """Probability that a drawn chain begins anew; the code has 0.4 for MNIST, 0.6 for Fashion-MNIST and 0.2 for
        CIFAR. The first to try on new data."""
        num_samples: int = 0
        """Chains a step, 0 for as many as images; fewer are cheaper, and not the authors'."""
        buffer_size: int = 50_000
        """Chains kept, no more than training images."""
        buffer_dtype: Stored = "float32"
        """What they are stored in; `float16` halves memory and checkpoints, and is not the authors'."""
        allow_batch_norm: bool = False
        """Take encoders with batch norm, too, although samples then move its running statistics."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None) -> None:
        """Begin with an encoder without batch norm.

        Raises:
            InputError: It has batch norm and that is not allowed, or a setting is out of its range.
        """
        config = config or self.Config()
        _check(config)
        if self.refuses_batch_norm(config) and has_batch_norm(encoder):
            raise InputError(
                f"ebclr needs an encoder without batch norm, whose statistics its samples would pollute; "
                f"{encoder.spec.name} has it, so add --norm none, which begins it afresh, or --allow-batch-norm"
            )
        super().__init__(encoder, augment)
        self.config = config
        self.project = energy_head(encoder.width, encoder.width, config.width)
        self.buffer = ReplayBuffer(getattr(torch, config.buffer_dtype))
        self.previous: Tensor | None = None

    @classmethod
    def refuses_batch_norm(cls, config: Config | None = None) -> bool:
        """Whether its encoder must have no batch norm: yes, unless it is allowed."""
        return config is None or not config.allow_batch_norm

    def forward(self, batch: Batch) -> Objective:
        """NT-Xent of two views, and contrastive divergence between first views and samples, second views being keys."""
        first, second = self.views(batch.image)
        a, b = self.project(self.encoder(torch.cat([first, second]))).chunk(2)
        contrast = losses.nt_xent_l2(gather(a), gather(b), temperature=self.config.temperature)
        metrics = {"spread": measures.spread(a.detach()), "disc": contrast.detach(), "embedding_norm": _length(a)}
        if not self.config.gen_weight:
            return Objective(contrast, metrics)
        drawn = self._draw(batch.image)
        sample = self.sample(drawn, b)
        if self.training:
            self.buffer.write(drawn, sample)
            self.previous = batch.image
        c = self.project(self.encoder(_to_pixels(sample)))
        weights = {"norm_weight": self.config.norm_weight, "norm_reduction": self.config.norm_reduction}
        generative = losses.ebclr_generative(a, c, b, temperature=self.config.temperature, **weights)  # type: ignore[arg-type]
        of_data, of_sample = (self._score(one.detach(), b.detach()).mean() for one in (a, c))
        metrics |= {
            "gen": generative.detach(),
            "score_data": of_data,
            "score_sample": of_sample,
            "score_gap": of_data - of_sample,
            "sample_abs_max": sample.abs().max(),
            "mean_age": drawn.age.float().mean().to(sample.device),
        }
        return Objective(contrast + self.config.gen_weight * generative, metrics)

    def sample(self, drawn: Drawn, key: Tensor) -> Tensor:
        """Let chains climb the score.

        Args:
            drawn: Chains and their ages; pixels around -1..1.
            key: `(m, width)`, embeddings of the second views; they get no gradient, and neither does any parameter.

        Returns:
            `(n, c, size, size)` float32 around -1..1, detached.
        """
        config, key = self.config, F.normalize(key.detach().float(), dim=1)
        with gradient.frozen(self.encoder, self.project):
            return langevin(
                lambda x: self._score(self.project(self.encoder(_to_pixels(x))), key),
                drawn.image,
                self.noise(drawn.age),
                steps=config.langevin_steps,
                step_size=config.step_size,
                clamp=config.clamp,
            )

    def noise(self, age: Tensor) -> Tensor:
        """The standard deviation of noise at an age, both `(n,)`: from `noise_max` down to `noise_min` at `age_max`."""
        left = (1 - age / self.config.age_max).clamp(min=0)
        return self.config.noise_min + (self.config.noise_max - self.config.noise_min) * left

    def _score(self, embedding: Tensor, key: Tensor) -> Tensor:
        return losses.marginal_score(embedding, key, temperature=self.config.temperature)

    def _draw(self, image: Tensor) -> Drawn:
        """Chains to go on with; new ones begin at views of the step before, so that none is a twin of a key."""
        source = as_float(image if self.previous is None else self.previous.to(image.device))

        def propose(num: int) -> Tensor:
            rows = torch.arange(num, device=image.device) % len(source)
            return _to_chain(self.augment(source[rows]))

        num = self.config.num_samples or len(image)
        if not len(self.buffer) and not self.training:
            return Drawn(torch.arange(num), propose(num), torch.full((num,), OLD))
        if not len(self.buffer):
            self._fill([image], len(image))
        return self.buffer.draw(num, self.config.renewal, propose, image.device)

    @torch.no_grad()
    def _fill(self, images: Iterable[Tensor], num_images: int) -> None:
        num, spec = min(self.config.buffer_size, num_images), self.encoder.spec
        size = num * spec.channels * spec.size**2 * self.buffer.dtype.itemsize / 2**20
        log.info(
            "the replay buffer takes %d images, %.0f MiB of memory and of each checkpoint; --buffer-size and "
            "--buffer-dtype float16 make it less",
            num,
            size,
        )
        self.buffer.fill((_to_chain(self.augment(image)) for image in images), num)

    def begin(self, batches: Iterable[Batch], num_images: int) -> None:
        """Fill the buffer with a view of each training image, as many as it holds."""
        if self.config.gen_weight:
            self._fill((batch.image for batch in batches), num_images)

    def made(self) -> Tensor | None:
        """The samples whose chains are the longest: up to `SHOWN` images, 0..1."""
        return _to_pixels(self.buffer.oldest(SHOWN)).clamp(0, 1) if len(self.buffer) else None

    @torch.no_grad()
    def leave(self, out: Path, batches: Iterable[Batch]) -> None:
        """Keep the head and the embeddings of training views, by which the run scores images: `energy.safetensors`."""
        key = torch.cat(list(_first(self._keys(batches), KEYS)))
        save_energy(Energy(self.project, key, self.config.temperature), out)

    def _keys(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        generator = torch.Generator(self.encoder.mean.device).manual_seed(0)
        for batch in batches:
            view = self.augment(batch.image, generator)
            yield F.normalize(self.project(self.encoder(view)).float(), dim=1)

    def concern(self, rows: Sequence[Mapping[str, float]]) -> str | None:
        """Whether data and samples drift apart, or the samples have become all one image."""
        gaps = [row["score_gap"] for row in rows if "score_gap" in row]
        if self._samples_are_alike():
            return (
                "the samples of the replay buffer have become nearly the same image; a higher --renewal or "
                "--noise-max, or a smaller --step-size, keeps them apart"
            )
        is_wide = len(gaps) >= RISES and abs(gaps[-1]) > APART * 4 / self.config.temperature
        if is_wide and abs(gaps[-1]) == max(map(abs, gaps)) and gaps[-1] * gaps[-2] > 0:
            where, step = ("below", "larger") if gaps[-1] > 0 else ("above", "smaller")
            return (
                f"data and samples come apart: the samples' scores are further {where} those of the data than ever; "
                f"a {step} --step-size, a lower --lr or --gen-weight, or a larger --norm-weight, keeps them together"
            )
        return None

    def _samples_are_alike(self) -> bool:
        """Whether the oldest samples differ much less than the images of a batch do."""
        if len(self.buffer) < SHOWN or self.previous is None or len(self.previous) < 2:
            return False
        images = _to_chain(as_float(self.previous))
        return bool(_variety(self.buffer.oldest(SHOWN)) < ALIKE * _variety(images).cpu())

    def remedy(self, metrics: Mapping[str, float]) -> str:
        """What to change where the loss is no number, with the last gap of the scores."""
        if "score_gap" not in metrics:
            return super().remedy(metrics)
        return (
            f"the scores of data and samples were {metrics['score_gap']:.3g} apart (score_gap) a step before; go on "
            "from the last checkpoint with a lower --lr, --gen-weight or --step-size, or --precision float32"
        )

    def get_extra_state(self) -> dict[str, Any]:
        """The images that the next proposals are views of, as part of `state_dict`."""
        return {"previous": self.previous}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.previous = state["previous"]


def _to_chain(image: Tensor) -> Tensor:
    """From 0..1 to -1..1, the scale of steps and noise."""
    return 2 * image - 1


def _to_pixels(image: Tensor) -> Tensor:
    """And back."""
    return (image + 1) / 2


def _length(embedding: Tensor) -> Tensor:
    """Mean length of embeddings."""
    found: Tensor = embedding.detach().float().norm(dim=1).mean()
    return found


def _variety(image: Tensor) -> Tensor:
    """How much images differ, pixel by pixel."""
    return image.std(dim=0, unbiased=False).mean()


def _first(parts: Iterable[Tensor], most: int) -> Iterator[Tensor]:
    """The first `most` rows."""
    for part in parts:
        yield part[:most]
        most -= len(part)
        if most <= 0:
            return


def _check(config: EBCLR.Config) -> None:
    rules = {
        "temperature must be above 0": config.temperature > 0,
        "width must be 1 or more": config.width >= 1,
        "gen_weight must be 0 or more": config.gen_weight >= 0,
        "norm_weight must be 0 or more": config.norm_weight >= 0,
        "langevin_steps must be 1 or more": config.langevin_steps >= 1,
        "step_size must be above 0": config.step_size > 0,
        "clamp must be above 0": config.clamp > 0,
        "noise_min must be 0 or more": config.noise_min >= 0,
        "noise_max must be no less than noise_min": config.noise_max >= config.noise_min,
        "age_max must be 1 or more": config.age_max >= 1,
        "renewal is a probability, 0..1": 0 <= config.renewal <= 1,
        "num_samples must be 0 or more": config.num_samples >= 0,
        "buffer_size must be 1 or more": config.buffer_size >= 1,
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(f"{rule}; got {getattr(config, rule.split()[0])}, so leave it out or change it")
    for name, known in (("norm_reduction", get_args(losses.Reduction)), ("buffer_dtype", get_args(Stored))):
        if getattr(config, name) not in known:
            raise InputError(f"{name} is one of {', '.join(known)}; got {getattr(config, name)!r}, so choose one")
