"""Texts as numbers: subwords learned from the user's own texts, or those of a file (package `tokenizers`)."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kontrast.errors import InputError
from kontrast.files import whole_file

log = logging.getLogger("kontrast")

BYTES = 256
"""Every byte is a subword, so that no text has anything unknown in it."""
Cleaning = Literal["none", "clip"]
MARKS = 2
"""A text's start and end, whose numbers follow those of the subwords: no text can spell them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Texts as numbers, each from its start token to its end token."""

    ids: Tensor
    """`(n, length)` int64; 0 behind the end token."""
    length: Tensor
    """`(n,)` int64, tokens of each text, 2 or more."""
    is_cut: Tensor
    """`(n,)` bool, whether the text had more tokens than the context holds."""

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Tokens:
        """The same on another device."""
        return Tokens(ids=self.ids.to(device), length=self.length.to(device), is_cut=self.is_cut.to(device))

    def identity(self) -> Tensor:
        """`(n,)` int64 on the CPU, equal for texts of the same tokens; others agree with a probability of 2^-64."""
        rows = zip(self.ids.cpu().numpy(), self.length.tolist(), strict=True)
        found = [blake2b(ids[:length].tobytes(), digest_size=8).digest() for ids, length in rows]
        return torch.tensor([int.from_bytes(each, "big", signed=True) for each in found], dtype=torch.int64)

    def split(self, size: int) -> Iterator[Tokens]:
        """The texts, `size` at a time."""
        fields = (torch.split(field, size) for field in (self.ids, self.length, self.is_cut))
        for ids, length, is_cut in zip(*fields, strict=True):
            yield Tokens(ids=ids, length=length, is_cut=is_cut)


class Tokenizer:
    """Texts to `Tokens`: start token, subwords, end token; what the context does not hold is cut before the end."""

    def __init__(self, subwords: Any, *, start: int, end: int, context: int, clean: Cleaning = "none") -> None:
        """Take the parts over.

        Args:
            subwords: A `tokenizers.Tokenizer`.
            start: Number of the start token.
            end: Of the end token.
            context: Most tokens of a text, marks included.
            clean: What is done to a text before: `clip` mends its encoding, reads HTML's entities, makes one space of
                many, and all letters lower case, as CLIP's authors do.
        """
        self.subwords, self.start, self.end, self.context, self.clean = subwords, start, end, context, clean
        self._cleaned = _CLEANINGS[clean]()
        subwords.no_truncation()
        subwords.no_padding()
        subwords.encode_special_tokens = True  # a text that says "[SEP]" says six letters

    @property
    def num_tokens(self) -> int:
        """How many numbers there are, marks included."""
        return max(int(self.subwords.get_vocab_size()), self.start + 1, self.end + 1)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokens of `n` texts, on the CPU."""
        cleaned = [self._cleaned(text) for text in texts]
        found = [encoding.ids for encoding in self.subwords.encode_batch(cleaned, add_special_tokens=False)]
        room = self.context - MARKS
        rows = [[self.start, *ids[:room], self.end] for ids in found]
        length = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        ids = torch.zeros(len(rows), int(length.max()) if rows else 0, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return Tokens(ids=ids, length=length, is_cut=torch.tensor([len(one) > room for one in found], dtype=torch.bool))

    def save(self, path: Path) -> None:
        """Write the subwords as JSON in the package's own format, whole or not at all."""
        with whole_file(path) as partial:
            partial.write_text(self.subwords.to_str(), encoding="utf-8")


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 8192, context: int = 77) -> Tokenizer:
    """Learn subwords from texts: pairs of bytes that are frequent (Sennrich et al., ACL 2016), letters in lower case.

    Args:
        texts: The training texts; the same texts give the same subwords.
        vocabulary: Most tokens there may be, start and end included; few texts give fewer.
        context: Most tokens of a text. Training texts that are longer are counted in the log.

    Raises:
        InputError: A vocabulary without room for every byte, or a context without room for a text; or the package
            `tokenizers` is missing.
    """
    _check(vocabulary, context)
    library, texts = import_tokenizers(), list(texts)
    parts, before = library.normalizers, library.pre_tokenizers
    subwords = library.Tokenizer(library.models.BPE())
    spaces = parts.Replace(library.Regex(r"\s+"), " ")
    subwords.normalizer = parts.Sequence([parts.NFC(), parts.Lowercase(), spaces, parts.Strip()])
    subwords.pre_tokenizer = before.ByteLevel(add_prefix_space=True)
    subwords.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary - MARKS,
        min_frequency=2,
        initial_alphabet=sorted(before.ByteLevel.alphabet()),
        show_progress=False,
    )
    subwords.train_from_iterator(texts, trainer)
    size = subwords.get_vocab_size()
    made = Tokenizer(subwords, start=size, end=size + 1, context=context)
    if num_cut := int(made(texts).is_cut.sum()):
        log.warning(
            "%d of %d texts have more than %d tokens and are cut before their end token; --context raises that number",
            *(num_cut, len(texts), context),
        )
    return made


def load_tokenizer(
    path: Path, *, start: int | str, end: int | str, context: int, clean: Cleaning = "none"
) -> Tokenizer:
    """The subwords of a file in the package's format.

    Args:
        path: A `tokenizer.json`.
        start: Number of the start token, or what the file calls it.
        end: Of the end token.
        context: Most tokens of a text.
        clean: What is done to a text before.

    Raises:
        InputError: There is no such file, it is damaged, or it has no such tokens.
    """
    library = import_tokenizers()
    try:
        subwords = library.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the package raises Exception itself
        raise InputError(
            f"a tokenizer is a JSON file of the package tokenizers; {path} is none, so copy it again: {error}"
        ) from error
    marks = [subwords.token_to_id(mark) if isinstance(mark, str) else mark for mark in (start, end)]
    if None in marks:
        raise InputError(f"a text begins with {start} and ends with {end}; {path} has no such tokens, so copy it again")
    return Tokenizer(subwords, start=marks[0], end=marks[1], context=context, clean=clean)


def _clip_cleaning() -> Callable[[str], str]:
    try:
        from ftfy import fix_text
    except ImportError as error:
        raise InputError("texts of CLIP need ftfy, which is not installed: pip install 'kontrast[clip]'") from error
    return lambda text: " ".join(html.unescape(html.unescape(fix_text(text))).split()).lower()


_CLEANINGS: dict[str, Callable[[], Callable[[str], str]]] = {"none": lambda: str, "clip": _clip_cleaning}


def _check(vocabulary: int, context: int) -> None:
    if vocabulary < BYTES + MARKS:
        raise InputError(
            f"a vocabulary holds each byte, a start and an end, so {BYTES + MARKS} or more; got {vocabulary}, add some"
        )
    check_context(context)


def check_context(context: int) -> None:
    """Refuse a context without room for a text.

    Raises:
        InputError: It is too small.
    """
    if context <= MARKS:
        raise InputError(
            f"a context holds a start, an end and a text between them; got {context} tokens, give 77 or so"
        )


def import_tokenizers() -> Any:
    """The package `tokenizers`.

    Raises:
        InputError: It is not installed.
    """
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise InputError("texts need tokenizers, which is not installed: pip install 'kontrast[text]'") from error
    return tokenizers
