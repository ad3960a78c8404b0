"""Norm surgery: from group norm to batch norm and back, in a network that may have learned already, or out of it.

Source: Lu, Jha & Huo, *Contrastive Learning Meets Transfer Learning: A Case Study In Medical Image Analysis*, arXiv
2103.03166, 2021, who find that SimSiam starts from BiT only if BiT's group norm gives way to fresh batch norm; and for
networks without norms Kim & Ye, *Energy-Based Contrastive Learning of Visual Representations*, NeurIPS 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kontrast.errors import InputError

Norm = Literal["batch", "group", "sync", "none"]
Affine = Literal["reset", "keep", "recalibrate"]
GROUPS = 32
"""Of a group norm that replaces batch norm; of fewer channels or others, their greatest common divisor."""
LEAK = 0.2
"""Slope below 0 of the activations of a network without norms; that of the authors' code of EBCLR."""
ACTIVATIONS = (
    "CELU", "ELU", "GELU", "GELUTanh", "HardMish", "Hardswish", "LeakyReLU", "Mish", "QuickGELU", "ReLU", "ReLU6",
    "SELU", "SiLU",
)  # fmt: skip
"""Classes of torch and timm that leaky rectifiers stand in for; gates such as sigmoids are none of them."""


def kind(net: nn.Module) -> Literal["batch", "group"] | None:
    """Which norm most of the layers have that can be converted; None where there are none."""
    counts = {"batch": 0, "group": 0}
    for _, layer in _layers(net):
        counts["group" if isinstance(layer, nn.GroupNorm) else "batch"] += 1
    if not any(counts.values()):
        return None
    return "batch" if counts["batch"] >= counts["group"] else "group"


def has_batch_norm(net: nn.Module) -> bool:
    """Whether any layer normalises by the statistics of a batch."""
    return any(isinstance(layer, _BatchNorm) for layer in net.modules())


def convert_norm(net: nn.Module, to: Norm, *, affine: Affine = "reset", images: Iterable[Tensor] | None = None) -> None:
    """Give a network another norm, in place; convolutions, weight standardisation and activations stay as they are.

    Layers that have it already stay as well, and so do layer norms, which belong to their architectures.

    Args:
        net: A timm network.
        to: `batch`, `group` (of 32 groups where the channels allow), `sync`, batch norm over all processes, or `none`,
            which takes them out: see `remove_norm`.
        affine: `reset` begins every converted layer afresh (1, 0, and running statistics 0, 1), as the authors do;
            `keep` takes over scale and shift; `recalibrate` does so too, and then lets `images` pass to set the running
            statistics to the mean over batches.
        images: Batches as the network takes them, for `recalibrate`; more than once if there are several.

    Raises:
        InputError: The network has no layer that can be converted.
        ValueError: `recalibrate` without images.
    """
    if kind(net) is None:
        raise InputError(
            "batch and group norms can be exchanged; this encoder has neither, so leave --norm out or name another"
        )
    if to == "none":
        remove_norm(net)
        return
    wanted = nn.GroupNorm if to == "group" else _BatchNorm
    converted = []
    for name, old in list(_layers(net)):
        if isinstance(old, wanted):
            continue
        new = _group_norm(old) if to == "group" else _batch_norm(old)
        if affine != "reset" and old.weight is not None and new.weight is not None:
            new.weight.data.copy_(old.weight.data)
            new.bias.data.copy_(old.bias.data)
        parent, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, new.to(old.weight).train(old.training))
        converted.append(new)
    if affine == "recalibrate" and to != "group":
        if images is None:
            raise ValueError("running statistics are those of images, so recalibrate needs some")
        recalibrate(net, converted, images)
    if to == "sync":
        _synchronise(net)


def remove_norm(net: nn.Module) -> None:
    """Take batch and group norms out of a network, in place, and begin it afresh; layer norms stay.

    Activations become leaky rectifiers and convolutions get a bias, as in the authors' code of EBCLR. Weights are drawn
    anew by torch's defaults: those of timm are scaled for norms, and grow through residual blocks that have none.
    Weight-standardised convolutions become plain ones for the same reason.

    Raises:
        InputError: The standardised convolutions are of the kind that pads as TensorFlow does.
    """
    if any(type(layer).__name__ == "StdConv2dSame" for layer in net.modules()):
        raise InputError(
            "without norms, plain convolutions take the place of weight-standardised ones; this encoder has some that "
            "pad as TensorFlow does, for which there are none, so name another encoder"
        )
    layers: list[tuple[str, Any]] = list(net.named_modules(remove_duplicate=False))
    for name, old in reversed(layers):
        parent, _, leaf = name.rpartition(".")
        if type(old).__name__ in ACTIVATIONS:
            setattr(net.get_submodule(parent), leaf, nn.LeakyReLU(LEAK))
        elif isinstance(old, nn.GroupNorm | nn.BatchNorm2d | nn.SyncBatchNorm):
            parts = [
                getattr(old, part) for part in ("drop", "act") if hasattr(old, part)
            ]  # what timm fuses into a norm
            setattr(net.get_submodule(parent), leaf, nn.Sequential(*parts) if parts else nn.Identity())
        elif type(old).__name__ == "StdConv2d":
            old.__class__ = nn.Conv2d
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_empty(layer.out_channels))
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()


