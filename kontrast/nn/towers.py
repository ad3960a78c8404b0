"""Two towers, one of images and one of texts, whose embeddings share a space; what a run of `clip` leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kontrast.errors import InputError
from kontrast.files import whole_file
from kontrast.nn import open_clip
from kontrast.nn.bert import Bert, BertSpec
from kontrast.nn.encoders import Encoder, EncoderSpec, load_encoder
from kontrast.nn.open_clip import OpenClipSpec, OpenClipText
from kontrast.nn.text import TextSpec, TextTower, TextTransformer
from kontrast.nn.tokenizer import load_tokenizer

WEIGHTS, DESCRIPTION, SUBWORDS = "towers.safetensors", "towers.json", "tokenizer.json"
"""Names in the folder of a run. The image tower is its encoder, in the encoder's own files."""
_NETWORKS: dict[str, tuple[type[Any], type[Any]]] = {
    TextTransformer.kind: (TextSpec, TextTransformer),
    Bert.kind: (BertSpec, Bert),
    OpenClipText.kind: (OpenClipSpec, OpenClipText),
}
"""The networks of text towers, each with the dataclass that it is built from."""


class Towers(nn.Module):
    """Images and texts to embeddings of length 1 in one space, where what belongs together is near."""

    temperature: Tensor

    def __init__(
        self, encoder: Encoder, text: TextTower, project_image: nn.Module, project_text: nn.Module, temperature: float
    ) -> None:
        """Take the parts over, and what divides cosines where they are to be logits."""
        super().__init__()
        self.encoder, self.text = encoder, text
        self.project_image, self.project_text = project_image, project_text
        self.register_buffer("temperature", torch.tensor(temperature))

    def encode_image(self, image: Tensor) -> Tensor:
        """Images `(n, c, h, w)`, uint8, uint16 or float in 0..1, to embeddings `(n, d)` float32 of length 1."""
        return F.normalize(self.project_image(self.encoder(image)).float(), dim=1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """`n` texts to embeddings `(n, d)` float32 of length 1."""
        return F.normalize(self.project_text(self.text(self.text.tokens(texts))).float(), dim=1)


def projections(image_width: int, text_width: int, width: int) -> tuple[nn.Module, nn.Module]:
    """A linear map from either tower to the common width, without bias as in CLIP; none at all for a width of 0.

    Raises:
        InputError: Towers of different widths are not to be projected.
    """
    if width:
        parts = nn.Linear(image_width, width, bias=False), nn.Linear(text_width, width, bias=False)
        for part in parts:
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
        return parts
    if image_width != text_width:
        raise InputError(
            "towers that are not projected have one width; the image tower has "
            f"{image_width} and the text tower {text_width}, so give --width to project both"
        )
    return nn.Identity(), nn.Identity()


def open_clip_towers(
    name: str,
    *,
    weights: str = "none",
    channels: int = 3,
    size: int | None = None,
    context: int | None = None,
) -> Towers:
    """Both towers of a model of open_clip, which embed as it does; its projections are theirs, so that there are none.

    Args:
        name: open_clip's name of the model, such as `ViT-B-32`.
        weights: `none` for random ones, a file in the layout of open_clip, or a tag, by which the hub is asked.
        channels: 3, or 1, which is shown to each of the model's three.
        size: Side of the images; by default the model's.
        context: Most tokens of a text; by default the model's.

    Raises:
        InputError: No such model, weights or channels, or one that reads texts in another way than CLIP; or open_clip
            is not installed.
    """
    open_clip.check_channels(channels)
    size = size or open_clip.image_size(name)
    model = open_clip.load_model(name, weights=weights, size=size, context=context)
    spec = EncoderSpec(name=open_clip.PREFIX + name, channels=channels, size=size, mean=model.mean, std=model.std)
    image = Encoder(model.image, spec)
    image = image.to(memory_format=image.layout)  # type: ignore[call-overload]
    text = TextTower(open_clip.clip_tokenizer(context=context or model.text.spec.context), model.text)
    return Towers(image, text, *projections(image.width, text.width, 0), temperature=model.temperature)


def save_towers(towers: Towers, run: Path) -> None:
    """Write text tower, projections and temperature beside a run's encoder: `towers.safetensors` and its `.json`."""
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in towers.state_dict().items()
        if not name.startswith("encoder.")
    }
    tokenizer, network = towers.text.tokenizer, towers.text.network
    described = {
        "text": {"kind": network.kind, **asdict(network.spec)},  # type: ignore[call-overload]
        "tokenizer": {key: getattr(tokenizer, key) for key in ("start", "end", "context", "clean")},
    }
    tokenizer.save(run / SUBWORDS)
    with whole_file(run / DESCRIPTION) as text, whole_file(run / WEIGHTS) as partial:
        text.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        save_file(weights, partial)


def has_towers(run: Path) -> bool:
    """Whether the folder holds the towers of a run of clip."""
    return (run / DESCRIPTION).is_file() and (run / WEIGHTS).is_file()


def load_towers(run: Path) -> Towers:
    """The two towers that a run left, in evaluation mode.

    Raises:
        InputError: It left none, or a file is missing or damaged.
    """
    for name in (WEIGHTS, DESCRIPTION):
        if not (run / name).is_file():
            raise InputError(
                f"towers are what runs of clip leave in {WEIGHTS}; {run} has no {name}, so name such a run"
            )
    encoder = load_encoder(run)
    try:
        described = json.loads((run / DESCRIPTION).read_text(encoding="utf-8"))
        weights = load_file(run / WEIGHTS)
        image, text = (_projection(weights.get(f"project_{side}.weight")) for side in ("image", "text"))
        built = Towers(encoder, _text_tower(described, run), image, text, temperature=1.0)
        own = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        built.load_state_dict({**own, **weights}, strict=True)
    except InputError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{run} has not the whole of what a run of clip leaves, so copy it again: {error}") from error
    return built.eval()


def _text_tower(described: dict[str, Any], run: Path) -> TextTower:
    sizes = dict(described["text"])
    spec, network = _NETWORKS[sizes.pop("kind")]
    return TextTower(load_tokenizer(run / SUBWORDS, **described["tokenizer"]), network(spec(**sizes)))


def _projection(weight: Tensor | None) -> nn.Module:
    """Of the shape of the weight; none where the run kept none."""
    return nn.Identity() if weight is None else nn.Linear(weight.shape[1], weight.shape[0], bias=False)
