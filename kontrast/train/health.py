"""Is it learning? Watches every run for losses that are no numbers and for embeddings that collapse."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from kontrast import measures
from kontrast.errors import TrainingStopped
from kontrast.methods.base import Method

OnCollapse = Literal["warn", "stop"]
log = logging.getLogger("kontrast")

LEAST_SPREAD = 0.02
"""Embeddings spread less than this are one point for all purposes; healthy runs stay above 0.2."""
PATIENCE = 5
"""Steps in a row with too little spread before the alarm."""
GRACE = 1000
"""Steps in which a method that begins narrow may spread its embeddings out for the first time."""
LEAST_RANK = 1.5
"""Representations with a lower effective rank lie on one line; healthy runs use ten and more directions."""


class Health:
    """The watch over one run. Each alarm is given once."""

    def __init__(self, images: Tensor, *, on_collapse: OnCollapse = "warn", begins_narrow: bool = False) -> None:
        """Watch a run.

        Args:
            images: `(n, c, h, w)`, a fixed sample of the training images whose representations are measured.
            on_collapse: `warn` logs one sentence, `stop` ends the run with it.
            begins_narrow: As in `Method`.
        """
        self.images = images
        self.on_collapse = on_collapse
        self.low_steps = 0
        self.has_been_wide = not begins_narrow
        self.alarmed = False
        self.heard: set[str] = set()

    def step(self, step: int, loss: float, spread: float, remedy: str) -> None:
        """Look at one training step; `remedy` is what to do if its loss is no number.

        Raises:
            TrainingStopped: The loss is not a finite number, or the embeddings collapsed and the run is to stop.
        """
        if not math.isfinite(loss):
            raise TrainingStopped(f"the loss must be a finite number, but was {loss} at step {step}; {remedy}")
        is_low = spread < LEAST_SPREAD
        self.has_been_wide |= not is_low
        self.low_steps = self.low_steps + 1 if is_low and (self.has_been_wide or step >= GRACE) else 0
        if self.low_steps >= PATIENCE:
            self._alarm(f"different images get nearly the same embedding (spread {spread:.3f}, healthy above 0.2)")

    def hear(self, concern: str | None) -> None:
        """Pass on what a method says of itself, once a sentence."""
        if concern is not None and concern not in self.heard:
            log.warning("%s", concern)
            self.heard.add(concern)

    @torch.no_grad()
    def look(self, method: Method) -> dict[str, float]:
        """Measure the representations of the fixed sample and of two views of it, without touching the run's draws.

        Raises:
            TrainingStopped: A representation is not finite, or all lie on one line and the run is to stop.
        """
        generator = torch.Generator(self.images.device).manual_seed(0)
        was_training = method.training
        method.eval()
        a, b = (method.encoder(method.augment(self.images, generator)).float() for _ in range(2))
        method.train(was_training)
        if not a.isfinite().all():
            raise TrainingStopped(
                "representations must be finite numbers, but the last epoch made some NaN or infinite; "
                "go on from the last checkpoint with a lower --lr, or --precision float32"
            )
        found = {
            "representation_spread": measures.spread(a),
            "effective_rank": measures.effective_rank(a),
            "alignment": measures.alignment(a, b),
            "uniformity": measures.uniformity(a),
        }
        numbers = {name: float(value) for name, value in found.items()}
        if numbers["effective_rank"] < LEAST_RANK and method.fills_space:
            self._alarm(f"representations use {numbers['effective_rank']:.1f} directions of {a.shape[1]}")
        return numbers

    def _alarm(self, what: str) -> None:
        sentence = (
            f"this run looks collapsed: {what}; a lower --lr, a larger --batch-size or another method usually helps"
        )
        if self.on_collapse == "stop":
            raise TrainingStopped(sentence)
        if not self.alarmed:
            log.warning(sentence)
        self.alarmed = True


def sentence(row: Mapping[str, float]) -> str:
    """What a row of metrics says of a run, in words."""
    low_rank = row.get("effective_rank", math.inf) < LEAST_RANK
    if row["spread"] < LEAST_SPREAD or low_rank:
        return "looks collapsed"
    return "healthy, embeddings are spread out"
