"""How methods that learn from images with texts read the texts: which tower, and whose texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kontrast.data import ImageSet, samples
from kontrast.errors import InputError
from kontrast.nn.bert import TRAINED_CONTEXT, load_bert
from kontrast.nn.text import TextSpec, TextTower, text_tower

log = logging.getLogger("kontrast")

MINILM = "sample:minilm"
OWN = "own"
"""Towers, and a text tower, that are put together here."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How clip and cyclip read texts; other methods read none."""

    towers: str = OWN
    """`own`, the encoder of --encoder and the text tower of --text-tower; or `open_clip:NAME`, such as
    open_clip:ViT-B-32, both towers of a CLIP with its projections (extra `clip`): afresh, or with --init FILE from a
    .safetensors, .pt or .bin of open_clip, or with --init TAG, such as laion2b_s34b_b79k, from the hub."""
    text_tower: str = OWN
    """`own`, a small transformer whose subwords are learned from the training texts; `sample:minilm`, an English
    sentence encoder (83 MB); or the folder of one, with model.safetensors, config.json and tokenizer.json."""
    text_width: int = 256
    """Of the transformer of one's own."""
    text_layers: int = 4
    """Of the transformer of one's own."""
    text_heads: int = 4
    """Of the transformer of one's own; they share its width."""
    vocabulary: int = 8192
    """Most tokens that the transformer of one's own may learn."""
    context: int | None = None
    """Most tokens of a text, start and end included; longer texts are cut before their end. By default 77, 256 for
    sentence encoders, and for open_clip the model's."""
    shuffle_texts: bool = False
    """Give each group of training images the texts of another: a control, which must not learn what goes with what."""


def build_text_tower(options: TextOptions, data: ImageSet) -> TextTower:
    """The text tower that the options name, its subwords learned from the texts of the data where it is one's own.

    Raises:
        InputError: A size is out of range, or there is no such folder, or what it holds is not whole.
    """
    return _own_tower(options, data) if options.text_tower == OWN else _given_tower(options)


def _own_tower(options: TextOptions, data: ImageSet) -> TextTower:
    assert data.texts is not None, "asked before"
    texts = [text for known in data.texts for text in known]
    sizes = {"width": options.text_width, "layers": options.text_layers, "heads": options.text_heads}
    context = TextSpec.context if options.context is None else options.context
    return text_tower(texts, TextSpec(**sizes, vocabulary=options.vocabulary, context=context))


def _given_tower(options: TextOptions) -> TextTower:
    folder = _minilm() if options.text_tower == MINILM else Path(options.text_tower).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"--text-tower is own, {MINILM} or the folder of a sentence encoder; {options.text_tower} is none: "
            "leave it out or change it"
        )
    return load_bert(folder, context=TRAINED_CONTEXT if options.context is None else options.context)


def check_apart(tower: TextTower, data: ImageSet) -> None:
    """Say so where different texts are one to the tower.

    Raises:
        InputError: All are.
    """
    assert data.texts is not None, "asked before"
    different = {text for known in data.texts for text in known}
    seen = len(set(tower.tokenizer(sorted(different)).identity().tolist()))
    if seen < 2:
        raise InputError(
            f"clip learns which text belongs to which image, so texts differ to the tower; the {len(different)} of "
            f"{data.name} are one to it, by lower case or their first {tower.tokenizer.context} tokens: "
            "raise --context, or name another column with --text-column"
        )
    if seen < len(different):
        log.warning(
            "%d different texts are %d to the text tower, which reads no capitals and the first %d tokens; --context "
            "raises the latter",
            *(len(different), seen, tower.tokenizer.context),
        )


def _minilm() -> Path:
    """The folder that holds the files of the sample."""
    return next(iter(samples.files(MINILM.removeprefix("sample:")).values())).parent


def shuffled_texts(data: ImageSet, *, seed: int) -> ImageSet:
    """The same images, each group with the texts of another, whichever it is; without groups, each image.

    Raises:
        InputError: There is one group only.
    """
    assert data.texts is not None, "asked before"
    codes = np.arange(len(data)) if data.groups is None else np.unique(data.groups, return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    if len(members) < 2:
        raise InputError(f"texts are shuffled among groups; {data.name} has one, so leave --shuffle-texts out")
    order = np.random.default_rng([seed, 3]).permutation(len(members))
    found: list[Sequence[str]] = [()] * len(data)
    for own, other in zip(order, np.roll(order, 1), strict=True):  # a cycle, so that none keeps its own
        for place, position in enumerate(members[own]):
            found[position] = data.texts[members[other][place % len(members[other])]]
    return data.with_texts(found)


def warn_of_cut(text: TextTower, texts: Sequence[str], what: str) -> bool:
    """Say so where texts are longer than the tower reads; returns whether any is.

    Args:
        text: The tower.
        texts: Any number of them.
        what: What they are called, in the plural; a single one as it is.
    """
    num_cut = int(text.tokenizer(texts).is_cut.sum())
    if num_cut:
        log.warning(
            "of %s, only the first %d tokens are read, start and end included",
            what if len(texts) == 1 else f"{num_cut:,} of {len(texts):,} {what}",
            text.tokenizer.context,
        )
    return num_cut > 0
