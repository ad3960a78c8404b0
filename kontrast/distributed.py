"""What this process is and may use: its place among others, its cores. The only reader of the launcher's environment.

Commands start one process for now; methods already speak as if there were more, and a process group that a program of
one's own has started is heeded.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from kontrast.errors import InputError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Numbers of `mallopt`, from malloc.h."""
_KEPT = 2**30
"""Bytes of free memory at the end of the heap that stay with the process."""
CPU_GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container what share of the processor it may use."""


def start() -> None:
    """Begin a command: refuse a launch with several processes, mind the cores and the memory.

    Raises:
        InputError: The launcher's `WORLD_SIZE` is above 1, which would train the same model several times over.
    """
    if world_size() > 1:
        raise InputError(
            f"this version trains in one process, but the launcher started {world_size()}; "
            "start `kontrast` without torchrun"
        )
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))
    keep_memory()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _is_group() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _is_group() else int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def gather(rows: Tensor) -> Tensor:
    """Rows `(n, ...)` of all processes, stacked in order of rank: on one process, the tensor itself.

    Processes may bring different numbers of rows. The gradient of one's own rows is the sum of what all processes have
    for them, so that with gradients averaged over processes the mean of their losses has its exact gradient.
    """
    if not _is_group():
        return rows
    gathered: Tensor = _Gather.apply(rows, _counts(rows))  # type: ignore[no-untyped-call]
    return gathered


class Place(NamedTuple):
    """Of one's own rows among those of all processes."""

    offset: int
    """Where they begin."""
    total: int
    """Rows of all."""
    share: float
    """One's own rows over the mean of all processes; 1 where each has as many."""


def place(rows: Tensor) -> Place:
    """Where one's own rows `(n, ...)` are among those that `gather` stacks; alone, they are all there is."""
    if not _is_group():
        return Place(0, len(rows), 1.0)
    counts = _counts(rows)
    return Place(sum(counts[: dist.get_rank()]), sum(counts), len(rows) * len(counts) / sum(counts))


class _Gather(torch.autograd.Function):
    """Rows are filled up to the same number on their way, since collectives take equal shapes."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts  # type: ignore[attr-defined]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grad: Tensor) -> tuple[Tensor, None]:
        total, counts = grad[0].contiguous().clone(), ctx.counts  # type: ignore[attr-defined]
        dist.all_reduce(total)  # and not reduce_scatter, whose parts would have to be equal
        return torch.split(total, counts)[dist.get_rank()], None


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _counts(rows: Tensor) -> list[int]:
    """How many rows each process has."""
    own = torch.tensor([len(rows)], device=rows.device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


def allowed_cores(group: Path = CPU_GROUP) -> int:
    """Cores this process may use, at least 1: the least of the machine's, the affinity mask's and the container's.

    A mask is what Slurm sets. A container's quota of 1.5 cores counts as 2.
    """
    masked = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(masked, _quota(group)))


def keep_memory() -> None:
    """Let freed memory wait for the next step, where the C library is glibc.

    Left to itself, glibc hands large tensors back to the system as they are freed, and takes them again in the next
    step, page by page. Settings of the user's own, or another allocator, stay as they are.
    """
    own = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not own:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)


def native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The instructions by which this processor multiplies bf16 itself, or "" where it could only emulate them."""
    try:
        with cpuinfo.open(encoding="utf-8") as file:
            words = file.read(1 << 16).split()
    except OSError:
        return ""
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in words), "")


def _quota(group: Path) -> int:
    """Cores that a control group grants, by the files of version 2 or 1; the machine's where it sets no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / file).read_text(encoding="ascii") for file in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdigit():  # else "max" or -1: no limit
            return math.ceil(int(quota) / int(period))
    return os.cpu_count() or 1
