"""Models of open_clip as encoders and text towers (package `open_clip_torch`, the extra `clip`).

What is built is open_clip's own: networks, projections and temperature, so that its weights go in and come out as they
are. Texts become tokens by the package `tokenizers` with CLIP's subwords. They are open_clip's tokens, but for a text
that spells "<start_of_text>" or "<end_of_text>", which open_clip takes for the mark itself, and for characters that
one package counts among the letters and the other, of an older Unicode, does not know.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.errors import InputError
from kontrast.nn.import_timm import import_open_clip
from kontrast.nn.tokenizer import Tokenizer, Tokens, check_context, import_tokenizers

PREFIX = "open_clip:"
"""Begins the name of a model of open_clip wherever a name may be another's."""
VOCABULARY = 49408
"""Tokens of CLIP, start and end included, which are the last two."""
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Of files of weights."""
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
"""What subwords never cross: words, single digits, and runs of other characters. A subscript iota alone is none
of them, as in open_clip's own expression, which ignores case."""
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
_NO_IMAGE = {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1}
"""The least that open_clip builds beside the tower that is wanted."""


class Model(NamedTuple):
    """A model of open_clip in its parts."""

    image: nn.Module
    """Normalised images `(n, 3, size, size)` to embeddings `(n, width)`."""
    text: OpenClipText
    mean: tuple[float, ...]
    """Subtracted from images in 0..1."""
    std: tuple[float, ...]
    temperature: float
    """Divides cosines."""


@dataclass(frozen=True, kw_only=True)
class OpenClipSpec:
    """What it takes to build a text tower of open_clip again."""

    name: str
    """open_clip's name of the model."""
    context: int
    """Positions of tokens that the network has."""


class OpenClipText(nn.Module):
    """Tokens to embeddings in the space of the images: open_clip's network and projection."""

    kind = "open_clip"
    """What a run's `towers.json` calls it."""

    def __init__(self, spec: OpenClipSpec, net: nn.Module | None = None) -> None:
        """Take the network over, or begin one at random."""
        super().__init__()
        self.spec, self.width = spec, int(known(spec.name)["embed_dim"])
        self.net = net or _create(spec.name, context=spec.context, vision_cfg=_NO_IMAGE).text

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of `n` texts to embeddings `(n, width)`."""
        whole = F.pad(tokens.ids, (0, self.spec.context - tokens.ids.shape[1]))  # open_clip's masks have that length
        embedding: Tensor = self.net(whole)
        return embedding


def is_open_clip(name: str) -> bool:
    """Whether an encoder's name is that of a model of open_clip."""
    return name.startswith(PREFIX)


def known(name: str) -> dict[str, Any]:
    """What open_clip knows of the model of that name: its sizes.

    Raises:
        InputError: There is none, near names are given; or its texts are not read as CLIP's are; or open_clip is not
            installed.
    """
    open_clip = import_open_clip()
    config: dict[str, Any] | None = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=4, cutoff=0.4)
        raise InputError(
            f"open_clip:NAME is a model that open_clip lists; {name!r} is none, near names: {', '.join(near)}"
        )
    text = config["text_cfg"]
    foreign = [key for key in ("hf_model_name", "hf_tokenizer_name", "tokenizer_kwargs") if text.get(key)]
    foreign += [key for key in ("multimodal_cfg", "init_logit_bias") if config.get(key) is not None]
    if foreign or text.get("vocab_size", VOCABULARY) != VOCABULARY:
        raise InputError(
            f"open_clip's models with CLIP's own texts ({VOCABULARY} subwords) and contrast can be taken; {name} has "
            f"{', '.join(foreign) or 'another vocabulary'}, so name another, such as ViT-B-32, RN50 or EVA02-B-16"
        )
    return config


def image_size(name: str) -> int:
    """Side of the images that the model of that name was made for, in pixels."""
    found = known(name)["vision_cfg"].get("image_size", 224)
    return int(found if isinstance(found, int) else found[0])


def check_channels(channels: int) -> None:
    """Refuse images that no model can see.

    Raises:
        InputError: They have neither 1 channel nor 3.
    """
    if channels not in (1, 3):
        raise InputError(f"open_clip's models see 1 or 3 channels; these images have {channels}, so give --channels 3")


def image_network(name: str, *, size: int) -> nn.Module:
    """The image tower of random weights, projection included: `(n, 3, size, size)` to `(n, width)`.

    Raises:
        InputError: No such model, or none for images of that size.
    """
    return _as_encoder(_create(name, size=size, text_cfg=_NO_TEXT).visual, name)


def load_model(name: str, *, weights: str = "none", size: int | None = None, context: int | None = None) -> Model:
    """Both towers.

    Args:
        name: open_clip's name of the model.
        weights: `none` for random ones, a file in the layout of open_clip, or a tag, by which the hub is asked.
        size: Side of the images; positions of a vision transformer's weights are interpolated to it.
        context: Most tokens of a text. Weights keep the positions of their own context where it is longer, which are
            interpolated where it is shorter.

    Raises:
        InputError: No such model or tag; the hub cannot be reached; or the weights are of another model or damaged.
    """
    own = known(name)["text_cfg"].get("context_length", 77)
    context = max(context or own, own) if weights != "none" else context or own
    model = _create(name, size=size, context=context, pretrained=_weights(name, weights))
    mean, std = _statistics(name, weights)
    text = OpenClipText(OpenClipSpec(name=name, context=context), model.text)
    return Model(_as_encoder(model.visual, name), text, mean, std, math.exp(-model.logit_scale.item()))


