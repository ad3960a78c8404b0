"""MoCo v2: Chen et al., *Improved Baselines with Momentum Contrastive Learning*, arXiv 2003.04297, 2020."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kontrast import gradient, losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.distributed import gather
from kontrast.methods.base import Method, Objective
from kontrast.nn.encoders import Encoder
from kontrast.nn.heads import mlp


class MoCo(Method):
    """A student looks up its image among old keys of a slowly moving teacher (He et al., 2020, algorithm 1).

    The original shuffles images between devices so that batch statistics cannot betray the positive; on one device
    there is nothing to shuffle with. New keys join the queue in `after_step`, which a loop must call after each step.
    """

    queue: Tensor
    filled: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of MoCo v2."""

        temperature: float = 0.2
        """Divides the cosine similarities; that of v2."""
        width: int = 128
        """Width of the embedding; the paper's."""
        queue_size: int = 4096
        """Old keys kept as negatives; the paper has 65,536 for 1.3 million images."""
        momentum: float = 0.99
        """Of the teacher; the paper has 0.999 for runs of a million steps."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None) -> None:
        super().__init__(encoder, augment)
        config = config or self.Config()
        self.temperature, self.momentum = config.temperature, config.momentum
        self.project = mlp(encoder.width, encoder.width, config.width, batch_norm=False)
        self.teacher_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.teacher_project = deepcopy(self.project).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(config.queue_size, config.width), dim=1))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.waiting: list[Tensor] = []

    def forward(self, batch: Batch) -> Objective:
        """InfoNCE of each query against its own key and the queue; the keys wait to join the queue."""
        view, other = self.views(batch.image)
        query = self.project(self.encoder(view))
        with torch.no_grad():
            key = self.teacher_project(self.teacher_encoder(other))
        loss = losses.queue_info_nce(query, key, self.queue, temperature=self.temperature)
        if self.training:
            self.waiting.append(F.normalize(gather(key).float(), dim=1))
        return Objective(loss, {"spread": measures.spread(query.detach())})

    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student; then the new keys join the queue, which no gradient needs any more."""
        gradient.move_average(self.teacher_encoder, self.encoder, self.momentum)
        gradient.move_average(self.teacher_project, self.project, self.momentum)
        for key in self.waiting:
            self._enqueue(key)
        self.waiting.clear()

    def _enqueue(self, key: Tensor) -> None:
        """Overwrite the oldest keys."""
        key = key[-len(self.queue) :]
        rows = (self.filled + torch.arange(len(key), device=key.device)) % len(self.queue)
        self.queue[rows] = key
        self.filled += len(key)
