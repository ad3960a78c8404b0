"""Device and precision, applied from outside: no method knows of them."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from kontrast.errors import InputError

Precision = Literal["auto", "float32", "bf16", "fp16"]
log = logging.getLogger("kontrast")


def choose_device(name: str = "auto") -> torch.device:
    """The named device; `auto` takes the first GPU if there is one."""
    if name != "auto":
        return _named_device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The type to multiply matrices in; `auto` takes bf16 where the processor has it, fp16 on older GPUs."""
    named = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        return named[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to `dtype`; nothing for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def _named_device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA fails an assertion of its own
        raise InputError(f"a device is auto, cpu, or a GPU such as cuda:0 that torch sees; {name!r} is none") from error
    return torch.device(name)


def _cpu_has_bf16() -> bool:
    """Instructions for bf16, not their slow emulation."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read(1 << 16)
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