def clip_tokenizer(*, context: int) -> Tokenizer:
    """CLIP's tokens, of the vocabulary that open_clip brings.

    Raises:
        InputError: The context has no room for a text; or open_clip or `tokenizers` is not installed.
    """
    check_context(context)
    own, parts = import_open_clip().SimpleTokenizer(), import_tokenizers()
    start, end = own.sot_token_id, own.eot_token_id
    vocabulary = {word: number for word, number in own.encoder.items() if number not in (start, end)}
    model = parts.models.BPE(vocab=vocabulary, merges=list(own.bpe_ranks), end_of_word_suffix="</w>")
    subwords, before = parts.Tokenizer(model), parts.pre_tokenizers
    words = before.Split(parts.Regex(_WORDS), behavior="removed", invert=True)
    subwords.pre_tokenizer = before.Sequence([words, before.ByteLevel(add_prefix_space=False, use_regex=False)])
    return Tokenizer(subwords, start=start, end=end, context=context, clean="clip")


def rebuild_line(name: str, size: int) -> str:
    """A line of Python that builds the image tower with open_clip alone."""
    forced = "" if size == image_size(name) else f", force_image_size={size}"
    return f"net = open_clip.create_model({name!r}{forced}).visual"


def _create(name: str, *, size: int | None = None, context: int | None = None, **told: Any) -> Any:
    """A model whose texts have a tower of their own, as `told` besides.

    Raises:
        InputError: As in `load_model`.
    """
    open_clip = import_open_clip()
    size = size or image_size(name)
    _check_size(name, size)
    forced = {} if size == image_size(name) else {"force_image_size": size}
    if context is not None:
        forced["force_context_length"] = context
    try:
        with _silent():
            return open_clip.create_model(name, force_custom_text=True, pretrained_text=False, **forced, **told)
    except Exception as error:  # of a damaged file torch's reader raises anything, and a hub's client no less
        weights, said = told.get("pretrained"), " ".join(str(error).split())[:160]
        way_out = "give --init a whole file of its weights, or none" if weights else "name another model or --size"
        raise InputError(
            f"open_clip could not build {name} for {size} px with {weights or 'fresh weights'} "
            f"({type(error).__name__}: {said}), so {way_out}"
        ) from error


def _check_size(name: str, size: int) -> None:
    vision = known(name)["vision_cfg"]
    is_resnet = isinstance(vision.get("layers"), list)
    step = 1 if "timm_model_name" in vision else 32 if is_resnet else vision.get("patch_size", 16)
    if size % step:
        raise InputError(f"{name} takes images of a multiple of {step} px; got {size}, so use {image_size(name)} px")


def _weights(name: str, weights: str) -> str | None:
    """What open_clip takes for the weights: None for fresh ones, a path, or a tag.

    Raises:
        InputError: It is neither a file of a known kind nor a tag; or the tag's weights need another activation.
    """
    open_clip, path = import_open_clip(), Path(weights).expanduser()
    if weights == "none":
        return None
    if path.is_file() and path.suffix in SUFFIXES:
        return str(path.resolve())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise InputError(
            f"weights of {name} are a file ({', '.join(SUFFIXES)}) or one of its tags ({', '.join(tags) or 'none'}); "
            f"{weights} is neither, so change --init"
        )
    quick = bool(open_clip.get_pretrained_cfg(name, weights).get("quick_gelu", False))
    if quick != bool(known(name).get("quick_gelu", False)):
        other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        raise InputError(
            f"weights need the activation that they were trained with; {weights} and {name} differ there, so use "
            f"{PREFIX}{other}"
        )
    return weights


def _statistics(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of images: those of the tag; else those that all tags of the model share; else CLIP's."""
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    asked = [open_clip.get_pretrained_cfg(name, tag) for tag in ([weights] if weights in tags else tags)]
    shared = {(tuple(config["mean"]), tuple(config["std"])) for config in asked}
    if len(shared) == 1:
        return shared.pop()
    return tuple(open_clip.OPENAI_DATASET_MEAN), tuple(open_clip.OPENAI_DATASET_STD)


def _as_encoder(visual: Any, name: str) -> nn.Module:
    """The same network, which says how wide it is as timm's networks do."""
    visual.num_features = int(known(name)["embed_dim"])
    network: nn.Module = visual
    return network


@contextmanager
def _silent() -> Iterator[None]:
    """open_clip speaks to the root logger itself, which so gets a handler that would repeat all lines of ours."""
    root, nobody = logging.getLogger(), logging.NullHandler()
    root.addHandler(nobody)
    root.addFilter(_is_not_open_clip)
    try:
        yield
    finally:
        root.removeFilter(_is_not_open_clip)
        root.removeHandler(nobody)


def _is_not_open_clip(record: logging.LogRecord) -> bool:
    return Path(record.pathname).parent.name != "open_clip"
