"""EfficientNet-Lite as others' PyTorch has it: TensorFlow's weights under the names of `efficientnet_pytorch`.

The architecture, and the mean and deviation of its images, are those of the TensorFlow release (Tan & Le,
*EfficientNet*, ICML 2019; its Lite variants, 2020): images of 0..255 less 127, by 128.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from kontrast.errors import InputError

MEAN, STD = (127 / 255,), (128 / 255,)
"""Of images in 0..1; every channel alike."""

_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def is_lite(names: Iterable[str]) -> bool:
    """Whether these are the names of an EfficientNet-Lite: those of `efficientnet_pytorch`, without squeezing."""
    names = set(names)
    return "_conv_stem.weight" in names and not any("._se_" in name for name in names)


def renamed(net: Any, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of such a file under timm's names; those that have none keep their own.

    Args:
        net: timm's network of the same architecture.
        found: The tensors of the file, convolutions `(out, in, height, width)`.

    Raises:
        InputError: The network is of another architecture; a near one would take the weights and compute otherwise.
    """
    architecture = str(getattr(net, "pretrained_cfg", {}).get("architecture", type(net).__name__))
    if not architecture.startswith("tf_efficientnet_lite"):
        raise InputError(
            f"weights of EfficientNet-Lite belong to tf_efficientnet_lite0 to lite4, which pad as TensorFlow does; got "
            f"{architecture}, so name theirs with --encoder"
        )
    layers = _layers(net)
    split = ((name.rpartition("."), tensor) for name, tensor in found.items())
    return {f"{layers.get(layer, layer)}{dot}{leaf}": tensor for (layer, dot, leaf), tensor in split}


def _layers(net: Any) -> dict[str, str]:
    """For every layer of the file its name in timm, where blocks are counted within their stage."""
    layers = dict(_AROUND)
    blocks = [(f"blocks.{i}.{j}", block) for i, stage in enumerate(net.blocks) for j, block in enumerate(stage)]
    for number, (ours, block) in enumerate(blocks):
        within = _INVERTED if hasattr(block, "conv_pwl") else _SEPARABLE
        layers |= {f"_blocks.{number}.{theirs}": f"{ours}.{name}" for theirs, name in within.items()}
    return layers
