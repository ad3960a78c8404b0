"""What the benchmarks share: interleaved timing, and tables with the machine above them."""

from __future__ import annotations

import contextlib
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import torch


def interleave(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each piece of work, done A B A B after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, step in work.items():
            started = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Turns:
    """Work in a process of its own, done once each call: what one library does to its process, no other one feels."""

    def __init__(self, build: Callable[..., Work], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(build, arguments, other))
        self.process.start()
        self.note = self.pipe.recv()
        """What the builder had to say."""

    def __call__(self, which: Any = None) -> None:
        self.pipe.send((True, which))
        self.pipe.recv()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it failed, and has said why
            self.pipe.send((False, None))
        self.process.join()


Work = tuple[Callable[[Any], Any], Any, Callable[[], None]]
"""What to do at each turn, something to say before the first, and what to do at the end."""


def _serve(build: Callable[..., Work], arguments: tuple[Any, ...], pipe: Connection) -> None:
    turn, note, end = build(*arguments)
    pipe.send(note)
    while (asked := pipe.recv())[0]:
        turn(asked[1])
        pipe.send(None)
    end()


def installed(package: str) -> bool:
    """Whether a peer is there."""
    return find_spec(package) is not None


def machine(*packages: str) -> str:
    """One line: processor or GPU, threads, and versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    versions = ", ".join(f"{name} {version(name)}" for name in packages if installed(name.replace("-", "_")))
    return f"{device}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}\n"


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])
