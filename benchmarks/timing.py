"""What the benchmarks share: interleaved timing, and tables with the machine above them."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
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
