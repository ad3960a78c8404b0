"""`kontrast export RUN`: weights that plain timm loads, with a description beside them."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from kontrast.commands.call import keyword_call
from kontrast.errors import InputError
from kontrast.nn.encoders import load_encoder, save_encoder

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write an encoder as .safetensors for plain timm, and a .json that says how to build and feed it."""

    run: Path
    """Folder of a run, or one of its snapshots (`runs/a/encoders/epoch_00010.safetensors`)."""
    out: Path
    """The .safetensors to write; the .json comes beside it."""


def run(options: Export) -> Path:
    """Export an encoder; returns the path of the weights."""
    if options.out.suffix != ".safetensors":
        raise InputError(f"encoders are exported as .safetensors; --out is {options.out}, so name it with that suffix")
    for file in (options.out, options.out.with_suffix(".json")):
        if file.exists():
            raise InputError(f"an export never overwrites; {file} is there already, so name another file")
    save_encoder(load_encoder(options.run), options.out.parent, stem=options.out.stem)
    lines = json.loads(options.out.with_suffix(".json").read_text(encoding="utf-8"))["rebuild"]
    log.info("%s loads with these lines:\n  %s", options.out, "\n  ".join(lines))
    return options.out


export = keyword_call(Export, run)
