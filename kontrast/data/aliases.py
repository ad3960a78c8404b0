"""Aliases of patients, other groups and files, by a key that stays beside the data.

The same text has the same alias as long as the key is there; who has the key and the data can find it again, and
nobody can who has pages, logs or exports alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from functools import cached_property
from pathlib import Path

from kontrast.data.cache import cache_root
from kontrast.errors import InputError

KEY = ".kontrast-key"
"""Name of the key's file in the data folder."""
_DIGITS = 12
_BYTES = 32


def is_alias(text: str) -> bool:
    """Whether a group's name stands for another already, or is empty."""
    return not text or re.fullmatch(rf"group-[0-9a-f]{{{_DIGITS}}}", text) is not None


class Aliases:
    """Aliases for one source of data; the key is made when the first is asked for.

    Args:
        folder: The data folder, or the folder of the table or array; None for data that have none.
        cache: Root of the cache, which keeps the key where the folder cannot be written.
        name: Of the data, from which the key follows where there is no folder: such data are samples, which are
            public, or objects of Python, which know no names.
    """

    def __init__(self, folder: Path | None, cache: Path | None = None, *, name: str = "") -> None:
        self.folder = folder
        self.cache = cache
        self.name = name

    def group(self, text: str) -> str:
        """`group-3fa29c01d2e4`; "" stays ""."""
        return text and f"group-{self._digest('group', text)}"

    def file(self, name: str) -> str:
        """`image-3fa29c01d2e4`."""
        return f"image-{self._digest('file', name)}"

    def _digest(self, kind: str, text: str) -> str:
        content = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self.key, content, hashlib.sha256).hexdigest()[:_DIGITS]

    @property
    def fingerprint(self) -> str:
        """What tells one key from another, and no more."""
        return self._digest("key", "")

    @cached_property
    def key(self) -> bytes:
        """The secret.

        Raises:
            InputError: The file of the key holds something else.
        """
        if self.folder is None:
            return hashlib.sha256(self.name.encode()).digest()
        try:
            return _read_or_make(self.folder / KEY)
        except OSError:
            place = hashlib.sha256(os.fsencode(self.folder.absolute())).hexdigest()
            return _read_or_make(cache_root(self.cache) / "keys" / place)


def _read_or_make(path: Path) -> bytes:
    if not path.exists():
        _make(path)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise InputError(
            f"the key of the aliases must be {2 * _BYTES} hexadecimal digits; {path} holds something else: put the "
            "right one back, or delete it to have new aliases"
        )
    return key


def _make(path: Path) -> None:
    """Whole or not at all, and of several processes the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # nobody else may read it
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
