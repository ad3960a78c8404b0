"""Learned views: the augmentation is optimised with the encoder, by what a few labels and the contrast say of it.

After Ruppli, Gori, Ardon & Bloch, *Optimizing Transformations for Contrastive Learning in a Differentiable Framework*,
MILLanD at MICCAI 2022. Its losses and schedule were not to be had: what is built here is a reconstruction that serves
its claims, and no default is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from kontrast import gradient, losses, measures
from kontrast.augment.learned import LearnedPolicy, Producer
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.distributed import gather
from kontrast.errors import InputError
from kontrast.methods.base import Method, Objective
from kontrast.nn.encoders import Encoder
from kontrast.nn.heads import mlp

Mode = Literal["semi", "adversarial", "supervised", "cooperative"]
FEWEST_LABELLED = 2
"""Labelled images of a batch below which they have no batch statistics, and so no say."""
SIGNS: dict[str, int] = {"semi": -1, "adversarial": -1, "supervised": 0, "cooperative": 1}
"""What the policy makes of the contrast: harder, nothing, easier."""
NETWORK_RATE = 0.03
"""Learning rate of the policy's network over that of its global strengths: each of many weights moves them all."""
CERTAIN = 1e-6
"""Distance of a probability from 0 or 1 at which its entropy no longer pulls it back."""
NEAR = 0.02
"""Share of the way from an end, nothing or the bound, at which a strength counts as having arrived there."""


