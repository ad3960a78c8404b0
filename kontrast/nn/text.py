"""A text tower: a tokenizer, and a network from tokens to one representation a text. Ours is a small transformer.

The architecture is CLIP's (Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*,
ICML 2021, section 2.4, after GPT-2): norms before each part, attention to the tokens before, and the end token, which
so has seen the whole text and no padding, is the representation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.errors import InputError
from kontrast.nn.tokenizer import Tokenizer, Tokens, train_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """The size of a text transformer; CLIP's own is 512 wide, with 12 layers, 8 heads and 49,408 tokens."""

    width: int = 256
    """Of its layers and of the representation."""
    layers: int = 4
    """Blocks of attention and a perceptron."""
    heads: int = 4
    """Of each attention; they share the width."""
    context: int = 77
    """Most tokens of a text, start and end included; longer texts are cut before the end token."""
    vocabulary: int = 8192
    """Most tokens that the tokenizer may learn."""


class TextTransformer(nn.Module):
    """Tokens to representations of their texts."""

    kind = "transformer"
    """What a run's `towers.json` calls it."""

    def __init__(self, spec: TextSpec) -> None:
        """Begin at random, with the deviations of CLIP.

        Raises:
            InputError: The heads cannot share the width, or a size is below 1.
        """
        super().__init__()
        _check(spec)
        self.spec, self.width = spec, spec.width
        self.token = nn.Embedding(spec.vocabulary, spec.width)
        self.position = nn.Parameter(torch.empty(spec.context, spec.width))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.width)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of `n` texts to representations `(n, width)`."""
        x = self.token(tokens.ids) + self.position[: tokens.ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        end: Tensor = self.norm(x[torch.arange(len(x), device=x.device), tokens.length - 1])
        return end


class Block(nn.Module):
    """Attention to the tokens before, then a perceptron on each token; both are added to what comes in."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        width, self.heads = spec.width, spec.heads
        self.norm_before_attention, self.norm_before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        wide, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(wide, nn.GELU(), narrow)
        inner = (2 * spec.layers * width) ** -0.5
        for layer, std in (
            (self.query_key_value, width**-0.5),
            (self.output, inner),
            (wide, (2 * width) ** -0.5),
            (narrow, inner),
        ):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of `(n, length, width)` to the same shape."""
        x = x + self._attention(self.norm_before_attention(x))
        result: Tensor = x + self.mlp(self.norm_before_mlp(x))
        return result

    def _attention(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        result: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return result


class TextTower(nn.Module):
    """A tokenizer and a network that belong together."""

    def __init__(self, tokenizer: Tokenizer, network: nn.Module) -> None:
        """Take `network`, which makes `(n, network.width)` of `Tokens`."""
        super().__init__()
        self.tokenizer, self.network = tokenizer, network
        self.width: int = network.width  # type: ignore[assignment]

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Tokens of `n` texts, where the network is."""
        return self.tokenizer(texts).to(next(self.parameters()).device)

    def forward(self, tokens: Tokens) -> Tensor:
        """Representations `(n, width)`."""
        representation: Tensor = self.network(tokens)
        return representation


def text_tower(texts: Sequence[str], spec: TextSpec | None = None) -> TextTower:
    """A transformer of random weights behind a tokenizer that has learned from the training texts.

    Raises:
        InputError: Sizes that do not go together, or a missing package.
    """
    spec = spec or TextSpec()
    _check(spec)
    tokenizer = train_tokenizer(texts, vocabulary=spec.vocabulary, context=spec.context)
    sizes = {"width": spec.width, "layers": spec.layers, "heads": spec.heads, "context": spec.context}
    return TextTower(tokenizer, TextTransformer(TextSpec(**sizes, vocabulary=tokenizer.num_tokens)))


def _check(spec: TextSpec) -> None:
    if min(spec.width, spec.layers, spec.heads, spec.context, spec.vocabulary) < 1 or spec.width % spec.heads:
        raise InputError(
            "a text transformer has sizes of 1 or more, and heads that share its width; "
            f"got {', '.join(f'{name} {size}' for name, size in asdict(spec).items())}, so change one"
        )
