"""What a method is: a module that maps a batch to an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.nn.encoders import Encoder


class Objective(NamedTuple):
    """What a method makes of a batch."""

    loss: Tensor
    """Scalar to be minimised."""
    metrics: dict[str, Tensor]
    """Detached scalars worth watching; `spread` of the embeddings is what the collapse alarm reads."""


def each_alone(network: nn.Module, views: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What a network makes of each of two views `(n, ...)` as if each had passed alone; in one call where it can.

    It cannot where batch norm is: one call would normalise each view by the statistics of both, which the authors'
    codes of BYOL and SimSiam do not do. Layers with batch statistics are known by their running variance.
    """
    if any(hasattr(layer, "running_var") for layer in network.modules()):
        first, second = views
        return network(first), network(second)
    first, second = network(torch.cat(views)).chunk(2)
    return first, second


class Method(nn.Module, ABC):
    """An encoder, an augmentation and whatever else it takes to learn.

    A subclass implements `forward`, and declares a frozen dataclass `Config` whose defaults build it.
    """

    fills_space: ClassVar[bool] = True
    """Whether healthy representations use many directions; those that tell few classes apart need not."""
    begins_narrow: ClassVar[bool] = False
    """Whether embeddings begin almost as one point, as those of networks without norms do, and spread out later."""
    prefers_batch_norm: ClassVar[bool] = False
    """Whether it is known to learn less with group norm in its encoder."""
    reads_texts: ClassVar[bool] = False
    """Whether it learns from a text of each image; such a method takes a tower `text`."""
    without_labels: ClassVar[str] = ""
    """How a method that reads labels can do without, for the error where there are none."""
    optimiser: ClassVar[Literal["sgd", "adamw"]] = "sgd"
    """What it is trained by unless something else is asked for, as are the two below."""
    lr: ClassVar[float] = 0.06
    """For a batch of 256."""
    weight_decay: ClassVar[float] = 5e-4
    labelled_share: float = 0.0
    """Least share of labelled images that each batch should have."""
    Config: ClassVar[type[Any]]
    """Frozen dataclass of the method's own settings."""
    encoder: Encoder
    augment: Policy

    def __init__(self, encoder: Encoder, augment: Policy) -> None:
        super().__init__()
        self.encoder, self.augment = encoder, augment

    @abstractmethod
    def forward(self, batch: Batch) -> Objective:
        """The objective of one batch."""

    @classmethod
    def reads_labels(cls, config: Any = None) -> bool:
        """Whether labels shape the encoder; such a method takes `num_classes` and is trained anew for each label draw.

        Args:
            config: The method's settings; None for the defaults.
        """
        return False

    @classmethod
    def refuses_batch_norm(cls, config: Any = None) -> bool:
        """Whether its encoder must have no batch norm.

        Args:
            config: The method's settings; None for the defaults.
        """
        return False

    def views(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two independent views of each image, `(n, c, size, size)` each."""
        return self.augment(image), self.augment(image)

    def begin(self, batches: Iterable[Batch], num_images: int) -> None:  # a hook: most methods have nothing to do
        """Called once before the first step of a new run, with an epoch of batches as training will see them.

        Args:
            batches: Of training images.
            num_images: In all of them.
        """

    def after_step(self, progress: float) -> None:  # a hook: most methods have nothing to do
        """Called after each optimiser step with the share of training done, in 0..1."""

    def concern(self, rows: Sequence[Mapping[str, float]]) -> str | None:
        """One sentence if the method's own part of the training goes wrong, and what to change.

        Args:
            rows: Metrics of the epochs so far, the last one just done.
        """
        return None

    def remedy(self, metrics: Mapping[str, float]) -> str:
        """What to do where the loss is no number, as the end of a sentence.

        Args:
            metrics: Those of the step before; empty where there was none.
        """
        return "go on from the last checkpoint with a lower --lr, or --precision float32"

    def made(self) -> Tensor | None:
        """Images that the method itself has made, for a picture of them: `(n, c, h, w)` in 0..1; None for none."""
        return None

    def leave(self, out: Path, batches: Iterable[Batch]) -> None:  # a hook
        """Called after the last step, in evaluation mode, to write what a run keeps beside its encoder.

        Args:
            out: Folder of the run.
            batches: Training images.
        """

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """What the optimiser trains; a group with `constant_lr` keeps its rate while the others follow the schedule."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]
