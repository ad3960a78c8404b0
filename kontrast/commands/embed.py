"""`kontrast embed RUN`: the representations of images, as a table or as arrays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast import distributed
from kontrast.commands.assemble import DataOptions, open_data
from kontrast.commands.call import keyword_call
from kontrast.commands.files import check_out, write_csv, write_parquet
from kontrast.commands.run import read_as_trained, run_settings
from kontrast.data import ImageSet
from kontrast.evaluate.stored import stored_features
from kontrast.files import whole_file
from kontrast.nn.encoders import load_encoder
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Embed(DataOptions):
    """Write one representation an image: .parquet or .csv (columns path, label, e0, e1 ...), or .npz."""

    run: Path
    """Folder of a run, or an exported .safetensors."""
    out: Path
    """File to write; its suffix names the format."""
    device: str = "auto"
    """`auto` is the first GPU if there is one."""


def run(options: Embed) -> Path:
    """Embed images; returns the path of the file."""
    distributed.start()
    check_out(options.out, _WRITERS, "embeddings")
    encoder = load_encoder(options.run).to(choose_device(options.device))
    settings = run_settings(options.run) if options.run.is_dir() else {}
    data = open_data(read_as_trained(options, settings))
    found = stored_features(encoder, data)
    with whole_file(options.out) as partial:
        _WRITERS[options.out.suffix](partial, data, found)
    log.info("%d representations of width %d are in %s", *found.shape, options.out)
    return options.out


def _label_names(data: ImageSet) -> list[str]:
    if data.labels is None or data.is_multilabel:
        return [""] * len(data)
    return [data.classes[label] if label >= 0 else "" for label in data.labels]


def _write_npz(path: Path, data: ImageSet, found: NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        np.savez(file, path=np.array(data.names), label=np.array(_label_names(data)), embedding=found)


def _write_csv(path: Path, data: ImageSet, found: NDArray[np.float32]) -> None:
    rows = zip(data.names, _label_names(data), found, strict=True)
    header = ["path", "label", *(f"e{i}" for i in range(found.shape[1]))]
    write_csv(path, header, ([name, label, *row.tolist()] for name, label, row in rows))


def _write_parquet(path: Path, data: ImageSet, found: NDArray[np.float32]) -> None:
    columns: dict[str, Any] = {"path": list(data.names), "label": _label_names(data)}
    write_parquet(path, columns | {f"e{i}": column for i, column in enumerate(found.T)}, otherwise=".csv or .npz")


_WRITERS: dict[str, Callable[[Path, ImageSet, NDArray[np.float32]], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".npz": _write_npz,
}

embed = keyword_call(Embed, run)
