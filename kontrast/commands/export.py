"""`kontrast export RUN`: weights for plain timm or an ONNX file, with a model card beside them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from torch import nn

from kontrast.commands.assemble import named
from kontrast.commands.call import keyword_call
from kontrast.commands.card import Subject, model_card
from kontrast.commands.loading import encoder_lines, onnx_lines
from kontrast.errors import InputError
from kontrast.files import whole_file
from kontrast.nn.classifier import Classifier, is_classifier, load_classifier
from kontrast.nn.encoders import Encoder, load_encoder, save_as_bit, save_encoder
from kontrast.nn.onnx import Parity, measure_parity, require_onnx, write_onnx

log = logging.getLogger("kontrast")

TOLERANCE = 1e-5
"""Largest difference between ONNX and torch: of probabilities as it is, of representations as a share of their largest
value. An untrained network's representations can be as small as 1e-5, where the bare difference would show nothing, and
others are in the hundreds, where float32 has no such digits. Some networks (BiT) lose more digits than that in float32
by themselves: then ONNX may be as far from torch as twice what torch is from its own answers in float64, which is what
two roundings of the same sums come to.
"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an encoder for plain timm (.safetensors, with a .json that says how to build it), or a run as ONNX (.onnx).

    A ResNetV2 of BiT's architecture can be written in the layout of BiT's files too (.npz). ONNX holds the classifier,
    where the run is one. A model card (.md) comes beside each.
    """

    run: Path
    """Folder of a run, or one of its snapshots (`runs/a/encoders/epoch_00010.safetensors`)."""
    out: Path
    """File to write, .safetensors, .npz or .onnx; what belongs to it comes beside it."""
    format: Literal["auto", "timm", "bit", "onnx"] = "auto"
    """`auto` goes by the suffix of --out."""


def run(options: Export) -> Path:
    """Export a run; returns the path of the weights."""
    chosen = _format(options)
    suffixes, write = _FORMATS[chosen]
    for suffix in suffixes:
        if (file := options.out.with_suffix(suffix)).exists():
            raise InputError(f"an export never overwrites; {file} is there already, so name another file")
    write(options)
    return options.out


def _format(options: Export) -> str:
    """The format by its name or by the suffix, which agree."""
    suffixes = {"timm": ".safetensors", "bit": ".npz", "onnx": ".onnx"}
    named(options.format, ("auto", *suffixes), "format")
    of_suffix = {suffix: name for name, suffix in suffixes.items()}.get(options.out.suffix)
    if of_suffix is None:
        raise InputError(
            f"runs are exported as .safetensors (for timm), .npz (BiT's layout) or .onnx; --out is {options.out}, so "
            "name it with one of these suffixes"
        )
    if options.format not in ("auto", of_suffix):
        suffix = suffixes[options.format]
        raise InputError(f"--format {options.format} writes {suffix}; --out is {options.out}, so change one of them")
    return of_suffix


def _write_timm(options: Export) -> None:
    built = load_encoder(options.run)
    card = _card(options, built, encoder_lines(built, options.out.name))
    save_encoder(built, options.out.parent, stem=options.out.stem)
    _write_card(options, card)
    lines = json.loads(options.out.with_suffix(".json").read_text(encoding="utf-8"))["rebuild"]
    log.info("%s loads with these lines:\n  %s", options.out, "\n  ".join(lines))


def _write_bit(options: Export) -> None:
    built = load_encoder(options.run)
    card = _card(options, built, encoder_lines(built, options.out.name))
    save_as_bit(built, options.out)
    _write_card(options, card)


def _write_onnx(options: Export) -> None:
    require_onnx()
    model: Encoder | Classifier = (load_classifier if is_classifier(options.run) else load_encoder)(options.run)
    built = model.encoder if isinstance(model, Classifier) else model
    spec = built.spec
    outputs = ["representation", "probabilities"] if isinstance(model, Classifier) else ["representation"]
    card = _card(options, model, onnx_lines(spec, options.out.name, outputs))
    with whole_file(options.out) as partial:
        write_onnx(
            model, partial, channels=spec.channels, size=spec.size, outputs=outputs, metadata=_metadata(model, built)
        )
        found = _proven(model, partial, built)
    _write_card(options, card)
    log.info("%s answers as torch does: %s", options.out, "; ".join(found))


def _proven(model: nn.Module, file: Path, built: Encoder) -> list[str]:
    """What the comparison with torch found, in words.

    Raises:
        InputError: The two differ.
    """
    parities = measure_parity(model, file, channels=built.spec.channels, size=built.spec.size)
    for name, parity in parities.items():
        if not _holds(name, parity):
            raise InputError(
                f"an ONNX file must answer as torch does, to {TOLERANCE:g}; for this {built.spec.name} the {name} "
                f"differ by {_words(parity)}, so the file was not kept: export to .safetensors"
            )
    return [f"{name} differ by at most {_words(parity)}" for name, parity in parities.items()]


def _holds(name: str, parity: Parity) -> bool:
    scale = 1.0 if name == "probabilities" else parity.scale
    return parity.difference <= max(TOLERANCE * scale, 2 * parity.rounding) < math.inf


def _words(parity: Parity) -> str:
    own = f", and torch in float32 from float64 by {parity.rounding:.1e}"
    return f"{parity.difference:.1e} where the largest value is {parity.scale:.3g}{own}"


def _metadata(model: Encoder | Classifier, built: Encoder) -> dict[str, str]:
    """What the file says of itself, each value as JSON but for the plain words."""
    spec = built.spec
    found = {"kontrast": version("kontrast"), "architecture": spec.name, "size": json.dumps(spec.size)}
    found |= {"channels": json.dumps(spec.channels), "mean": json.dumps(spec.mean), "std": json.dumps(spec.std)}
    found |= {"input": "float32 images in 0..1; the normalisation is inside"}
    if isinstance(model, Classifier):
        found |= {"classes": json.dumps(model.spec.classes), "multilabel": json.dumps(model.spec.multilabel)}
        found |= {"temperature": json.dumps(model.spec.temperature), "calibration": model.spec.calibration}
    return found


def _card(options: Export, model: Encoder | Classifier, loading: list[str]) -> str:
    """The card's text, before anything is written."""
    built, classifier = (model.encoder, model.spec) if isinstance(model, Classifier) else (model, None)
    return model_card(
        Subject(encoder=built.spec, width=built.width, classifier=classifier, run=options.run, loading=loading)
    )


def _write_card(options: Export, card: str) -> None:
    with whole_file(options.out.with_suffix(".md")) as partial:
        partial.write_text(card, encoding="utf-8")


_FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Export], None]]] = {
    "timm": ((".safetensors", ".json", ".md"), _write_timm),
    "bit": ((".npz", ".json", ".md"), _write_bit),
    "onnx": ((".onnx", ".md"), _write_onnx),
}
"""For each format, the suffixes of what it writes, and how."""

export = keyword_call(Export, run)
