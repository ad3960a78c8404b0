"""What this process is and may use: its place among others, its cores. The only reader of the launcher's environment.

One process for now; methods already speak as if there were more.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from pathlib import Path

import torch
from torch import Tensor

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
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def gather(embedding: Tensor) -> Tensor:
    """Embeddings `(n, d)` of all processes, stacked in order of rank: on one process, the embedding itself."""
    return embedding


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