@torch.no_grad()
def recalibrate(net: nn.Module, layers: Iterable[nn.Module], images: Iterable[Tensor]) -> None:
    """Set the running statistics of some batch norms to the mean over batches, while all other layers predict."""
    norms = [layer for layer in layers if isinstance(layer, _BatchNorm)]
    was_training, momenta = net.training, [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # which makes torch average over all batches alike
        norm.train()
    for batch in images:
        net(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.train(was_training)


def rebuild_lines(to: Norm) -> list[str]:
    """Lines of Python that convert the norms of a timm network `net` afresh, with timm and torch alone."""
    if to == "none":
        return [
            "for name, old in reversed(list(net.named_modules(remove_duplicate=False))):",
            "    (parent, _, leaf), new, kind = name.rpartition('.'), old, type(old).__name__",
            f"    if kind in {ACTIVATIONS}:",
            f"        new = torch.nn.LeakyReLU({LEAK})",
            "    elif isinstance(old, (torch.nn.GroupNorm, torch.nn.BatchNorm2d)):",
            "        new = torch.nn.Sequential(old.drop, old.act) if hasattr(old, 'act') else torch.nn.Identity()",
            "    elif isinstance(old, torch.nn.Conv2d):",
            "        old.__class__ = torch.nn.Conv2d if kind == 'StdConv2d' else type(old)",
            "        old.bias = torch.nn.Parameter(torch.zeros(old.out_channels))",
            "    setattr(net.get_submodule(parent), leaf, new) if name else None",
        ]
    if to == "group":
        made = [
            "from math import gcd",
            "from timm.layers import GroupNormAct as Fused",
            "old_kind, channels, Plain = torch.nn.BatchNorm2d, 'num_features', "
            f"lambda n, **k: torch.nn.GroupNorm(gcd({GROUPS}, n), n, **k)",
            f"fused = lambda n, **k: Fused(n, num_groups=gcd({GROUPS}, n), **k)",
        ]
    else:
        made = [
            "from timm.layers import BatchNormAct2d as fused",
            "old_kind, channels, Plain = torch.nn.GroupNorm, 'num_channels', torch.nn.BatchNorm2d",
        ]
    return [
        *made,
        "for name, old in list(net.named_modules()):",
        "    if isinstance(old, old_kind):",
        "        new = (fused if hasattr(old, 'act') else Plain)(getattr(old, channels), eps=old.eps)",
        "        if hasattr(old, 'act'):",
        "            new.act, new.drop = old.act, old.drop",
        "        parent, _, leaf = name.rpartition('.')",
        "        setattr(net.get_submodule(parent), leaf, new)",
    ]


def _layers(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every batch and group norm, by name."""
    for name, layer in net.named_modules():
        if isinstance(layer, nn.GroupNorm | nn.BatchNorm2d | nn.SyncBatchNorm):
            yield name, layer


def _batch_norm(old: Any) -> Any:
    """Batch norm for as many channels as a group norm has, with the activation that is fused into it, if any."""
    from timm.layers import BatchNormAct2d

    if not hasattr(old, "act"):
        return nn.BatchNorm2d(old.num_channels, eps=old.eps, affine=old.affine)
    return _fused(BatchNormAct2d(old.num_channels, eps=old.eps, affine=old.affine), old)


def _group_norm(old: Any) -> Any:
    """Group norm for as many channels as a batch norm has, likewise."""
    from timm.layers import GroupNormAct

    groups = math.gcd(GROUPS, old.num_features)
    if not hasattr(old, "act"):
        return nn.GroupNorm(groups, old.num_features, eps=old.eps, affine=old.affine)
    return _fused(GroupNormAct(old.num_features, num_groups=groups, eps=old.eps, affine=old.affine), old)


def _fused(new: Any, old: Any) -> Any:
    new.act, new.drop = old.act, old.drop
    return new


def _synchronise(net: nn.Module) -> None:
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(net)
