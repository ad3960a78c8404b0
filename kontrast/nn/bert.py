"""Ready-made sentence encoders of the family of BERT, MiniLM among them, as text towers.

Architecture: Devlin et al., *BERT*, NAACL 2019. A sentence is the mean of its tokens, at length 1 (Reimers & Gurevych,
*Sentence-BERT*, EMNLP 2019). Weights are read from a folder in the layout of the Hugging Face hub, without its library.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kontrast.errors import InputError
from kontrast.nn.text import TextTower
from kontrast.nn.tokenizer import Tokens, load_tokenizer

FILES = ("model.safetensors", "config.json", "tokenizer.json")
UNUSED = ("pooler.", "embeddings.position_ids")
"""Beginnings of tensors that such a file may have and a mean of tokens does not need."""
TRAINED_CONTEXT = 256
"""Most tokens of a text, as MiniLM's own settings have it; it was trained on 128."""


@dataclass(frozen=True, kw_only=True)
class BertSpec:
    """The sizes of a BERT, by the names of its `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


class Bert(nn.Module):
    """Tokens to sentences of length 1. Its tensors have the names of BERT's files."""

    kind = "bert"
    """What a run's `towers.json` calls it."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.spec, self.width = spec, spec.hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(spec.vocab_size, spec.hidden_size),
                "position_embeddings": nn.Embedding(spec.max_position_embeddings, spec.hidden_size),
                "token_type_embeddings": nn.Embedding(spec.type_vocab_size, spec.hidden_size),
                "LayerNorm": _norm(spec),
            }
        )
        layers = nn.ModuleList(BertLayer(spec) for _ in range(spec.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of `n` texts to representations `(n, width)` of length 1."""
        place = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
        known = place < tokens.length[:, None]
        x = self.embeddings["word_embeddings"](tokens.ids) + self.embeddings["position_embeddings"](place)
        x = self.embeddings["LayerNorm"](x + self.embeddings["token_type_embeddings"].weight[0])  # type: ignore[index]
        for layer in self.encoder["layer"].children():
            x = layer(x, known[:, None, None])
        mean = (x * known[..., None]).sum(1) / tokens.length[:, None]
        return F.normalize(mean.float(), dim=1)


class BertLayer(nn.Module):
    """Attention to all tokens, then a perceptron on each; a norm behind either."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        width, inner, self.heads = spec.hidden_size, spec.intermediate_size, spec.num_attention_heads
        inside = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": inside, "output": _dense_and_norm(width, spec)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _dense_and_norm(inner, spec)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """Of `(n, length, width)` to the same shape; `known` `(n, 1, 1, length)` says what may be attended to."""
        attended = _added(self.attention["output"], self._attention(x, known), x)
        return _added(self.output, F.gelu(self.intermediate["dense"](attended)), attended)

    def _attention(self, x: Tensor, known: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in self.attention["self"].values()  # type: ignore[operator]
        )
        return F.scaled_dot_product_attention(query, key, value, attn_mask=known).transpose(1, 2).flatten(2)


def load_bert(folder: Path, *, context: int = TRAINED_CONTEXT) -> TextTower:
    """A sentence encoder and its tokenizer from a folder with `model.safetensors`, `config.json`, `tokenizer.json`.

    Raises:
        InputError: A file is missing, describes another architecture, or has other tensors than it describes; or the
            context is longer than the positions that the model knows.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"a sentence encoder is a folder with {', '.join(FILES)}; {folder} has no {name}, so name another"
            )
    _check_pooling(folder / "1_Pooling/config.json")
    network = Bert(read_config(folder / "config.json"))
    positions = network.spec.max_position_embeddings
    if not 2 < context <= positions:
        raise InputError(
            f"the context of this model is 3 to {positions} tokens; got {context}, so give a number of those"
        )
    path = folder / "model.safetensors"
    try:
        found = {name: value for name, value in load_file(path).items() if not name.startswith(UNUSED)}
        network.load_state_dict(found, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not hold the weights that its config.json describes: {error}") from error
    tokenizer = load_tokenizer(folder / "tokenizer.json", start="[CLS]", end="[SEP]", context=context)
    if tokenizer.num_tokens > network.spec.vocab_size:
        raise InputError(
            f"a model knows every token of its tokenizer; {folder} has {tokenizer.num_tokens} tokens and weights for "
            f"{network.spec.vocab_size}, so copy it again"
        )
    return TextTower(tokenizer, network)


def read_config(path: Path) -> BertSpec:
    """The sizes of a BERT by its `config.json`.

    Raises:
        InputError: It is not whole, or describes what would compute otherwise.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told = tuple(found.get(key, usual) for key, usual in _USUAL.items())
        spec = BertSpec(**{f.name: found[f.name] for f in fields(BertSpec) if f.name in found or f.default is MISSING})
        heads_share = spec.hidden_size % spec.num_attention_heads == 0
    except (ValueError, KeyError, AttributeError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path} describes a BERT by its sizes; {error} is wrong there, so copy it again") from error
    if not heads_share:
        raise InputError(
            f"the heads of a BERT share its width; {path} has {spec.num_attention_heads} heads and a width of "
            f"{spec.hidden_size}, so copy it again"
        )
    if told != tuple(_USUAL.values()):
        raise InputError(
            f"sentence encoders here are BERTs with {', '.join(map(str, _USUAL.values()))}; {path} says "
            f"{', '.join(map(str, told))}, so name another model"
        )
    return spec


def _check_pooling(path: Path) -> None:
    """Refuse a model whose sentences are not the mean of their tokens, where its folder says so."""
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        chosen = [name for name, value in found.items() if name.startswith("pooling_mode_") and value is True]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} says how tokens become a sentence; it is damaged, so copy it again") from error
    if chosen not in ([], ["pooling_mode_mean_tokens"]):
        raise InputError(
            f"a sentence is here the mean of its tokens; {path} says {', '.join(chosen)}, so name another model"
        )


_USUAL = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


def _norm(spec: BertSpec) -> nn.LayerNorm:
    return nn.LayerNorm(spec.hidden_size, eps=spec.layer_norm_eps)


def _dense_and_norm(width: int, spec: BertSpec) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, spec.hidden_size), "LayerNorm": _norm(spec)})


def _added(part: Any, x: Tensor, before: Tensor) -> Tensor:
    result: Tensor = part["LayerNorm"](part["dense"](x) + before)
    return result
