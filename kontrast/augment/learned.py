"""A policy whose strengths and probabilities are parameters: the same operations, drawn and rendered in the same way.

Source of the idea: Ruppli, Gori, Ardon & Bloch, *Optimizing Transformations for Contrastive Learning in a
Differentiable Framework*, MILLanD at MICCAI 2022. Its network and its ranges were not to be had; these are ours.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.augment.geometry import Strength, Warp
from kontrast.augment.intensity import Tone
from kontrast.augment.operations import OPERATIONS, Range, compose, constants, in_use
from kontrast.augment.policies import Policy
from kontrast.batch import as_float
from kontrast.errors import InputError, TrainingStopped

Producer = Literal["global", "network"]
HIGHEST_START = 0.8
"""Share of its bound at which a strength begins at most: nearer to the end of a sigmoid its gradient fades."""
LOOKED_AT = 16
"""Side of the image, in pixels, that the network looks at."""
MEMORY = 0.98
"""Of the running mean of what the network answers, by which it is frozen."""


class LearnedPolicy(Policy):
    """Begins exactly at a hand-made policy, whose operations, and only those, it learns to strengthen or weaken.

    Each strength or probability is `bound * sigmoid(parameter)`, so no bound can be left. Draws are those of the
    hand-made policy with the same generator, and views differentiable in all parameters: magnitudes by
    reparameterisation, probabilities by a relaxed Bernoulli with straight-through. What the hand-made policy leaves out
    (strength 0) or does as much as makes sense (probability 1, contrast 1) is not learned.
    """

    bound: Tensor
    answered: Tensor

    def __init__(self, start: Policy, *, channels: int, producer: Producer = "global") -> None:
        """Begin at a policy.

        Args:
            start: The hand-made policy. A bound that it exceeds is widened to hold it.
            channels: Of the images: operations on colour are for three.
            producer: `global` learns one number an operation; `network` adds to it what a small network makes of each
                image, at first nothing.

        Raises:
            InputError: The policy has nothing to learn, or is none of constants.
        """
        if type(start) is not Policy:
            raise InputError(
                f"what a policy learns is the constants of its operations; {type(start).__name__} draws them in a way "
                "of its own, so begin with another --policy"
            )
        super().__init__(start.geometry, start.intensity)
        self.channels = channels
        self.constants = constants(start)
        working = in_use(self.constants, channels)
        self.names = tuple(n for n in working if OPERATIONS[n].width(self.constants[n]) < OPERATIONS[n].limit)
        if not self.names:
            raise InputError(
                "a policy is learned by making its operations stronger or weaker; this one has none at all, so begin "
                "with another --policy"
            )
        widths = torch.tensor([OPERATIONS[n].width(self.constants[n]) for n in self.names], dtype=torch.float64)
        bound = torch.tensor([self._bound(n) for n in self.names], dtype=torch.float64)
        self.register_buffer("bound", bound.float(), persistent=False)
        self.register_buffer("answered", torch.zeros(len(self.names)))
        self.raw = nn.Parameter(torch.logit(widths / bound).float())
        """`(k,)`, in the order of `names`: what the sigmoid is taken of."""
        self.is_chance = torch.tensor([OPERATIONS[n].form == "probability" for n in self.names])
        """`(k,)`: which of them are probabilities."""
        self.spread = torch.zeros(())
        """Of the last images under a network: standard deviation of their strengths as shares of the bounds, the mean
        over operations."""
        self.network = _network(channels, len(self.names)) if producer == "network" else None

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Warp, Tone]:
        """What a view of each image will be, differentiable in the parameters."""
        values = self._values(self.widths(image))
        return compose(self.size, self.geometry.padding, values).draw(image, generator)

    def widths(self, image: Tensor) -> Tensor:
        """Strengths and probabilities in the order of `names`: `(1, k)`, or `(n, k)` where each image has its own.

        Raises:
            TrainingStopped: Training has made the parameters no numbers.
        """
        raw = self.raw[None]
        if self.network is not None:
            small = F.adaptive_avg_pool2d(as_float(image), LOOKED_AT).to(self.raw.dtype)
            centred = small - small.mean(dim=(1, 2, 3), keepdim=True)
            answer = self.network(centred / centred.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3))
            if self.training:
                self.answered.lerp_(answer.detach().mean(dim=0).to(self.answered.dtype), 1 - MEMORY)
            raw = raw + answer
            self.spread = torch.sigmoid(raw.detach()).std(dim=0, unbiased=False).mean()
        if not raw.isfinite().all():  # torch's sampling of a grid that is none would end the process
            raise TrainingStopped(
                "a learned policy is made of finite numbers, but a step made some NaN or infinite; go on from the last "
                "checkpoint with a lower --policy-lr"
            )
        return self._within(raw)

    def mean_widths(self) -> Tensor:
        """`(k,)`: the global strengths and probabilities, or the mean of those of recent images."""
        return self._within(self.raw + self.answered)

    def freeze(self) -> Policy:
        """The plain policy of today's strengths; of those of a network, the mean over images on the sigmoid's scale."""
        values = self._values(self.mean_widths().detach()[None])
        idle = {name for name, operation in OPERATIONS.items() if operation.colour and self.channels != 3}
        found = {name: 0.0 if name in idle else _constant(value) for name, value in values.items()}
        return compose(self.size, self.geometry.padding, found)

    def position(self) -> Tensor:
        """`(k,)` in 0..1: where each strength lies between nothing and its bound."""
        return self.mean_widths() / self.bound

    def effects(self) -> Tensor:
        """Of each operation its position, times that of the probability it depends on; 0 where it does nothing."""
        position = dict(zip(self.names, self.position().detach(), strict=True))
        found = []
        for name, value in position.items():
            needed = OPERATIONS[name].depends_on
            if not any(OPERATIONS[other].depends_on == name for other in self.names):
                found.append(value * position[needed] if needed in position else value)
        return torch.stack(found)

    def shown(self) -> dict[str, Tensor]:
        """Each strength in its unit, as the end of the range that it moves, and each probability; detached scalars."""
        widths = self.mean_widths().detach()
        return {name: OPERATIONS[name].shown(width) for name, width in zip(self.names, widths, strict=True)}

    def _within(self, raw: Tensor) -> Tensor:
        return self.bound * torch.sigmoid(raw)

    def _bound(self, name: str) -> float:
        operation = OPERATIONS[name]
        scale = self.size / 224 if operation.pixels else 1.0
        width = operation.width(self.constants[name])
        return min(max(operation.reach * scale, width / HIGHEST_START), operation.limit)

    def _values(self, widths: Tensor) -> dict[str, Strength | Range]:
        """The strengths that widths `(1, k)` or `(n, k)` stand for, and the constants beside them."""
        values: dict[str, Strength | Range] = dict(self.constants)
        for name, column in zip(self.names, widths.unbind(1), strict=True):
            values[name] = OPERATIONS[name].at(column if len(column) > 1 else column[0], self.constants[name])
        return values


def _constant(value: Strength | Range) -> float | tuple[float, float]:
    """What learned as a plain number."""
    if isinstance(value, tuple):
        low, high = (float(end) for end in value)
        return low, high
    return float(value)


def _network(channels: int, num_strengths: int) -> nn.Sequential:
    """From a small image to what is added to each parameter; 0 for all at first.

    It has no convolutions: means over an image differ so little between images that nothing would be learned by them.
    """
    last = nn.Linear(64, num_strengths, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * LOOKED_AT**2, 64), nn.Tanh(), last)
