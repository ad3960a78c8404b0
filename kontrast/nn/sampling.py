"""Samples of an energy model: Langevin chains in the space of images, and the buffer in which they rest between steps.

As in Kim & Ye, *Energy-Based Contrastive Learning of Visual Representations*, NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

OLD = 5
"""Age of what a buffer is filled with: it counts as visited so often, and gets the least noise."""


def langevin(
    score: Callable[[Tensor], Tensor], image: Tensor, noise: Tensor, *, steps: int, step_size: float, clamp: float
) -> Tensor:
    """Climb the score, with noise: x <- x + step_size * clamp(gradient of s at x, -clamp, clamp) + noise * normal.

    The clamp makes it the paper's proximal Langevin dynamics; noise that falls with the age of a chain, its multi-stage
    one. As in the authors' code there is no half before the step, the noise is not tied to its size, and x is not
    clipped. Gradients are taken also under `no_grad`, in the precision of autocast around it, but in float32 where that
    is float16, in which they would vanish without scaling.

    Args:
        score: From images to one number each, `(n,)`, by networks whose parameters are frozen.
        image: `(n, c, h, w)` float32, where the chains begin.
        noise: `(n,)`, standard deviation for each chain.
        steps: How many.
        step_size: Multiplies the clamped gradient.
        clamp: Largest absolute value of a gradient's element.

    Returns:
        `(n, c, h, w)` float32, detached; no element is more than steps * step_size * clamp away, noise apart.
    """
    x, noise, device = image.detach(), noise.to(image).view(-1, 1, 1, 1), image.device.type
    dtype = torch.get_autocast_dtype(device)
    in_half = torch.is_autocast_enabled(device) and dtype != torch.float16
    for _ in range(steps):
        with torch.enable_grad(), torch.autocast(device, dtype=dtype, enabled=in_half):
            (gradient,) = torch.autograd.grad(score(x.requires_grad_()).sum(), x)
        x = x.detach() + step_size * gradient.clamp(-clamp, clamp) + noise * torch.randn_like(image)
    return x


class Drawn(NamedTuple):
    """Chains taken from a buffer to go on with."""

    slot: Tensor
    """`(n,)` int64, their places, each at most once; on the CPU."""
    image: Tensor
    """`(n, c, h, w)` float32."""
    age: Tensor
    """`(n,)` int64, visits so far; on the CPU."""


class ReplayBuffer(nn.Module):
    """Images that chains have come to, and their ages, the number of visits; after Du & Mordatch, NeurIPS 2019.

    It stays on the CPU, whatever its device, and is part of the `state_dict` whole.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        """Begin empty; `dtype` is what images are stored in."""
        super().__init__()
        self.dtype = dtype
        self.images, self.ages = torch.empty(0, dtype=dtype), torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.ages)

    def fill(self, batches: Iterable[Tensor], num: int) -> None:
        """Begin anew with the first `num` images of batches `(n, c, h, w)`, all of age `OLD`."""
        filled = 0
        for image in batches:
            if not filled:
                self.images = torch.empty(num, *image.shape[1:], dtype=self.dtype)
            part = image[: num - filled].detach()
            self.images[filled : filled + len(part)] = part.to("cpu", self.dtype)
            filled += len(part)
            if filled == num:
                break
        if filled < num:
            self.images = self.images[:filled].clone()
        self.ages = torch.full((filled,), OLD)

    def draw(self, num: int, renewal: float, propose: Callable[[int], Tensor], device: torch.device) -> Drawn:
        """Take `num` chains, or all there are, in places that are all different.

        Args:
            num: How many.
            renewal: Probability that a chain begins anew, at age 0.
            propose: From a number to as many images `(n, c, h, w)` to begin with.
            device: Where the images go.
        """
        slot = torch.randperm(len(self))[:num]
        age = self.ages[slot]
        renewed = (torch.rand(len(slot)) < renewal).nonzero().squeeze(1)
        age[renewed] = 0
        image = self.images[slot].to(device, torch.float32)
        if len(renewed):
            image[renewed.to(device)] = propose(len(renewed))
        return Drawn(slot, image, age)

    def write(self, drawn: Drawn, image: Tensor) -> None:
        """Put chains back where they were drawn from, one visit older."""
        self.images[drawn.slot] = image.detach().to("cpu", self.dtype)
        self.ages[drawn.slot] = drawn.age + 1

    def oldest(self, num: int) -> Tensor:
        """The images of the chains of most visits, at most so many, float32."""
        return self.images[self.ages.argsort(descending=True, stable=True)[:num]].float()

    def get_extra_state(self) -> dict[str, Any]:
        """Images and ages, as part of `state_dict`."""
        return {"images": self.images, "ages": self.ages}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with copies of them."""
        self.images, self.ages = state["images"].to(self.dtype, copy=True), state["ages"].clone()