class LearnedViews(Method):
    """SimCLR whose augmentation learns at the same time; encoder and projection see the contrast alone.

    The policy minimises `labels * L_sup + contrast * L_nce`, with signs by `mode`, where `L_sup` is the cross-entropy
    of a linear classifier on the representations of the labelled views. One loss and one backward pass give encoder,
    projection, classifier and policy each the gradient of its own objective: the contrast reaches the views with its
    gradient scaled, and the labels pass a detached encoder.
    """

    without_labels: ClassVar[str] = "add --mode adversarial, which reads none"
    augment: LearnedPolicy

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of learned views; none is known from the paper."""

        mode: Mode = "semi"
        """What the policy makes easier for labels and harder for the contrast: `semi` both, `adversarial` only the
        second and reads no labels, `supervised` only the first; `cooperative` makes both easier."""
        temperature: float = 0.2
        """Divides the cosine similarities; SimCLR's default here."""
        width: int = 128
        """Width of the embedding."""
        contrast_weight: float = 0.1
        """Of the contrast in what the policy minimises, without its sign."""
        entropy_weight: float = 0.01
        """Of the mean entropy of the probabilities, which keeps them from 0 and 1."""
        width_weight: float = 0.0
        """Of the mean logarithm of the strengths, which keeps them from 0."""
        producer: Producer = "global"
        """`global` learns one strength an operation; `network` lets a small network say it for each image."""
        policy_lr: float = 0.1
        """Learning rate of the policy, whatever the batch; it follows no schedule."""
        start: float = 0.05
        """Share of the training after which the policy begins to learn."""
        freeze: float = 0.6
        """Share of the training after which the policy stays as it is."""
        labelled_share: float = 0.125
        """Least share of labelled images in a batch, as long as there are so many; the rest is drawn as ever."""

    def __init__(
        self, encoder: Encoder, augment: Policy, config: Config | None = None, *, num_classes: int | None = None
    ) -> None:
        """Begin at a hand-made policy; `num_classes` is for modes that read labels.

        Raises:
            InputError: A setting is out of its range, the mode reads labels and there are no classes, or the policy has
                nothing to learn.
        """
        config = config or self.Config()
        _check(config, num_classes)
        super().__init__(encoder, LearnedPolicy(augment, channels=encoder.spec.channels, producer=config.producer))
        self.config = config
        self.project = mlp(encoder.width, encoder.width, config.width)
        self.classify = nn.Linear(encoder.width, num_classes) if num_classes and self.reads_labels(config) else None
        self.labelled_share = config.labelled_share if self.classify else 0.0
        self.contrast = SIGNS[config.mode] * config.contrast_weight
        self.progress = 0.0

    @classmethod
    def reads_labels(cls, config: Any = None) -> bool:
        """All modes but `adversarial`."""
        return (config or cls.Config()).mode != "adversarial"

    def forward(self, batch: Batch) -> Objective:
        """NT-Xent between the projections of two views, the labels of some of them, and the policy's own terms."""
        learning = self.config.start <= self.progress < self.config.freeze
        with torch.set_grad_enabled(learning and torch.is_grad_enabled()):
            views = torch.cat(self.views(batch.image))
        a, b = self.project(self.encoder(gradient.scale_gradient(views, self.contrast))).chunk(2)
        contrast = losses.nt_xent(gather(a), gather(b), temperature=self.config.temperature)
        labels = self._labels(views, batch)
        loss, objective = contrast + labels, labels.detach() + self.contrast * contrast.detach()
        if learning:
            own = self._own_terms()
            loss, objective = loss + own, objective + own.detach()
        metrics = {"spread": measures.spread(a.detach()), "contrast": contrast.detach(), "objective": objective}
        if self.classify is not None:
            metrics["labels"] = labels.detach()
        if self.augment.network is not None:
            metrics["spread_of_strengths"] = self.augment.spread
        return Objective(loss, metrics | {f"policy.{name}": value for name, value in self.augment.shown().items()})

    def _labels(self, views: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of both views of the labelled images; the encoder takes part as it is, and learns nothing."""
        if self.classify is None or batch.label is None:
            return views.new_zeros(())
        is_known = batch.label >= 0 if batch.label.ndim == 1 else ~batch.label.isnan().all(dim=1)
        most = max(FEWEST_LABELLED, round(self.labelled_share * len(batch)))
        rows = is_known.nonzero().squeeze(1)[:most]
        if len(rows) < FEWEST_LABELLED:
            return views.new_zeros(())
        seen = views[torch.cat([rows, rows + len(batch)])]
        representation = gradient.detached_call(self.encoder, seen)
        return losses.classification(self.classify(representation), torch.cat([batch.label[rows]] * 2))

    def _own_terms(self) -> Tensor:
        """What keeps the policy from its ends: entropy of the probabilities, logarithm of the strengths."""
        is_chance = self.augment.is_chance
        chance = self.augment.mean_widths()[is_chance].clamp(CERTAIN, 1 - CERTAIN)
        width = self.augment.position()[~is_chance]
        own = self.augment.raw.sum() * 0
        if len(chance):
            entropy = torch.special.entr(torch.stack([chance, 1 - chance])).sum(dim=0)
            own = own - self.config.entropy_weight * entropy.mean()
        if len(width):
            own = own - self.config.width_weight * width.clamp(min=1e-12).log().mean()
        return own

    def after_step(self, progress: float) -> None:
        """Remember how far the training is, by which the policy begins and ends to learn."""
        self.progress = progress

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The policy has its own constant rate and does not decay; the weights of its network have a smaller one."""
        own = list(self.augment.parameters())
        others = [p for p in self.parameters() if all(p is not mine for mine in own)]
        policy = {"lr": self.config.policy_lr, "constant_lr": True, "weight_decay": 0.0}
        groups = [{"params": others, "lr": lr}, {**policy, "params": [self.augment.raw]}]
        if self.augment.network is not None:
            rate = NETWORK_RATE * self.config.policy_lr
            groups.append({**policy, "params": list(self.augment.network.parameters()), "lr": rate})
        return groups

    def concern(self, rows: Sequence[Mapping[str, float]]) -> str | None:
        """Whether the policy has come to nothing, or to all its bounds while labels got harder to read."""
        position = self.augment.position().detach()
        if bool((self.augment.effects() < NEAR).all()):
            return (
                f"the learned policy hardly changes an image any more ({', '.join(self.augment.names)} are near 0); "
                "a higher --contrast-weight or --width-weight, or --mode semi, keeps it from that"
            )
        widths = position[~self.augment.is_chance]
        if len(widths) and bool((widths > 1 - NEAR).all()) and _has_risen([r["labels"] for r in rows if "labels" in r]):
            return (
                "every strength of the learned policy is at its bound while labels have become harder to read; "
                "a lower --contrast-weight or --policy-lr, or a policy that begins weaker, keeps it from that"
            )
        return None

    def get_extra_state(self) -> dict[str, float]:
        """How far the training is, as part of `state_dict`."""
        return {"progress": self.progress}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Go on from there."""
        self.progress = state["progress"]


def _has_risen(values: list[float]) -> bool:
    """Whether the last is above the least, by more than a tenth."""
    return len(values) > 1 and values[-1] > 1.1 * min(values)


def _check(config: LearnedViews.Config, num_classes: int | None) -> None:
    rules = {
        "temperature must be above 0": config.temperature > 0,
        "contrast_weight must be 0 or more": config.contrast_weight >= 0,
        "entropy_weight must be 0 or more": config.entropy_weight >= 0,
        "width_weight must be 0 or more": config.width_weight >= 0,
        "policy_lr must be above 0": config.policy_lr > 0,
        "start is a share of the training, at least 0 and below freeze": 0 <= config.start < config.freeze,
        "freeze is a share of the training, at most 1": config.freeze <= 1,
        "labelled_share is above 0 and at most 1": 0 < config.labelled_share <= 1,
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(f"{rule}; got {getattr(config, rule.split()[0])}, so leave it out or change it")
    for name, known in (("mode", tuple(SIGNS)), ("producer", get_args(Producer))):
        if getattr(config, name) not in known:
            raise InputError(f"{name} is one of {', '.join(known)}; got {getattr(config, name)!r}, so choose one")
    if not num_classes and LearnedViews.reads_labels(config):
        raise InputError(
            f"mode {config.mode} learns from labels, so it needs their classes; got num_classes {num_classes}, so give "
            "their number, or choose mode adversarial"
        )
