"""Checkpoints: written whole or not at all, the last two kept."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kontrast.errors import InputError

KEPT = 2
log = logging.getLogger("kontrast")


def save(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write `epoch_NNNNN.pt` to a temporary file, force it to disk, rename it, then drop the oldest.

    Raises:
        InputError: No space is left; the checkpoints that were there stay whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"epoch_{epoch:05d}.pt"
    partial = final.with_suffix(".partial")
    try:
        with _ctrl_c_held_back(), partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if no_space_left(error):
            raise InputError(
                f"a checkpoint must fit on the disk; no space is left for {final}, "
                "so free some and go on with --resume (earlier checkpoints are whole)"
            ) from error
        raise
    _sync_folder(folder)
    for old in saved(folder)[:-KEPT]:
        old.unlink()


def load(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, or None where there is none; a damaged one is named in the log and passed over."""
    for path in reversed(saved(folder)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # on damaged bytes torch's reader raises anything, IndexError included
            log.warning("%s is damaged (%s); going back to the checkpoint before", path, type(error).__name__)
        else:
            return state
    return None


def saved(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("epoch_*.pt"))


def no_space_left(error: BaseException | None) -> bool:
    """Whether a full disk is at the root of an error: libraries turn the system's own into theirs."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a write: in the midst of torch's own it could abort the whole process."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
