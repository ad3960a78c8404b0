"""Device, precision and compilation, applied from outside: no method knows of them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from kontrast.distributed import native_bf16
from kontrast.errors import InputError
from kontrast.nn.encoders import Encoder

Precision = Literal["auto", "float32", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
log = logging.getLogger("kontrast")

PRECISIONS: dict[torch.dtype, Precision] = {
    torch.float32: "float32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
COMPILE_FROM = 10_000
"""Steps from which `auto` compiles on a GPU. Compiling costs about a minute, once, and saves about a tenth of a step:
of steps that take 60 ms and more, so many pay for it. An estimate from others' figures, to be replaced by our own."""


def choose_device(name: str = "auto") -> torch.device:
    """The named device; `auto` takes the first GPU if there is one."""
    if name != "auto":
        return _named_device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The type to multiply matrices in; `auto` takes bf16 where the hardware has it, fp16 on older GPUs, else float32.

    What was chosen and why is logged once a process, and so is a warning where it is slower than float32.

    Raises:
        InputError: fp16 on a processor: it is emulated there at a fraction of the speed, and losses are NaN in no time.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InputError("fp16 trains on a GPU only; the device is cpu, so leave --precision out or give float32")
    best, why = _best(device)
    chosen = best if precision == "auto" else precision
    _say(logging.INFO, f"precision {chosen}: {why if precision == 'auto' else 'as asked'}; device {_described(device)}")
    if chosen == "bf16" and best != "bf16":
        _say(logging.WARNING, f"bf16 is probably slower than {best} here, since {why}; --precision auto chooses {best}")
    return next(dtype for dtype, name in PRECISIONS.items() if name == chosen)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to `dtype`; nothing for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@contextmanager
def compiled(method: nn.Module, choice: Compile, device: torch.device, steps: int) -> Iterator[None]:
    """Inside, the encoders of a method run compiled, where that was asked for or a GPU trains long enough to pay.

    Names of parameters, and so checkpoints and exports, are the same inside and outside. `steps` are those of the whole
    run, so that a resumed one decides as it began.
    """
    wanted = choice == "on" or (choice == "auto" and device.type == "cuda" and steps >= COMPILE_FROM)
    networks = [part.net for part in method.modules() if isinstance(part, Encoder)] if wanted else []
    for network in networks:
        network.compile(backend=_inductor_or_eager)
    try:
        yield
    finally:
        for network in networks:
            network._compiled_call_impl = None  # torch has no public way back


def eager() -> Any:
    """Inside, nothing runs compiled: measuring during training is no reason to compile for other shapes."""
    return torch.compiler.set_stance("force_eager")


def _best(device: torch.device) -> tuple[Literal["float32", "bf16", "fp16"], str]:
    """The fastest precision that trains well, and why."""
    if device.type == "cuda":
        if torch.version.hip or torch.cuda.get_device_properties(device).major >= 8:
            return "bf16", "this GPU multiplies it natively"
        return "fp16", "this GPU only emulates bf16"
    if device.type == "cpu" and (instructions := native_bf16()):
        return "bf16", f"this processor multiplies it natively ({instructions})"
    return "float32", f"this {'processor' if device.type == 'cpu' else 'device'} is not known to multiply bf16 itself"


def _described(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu with {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def _named_device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA fails an assertion of its own
        raise InputError(f"a device is auto, cpu, or a GPU such as cuda:0 that torch sees; {name!r} is none") from error
    return torch.device(name)


def _inductor_or_eager(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """Inductor, torch's own compiler; the graph as it is, and one warning, where that fails."""
    from torch._dynamo import lookup_backend  # as torch's guide to custom backends has it

    try:
        compiled_graph: Callable[..., Any] = lookup_backend("inductor")(graph, inputs)
    except Exception as error:  # a missing compiler, a missing header, an unknown GPU: each has its own class
        reason = next(iter(str(error).split("\n")), "")
        _say(
            logging.WARNING, f"the encoder could not be compiled and trains as it is ({type(error).__name__}: {reason})"
        )
        return graph.forward
    return compiled_graph


@functools.cache
def _say(level: int, sentence: str) -> None:
    """Log a sentence once a process: a study trains dozens of models, each with the same choices."""
    log.log(level, sentence)
