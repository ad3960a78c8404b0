"""`--towers open_clip:NAME`: both towers of a CLIP in place of an encoder and a text tower of one's own."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from kontrast.commands.assemble import EncoderOptions, named
from kontrast.commands.lineage import check_leaks
from kontrast.commands.texts import OWN, TextOptions
from kontrast.data import ImageSet
from kontrast.errors import InputError
from kontrast.methods import METHODS
from kontrast.methods.clip import CLIP, COLDEST, WARMEST
from kontrast.nn.open_clip import PREFIX, image_size, is_open_clip
from kontrast.nn.towers import Towers, open_clip_towers

log = logging.getLogger("kontrast")

_SETTLED = ("encoder", "encoder_options", "stem", "norm", "text_tower")
"""Options that say what such towers say themselves."""


def check_towers(images: EncoderOptions, texts: TextOptions, method: str) -> None:
    """Refuse towers that contradict other options.

    Raises:
        InputError: There are no such towers, the method has only one, or other options ask for another encoder or
            text tower.
    """
    if not is_open_clip(texts.towers):
        raise InputError(
            f"--towers is {OWN} or open_clip:NAME, such as open_clip:ViT-B-32; got {texts.towers}, so name one of these"
        )
    if not METHODS[named(method, METHODS, "method")].reads_texts:
        raise InputError(
            f"towers are of images and of texts, and {method} reads no texts; --towers is {texts.towers}, so use "
            f"--encoder {texts.towers}"
        )
    own = vars(EncoderOptions()) | vars(TextOptions()) | {"towers": texts.towers}
    given = vars(images) | vars(texts)
    for name in _SETTLED:
        if given[name] not in (own[name], texts.towers):
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{texts.towers} settles both towers, and {flag} asks for another part; it is {given[name]}, so leave "
                "one of the two out"
            )


def build_towers(images: EncoderOptions, texts: TextOptions, train: ImageSet, size: int | None, *, seed: int) -> Towers:
    """The towers for images of that size, by default their own, and of the channels of the training images.

    Raises:
        InputError: Their weights cannot be had, are others', or may have learned from the data.
    """
    check_leaks(images.init, train.name)
    torch.manual_seed(seed)
    name = texts.towers.removeprefix(PREFIX)
    size = size or image_size(name)
    if size > train.size:
        log.info("images of %d px are enlarged to the %d px of %s", train.size, size, texts.towers)
    return open_clip_towers(name, weights=images.init, channels=train.channels, size=size, context=texts.context)


def as_towers_begin(config: CLIP.Config, towers: Towers) -> CLIP.Config:
    """The settings of the method with the projections and, unless another is asked for, the temperature of the towers.

    Raises:
        InputError: Another width than the towers' is asked for.
    """
    if config.width not in (0, CLIP.Config.width):
        raise InputError(
            f"towers of open_clip share a space of their own, {towers.encoder.width} wide; --width is {config.width}, "
            "so leave it out"
        )
    if config.temperature != CLIP.Config.temperature:
        return replace(config, width=0)
    begun = min(max(towers.temperature.item(), COLDEST), WARMEST)
    return replace(config, width=0, temperature=float(f"{begun:.7g}"))
