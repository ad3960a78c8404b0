"""A progress bar on a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kontrast import interrupts


@contextmanager
def progress(title: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields `advance(steps)`, which heeds Ctrl-C; the bar is drawn only when the standard error is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=total)

        def advance(steps: int) -> None:
            interrupts.check()
            bar.advance(task, steps)

        yield advance
