"""Ctrl-C that is not lost: an exception that rises inside a callback of C code or a destructor is swallowed there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_pressed = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt as ever, and `check` raises it again if it was swallowed."""
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pressed.clear()


def check() -> None:
    """To be called between the steps of a long computation.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed inside `remembered`.
    """
    if _pressed.is_set():
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _pressed.set()
    signal.default_int_handler(number, frame)
