"""`kontrast search RUN "TEXT"` or `--image FILE`: what of a data set is nearest to a text or to an image.

A text finds images, an image finds both texts, where the data have any, and images. What is found is shown on the
terminal and, where --out names files, written with one row for each result, texts before images:

    kind     image or text
    rank     1 for the nearest of its kind; equally near ones are in the order of the data
    cosine   of both embeddings in the space of the run, -1..1
    path     of the image, as the data name it; of a text, that of the first image that has it
    text     the text; of an image, its first, or empty

Paths and texts are written so that no spreadsheet takes one for a formula (see `files`). A cosine ranks and does not
judge: something is nearest to any text, also where no image shows what it says.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from kontrast import distributed
from kontrast.commands.assemble import DataOptions, open_data, split, texts_settled
from kontrast.commands.call import keyword_call
from kontrast.commands.files import TABLES, check_out, path_cell, text_cell
from kontrast.commands.flags import flags
from kontrast.commands.provenance import versions
from kontrast.commands.run import COLUMNS, own_data, read_as_trained, run_settings
from kontrast.commands.texts import warn_of_cut
from kontrast.data import ImageSet
from kontrast.data.decode import pad
from kontrast.data.formats import format_of
from kontrast.errors import InputError
from kontrast.evaluate.embeddings import image_embeddings, stored_image_embeddings, text_embeddings
from kontrast.evaluate.search import Hit, different_texts, nearest_images, nearest_texts
from kontrast.files import whole_file
from kontrast.nn.encoders import Encoder
from kontrast.nn.towers import Towers, load_towers
from kontrast.study.search_page import SearchPage, render
from kontrast.study.wording import count, shorten
from kontrast.train.parallel import choose_device

log = logging.getLogger("kontrast")

PAGE = ".html"


@dataclass(frozen=True, kw_only=True)
class Search(DataOptions):
    """Find the images nearest to a text, or the texts and images nearest to an image, by a run of clip."""

    run: Path
    """Folder of `kontrast pretrain clip` or `cyclip`."""
    query: str | None = None
    """Text to find images for."""
    image: Path | None = None
    """In place of a text: a picture or DICOM file to find texts and images for."""
    data: str = ""
    """Images to search: anything that `pretrain` takes; by default the test images of the run's own data."""
    top: int = 20
    """Results of each kind, the nearest first."""
    out: tuple[Path, ...] = ()
    """Files to write, one or more; the suffix of each names its format: .csv or .parquet for a table, .html for a page
    with thumbnails that is complete in itself."""
    device: str = "auto"
    """`auto` is the first GPU if there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Query:
    """What is asked for."""

    name: str
    """As the terminal and the page call it."""
    embedding: Tensor
    """`(d,)` of length 1."""
    image: ImageSet | None = None
    is_cut: bool = False


def run(options: Search) -> tuple[Hit, ...]:
    """Search; shows what is found, writes it where files are named, and returns it, texts before images."""
    distributed.start()
    _check(options)
    towers = load_towers(options.run).to(choose_device(options.device))
    chosen = _chosen(options, run_settings(options.run))
    asked = None if options.image is None else _open_query(options.image, chosen, towers.encoder)
    data = _open_searched(options, chosen)
    query = _text_query(options, towers) if asked is None else _image_query(asked, chosen, towers, data)
    found = (*_texts(query, towers, data, options.top), *_images(query, towers, data, options.top))
    _print(query, found)
    _write(options.out, found, _page(options, query, data, found), data)
    return found


def _check(options: Search) -> None:
    """What can be refused before anything is opened."""
    if (options.query is None) == (options.image is None):
        given = "neither" if options.query is None else "both"
        raise InputError(
            f'a search asks by a text or by --image FILE; got {given}, so give one: kontrast search RUN "TEXT"'
        )
    if options.query is not None and not options.query.strip():
        raise InputError(f"a text to search by has a word or more; got {options.query!r}, so write one")
    if options.image is not None and (not options.image.is_file() or format_of(options.image) is None):
        why = "is none that is read" if options.image.exists() else "is not there"
        raise InputError(f"--image names a picture or DICOM file; {options.image} {why}, so name another")
    if options.top < 1:
        raise InputError(f"a search finds something; --top is {options.top}, so give 1 or more")
    for out in options.out:
        check_out(out, (*TABLES, PAGE), "results of a search")
    if len({out.resolve() for out in options.out}) < len(options.out):
        raise InputError(f"every file of --out is another one; got {' '.join(map(str, options.out))}, so leave one out")


def _chosen(options: Search, settings: dict[str, Any]) -> DataOptions:
    """How images are read: others as those of the run, its own in no other way, or their split would be another."""
    if options.data != "":
        settled = texts_settled(options, are_used=True)
        return read_as_trained(settled, settings, "size", "channels", "alias_paths", *COLUMNS)
    names = [f.name for f in fields(DataOptions) if f.name not in ("data", "alias_paths")]
    if given := flags(options, without={f.name for f in fields(options)} - {*names}):
        raise InputError(
            f"without --data, the run's own test images are read as the run read them; got {given[0]}, so leave it out "
            "or name --data"
        )
    own = own_data(settings)
    return replace(own, alias_paths=own.alias_paths or options.alias_paths)


def _open_searched(options: Search, chosen: DataOptions) -> ImageSet:
    data = open_data(chosen)
    if options.data != "":
        return data
    test = split(data).test
    if test is None:
        raise InputError(
            f"the run's own test images are those held out by labels or texts; {data.name} has neither now, so name "
            "what to search by --data"
        )
    return replace(test, name=f"test images of {test.name}")


def _open_query(file: Path, chosen: DataOptions, encoder: Encoder) -> ImageSet:
    """The image that is asked about, read as the data are, in as many channels as the encoder has."""
    own = encoder.spec.channels
    channels = own if own in (1, 3) else chosen.channels
    plain = replace(chosen, labels=None, group_pattern=None, limit=None, alias_paths=False, texts="ignore")
    found = open_data(replace(plain, data=str(file), channels=channels))
    if len(found) != 1:
        raise InputError(f"--image names one image; {file} holds {len(found)}, so save the one that you mean by itself")
    return found


def _text_query(options: Search, towers: Towers) -> _Query:
    assert options.query is not None, "asked before"
    is_cut = warn_of_cut(towers.text, [options.query], "the text searched by")
    return _Query(
        name=f"“{shorten(options.query, letters=120)}”",
        embedding=text_embeddings(towers, [options.query])[0],
        is_cut=is_cut,
    )


def _image_query(asked: ImageSet, chosen: DataOptions, towers: Towers, data: ImageSet) -> _Query:
    """A smaller image is centred on black, as it would be among the data."""
    pixels = np.asarray(asked.pixels[asked.rows])
    if asked.size < data.size:
        pixels = pad(pixels[0].transpose(1, 2, 0), data.size).transpose(2, 0, 1)[None]
    image = replace(asked, pixels=pixels, rows=np.zeros(1, dtype=np.int64))
    name = "the image asked about" if chosen.alias_paths else asked.names[0]
    return _Query(name=name, embedding=image_embeddings(towers, image)[0], image=image)


def _texts(query: _Query, towers: Towers, data: ImageSet, top: int) -> tuple[Hit, ...]:
    """Of a query that is an image, where the data have texts."""
    texts = [] if query.image is None else different_texts(data)
    if not texts:
        return ()
    known = [text for text, _ in texts]
    warn_of_cut(towers.text, known, "texts")
    return nearest_texts(query.embedding, text_embeddings(towers, known), texts, data, top=top)


def _images(query: _Query, towers: Towers, data: ImageSet, top: int) -> tuple[Hit, ...]:
    return nearest_images(query.embedding, stored_image_embeddings(towers, data), data, top=top)


def _of_kind(found: Sequence[Hit], kind: str) -> tuple[Hit, ...]:
    return tuple(hit for hit in found if hit.kind == kind)


def _print(query: _Query, found: Sequence[Hit]) -> None:
    console = Console(highlight=False, markup=False)
    for kind in ("text", "image"):
        hits = _of_kind(found, kind)
        if not hits:
            continue
        console.print(Text(f"The {kind}s nearest to {shorten(query.name, letters=160)}", style="bold"))
        table = Table(box=None, pad_edge=False)
        for name in ("rank", "cosine"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("path", "text"):
            table.add_column(name, overflow="fold")
        for hit in hits:
            said = (Text(shorten(text, letters=160)) for text in (hit.path, hit.text))
            table.add_row(str(hit.rank), f"{hit.cosine:.3f}", *said)
        console.print(table)


def _write(outs: Sequence[Path], found: Sequence[Hit], page: SearchPage, data: ImageSet) -> None:
    """All files, whole; where one cannot be written, none is."""
    with ExitStack() as stack:
        partials = [stack.enter_context(whole_file(out)) for out in outs]
        for out, partial in zip(outs, partials, strict=True):
            if out.suffix == PAGE:
                partial.write_bytes(render(page, data).encode())
            else:
                TABLES[out.suffix](partial, _columns(found))
    if outs:
        log.info("what was found among %s is in %s", count(len(data), "image"), ", ".join(map(str, outs)))


def _columns(found: Sequence[Hit]) -> dict[str, list[Any]]:
    return {
        "kind": [hit.kind for hit in found],
        "rank": [hit.rank for hit in found],
        "cosine": [hit.cosine for hit in found],
        "path": [path_cell(hit.path) for hit in found],
        "text": [text_cell(hit.text) for hit in found],
    }


def _page(options: Search, query: _Query, data: ImageSet, found: Sequence[Hit]) -> SearchPage:
    texts, images = _of_kind(found, "text"), _of_kind(found, "image")
    shown = f"{count(len(images))} of {count(len(data), 'image')}"
    if texts:
        shown += f" and {count(len(texts))} of {count(len(different_texts(data)), 'different text')}"
    sentences = [
        f"{shown}, the nearest first, by the cosine of both embeddings.",
        "A cosine ranks and does not judge: something is nearest to any query, also where nothing fits it.",
    ]
    if query.is_cut:
        sentences.append("The text is longer than what the run reads of one, so its end was left out.")
    return SearchPage(
        title=f"Search of {data.name}",
        headline=f"{'Texts and images' if texts else 'Images'} nearest to {query.name}",
        sentences=tuple(sentences),
        query=query.image,
        query_name=query.name,
        texts=texts,
        images=images,
        facts={"Run": str(options.run), "Images": f"{data.name}, fingerprint {data.fingerprint[:12]}"},
        versions=versions(),
        command=_command(options, is_hidden=query.image is not None and query.name != query.image.names[0]),
    )


def _command(options: Search, *, is_hidden: bool) -> str:
    """What to type again; the name of an image that aliases hide stays hidden."""
    shown = replace(options, image=Path("IMAGE")) if is_hidden else options
    return shlex.join(["kontrast", "search", str(options.run), *flags(shown, without=("run", "out"))])


search = keyword_call(Search, run)
