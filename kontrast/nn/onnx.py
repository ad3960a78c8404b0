"""ONNX: a network that runs without torch, and the proof that it still answers the same."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kontrast.errors import InputError

LARGEST = 2**31 - 2**20
"""Bytes of weights that one ONNX file holds, by protobuf's limit."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an ONNX file's answers are from torch's, both in float32."""

    difference: float
    """Largest absolute difference."""
    scale: float
    """Largest absolute value of torch's answers."""
    rounding: float
    """How far torch's own answers are from those it gives in float64."""


def require_onnx() -> None:
    """Nothing, if the packages of the extra `onnx` are there.

    Raises:
        InputError: One is missing.
    """
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(
                f"ONNX files need {error.name or name}: pip install 'kontrast[onnx]', or export to .safetensors"
            ) from error


def write_onnx(
    model: nn.Module, path: Path, *, channels: int, size: int, outputs: Sequence[str], metadata: Mapping[str, str]
) -> None:
    """Write a network as one ONNX file, in evaluation mode; nothing of this machine's paths is in it.

    Args:
        model: From images to one tensor, or a tuple of them, each `(batch, ...)`; put into evaluation mode.
        path: File to write.
        channels: Of the input `image`, float32 in 0..1, `(batch, channels, size, size)` for any batch.
        size: Side of the images in pixels.
        outputs: A name for each output.
        metadata: What the file says of itself, in its `metadata_props`.

    Raises:
        InputError: A package is missing, the weights are too large for one file, or torch cannot express the network.
    """
    require_onnx()
    import onnx

    total = sum(tensor.nbytes for tensor in model.state_dict().values())
    if total > LARGEST:
        raise InputError(f"one ONNX file holds 2 GiB; this network has {total / 2**30:.1f}, so export to .safetensors")
    image = torch.rand(2, channels, size, size)  # with one image, the exporter would take the batch for a constant
    written = _with_zeros_kept(_anonymous(_exported(model.eval(), image, outputs)))
    onnx.helper.set_model_props(written, dict(metadata))
    onnx.save(written, str(path), format="protobuf")


def _exported(model: nn.Module, image: Tensor, outputs: Sequence[str]) -> Any:
    """The network as torch's exporter writes it, an ONNX `ModelProto`."""
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                (image,),
                dynamo=True,
                input_names=["image"],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(f"torch could not write this network as ONNX ({reason}): export to .safetensors") from error
    assert program is not None, "without a path, torch returns the program"
    return program.model_proto


def measure_parity(
    model: nn.Module, path: Path, *, channels: int, size: int, batches: Sequence[int] = (1, 5), seed: int = 0
) -> dict[str, Parity]:
    """Ask both, onnxruntime on the CPU and torch, about the same random images; the worst answer of each output.

    Args:
        model: The network that the file was written from; put into evaluation mode, on the CPU.
        path: The ONNX file.
        channels: Of the images.
        size: Side of the images.
        batches: Numbers of images to ask about at a time.
        seed: Of the images, uniform in 0..1.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; its warnings are about its own graph
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    exact, draws = deepcopy(model).double(), torch.Generator().manual_seed(seed)
    found = dict.fromkeys(names, Parity(difference=0.0, scale=0.0, rounding=0.0))
    for count in batches:
        image = torch.rand(count, channels, size, size, generator=draws)
        ours, truth = _answers(model, image), _answers(exact, image.double())
        theirs = session.run(None, {"image": image.numpy()})
        for name, *answers in zip(names, ours, truth, map(torch.from_numpy, theirs), strict=True):
            found[name] = _worse(found[name], *answers)
    return found


@torch.no_grad()
def _answers(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    answer = model.eval()(image)
    return answer if isinstance(answer, tuple) else (answer,)


def _worse(known: Parity, ours: Tensor, truth: Tensor, theirs: Tensor) -> Parity:
    """The larger of each, what was known and what these answers show."""
    return Parity(
        difference=max(known.difference, _distance(ours, theirs)),
        scale=max(known.scale, ours.abs().max().item()),
        rounding=max(known.rounding, _distance(ours, truth)),
    )


def _distance(one: Tensor, other: Tensor) -> float:
    """Largest difference; another shape, and anything that is not a number, are infinitely far away."""
    if one.shape != other.shape:
        return float("inf")
    return (one.double() - other.double()).abs().nan_to_num(nan=float("inf"), posinf=float("inf")).max().item()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of its own parts: deprecations inside torch, and each pass over the graph."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _anonymous(written: Any) -> Any:
    """The model without notes on the code that made it, which name this machine's folders."""
    graph = written.graph
    for part in (written, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return written


def _with_zeros_kept(written: Any) -> Any:
    """The model with padding that onnxruntime leaves alone.

    It fuses a Pad by 0 into the MaxPool behind it, whose own padding is below every value (BiT's stem has these two,
    and comes out wrong). A Pad by the smallest normal number is not fused, and no sum can tell it from 0.
    """
    import onnx

    graph = written.graph
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    value = {tensor.name: tensor for tensor in graph.initializer}
    pads = [node for node in graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    smallest = onnx.numpy_helper.from_array(np.array(np.finfo(np.float32).tiny), "smallest_normal_number")
    for node in pads:
        by = value.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if by is None or not onnx.numpy_helper.to_array(by).any():
            axes = list(node.input[3:])
            del node.input[2:]
            node.input.extend([smallest.name, *axes])
    graph.initializer.append(smallest)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return written
