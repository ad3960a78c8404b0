"""What a run leaves behind while it trains: `metrics.jsonl`, TensorBoard where installed, and a progress line."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

TIMING = ("seconds", "images_per_second", "data_wait")
"""Fields of a row that depend on the machine and the hour; all others are reproducible."""

Row = dict[str, float]


class MetricLog:
    """One row an epoch, in memory and, given a folder, in `metrics.jsonl`."""

    def __init__(self, folder: Path | None, *, keep_until: int = 0) -> None:
        """Open the log.

        Args:
            folder: The run; None keeps rows in memory only.
            keep_until: Rows of later epochs are dropped: they were written after the checkpoint to resume from.
        """
        self.path = folder / "metrics.jsonl" if folder else None
        self.rows: list[Row] = []
        self.board: Any = None
        if folder is None or self.path is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = [row for row in read_rows(self.path) if row["epoch"] <= keep_until]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        partial.replace(self.path)
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=keep_until + 1)

    def add(self, row: Row) -> None:
        """Append a row and force it out of Python's hands."""
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["epoch"]))

    def close(self) -> None:
        """Close TensorBoard's file, if any."""
        if self.board is not None:
            self.board.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; a last line that was cut off by a kill is left out."""
    rows: list[Row] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class ProgressLine:
    """Epochs, loss, images a second, time left, and the share of time spent waiting for data."""

    def __init__(self, title: str, total: int, *, done: int = 0, shown: bool = True) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self.task = self.progress.add_task(title, total=total, completed=done, note="")
        self.plain = console if shown and not console.is_terminal else None
        self.title, self.total = title, total

    def __enter__(self) -> ProgressLine:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self) -> None:
        """One training step done."""
        self.progress.advance(self.task)

    def epoch(self, row: Row, epochs: int) -> None:
        """Show an epoch's figures; where there is no terminal, about twenty lines a run."""
        note = (
            f"loss {row['loss']:.3f}  {row['images_per_second']:.0f} images/s  waiting for data {row['data_wait']:.0%}"
        )
        self.progress.update(self.task, note=note)
        number = int(row["epoch"])
        if self.plain and (number == epochs or number % max(1, epochs // 20) == 0):
            left = row["seconds"] * (epochs - number)
            self.plain.print(
                f"{self.title}  epoch {number}/{epochs}  {note}  {left:.0f} s left", highlight=False, soft_wrap=True
            )
