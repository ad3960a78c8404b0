"""Samples of drawings and photographs with words: tables of their images and captions, made once of verified files.

images.tsv      path, label, group      opened like any table of images; one group never stands on both sides
captions.tsv    path, text              maybe several rows an image, the best one first

Pictures without a caption are in the first table alone, and are not opened.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from kontrast.data.folder import FileListing
from kontrast.data.table import list_table
from kontrast.data.tabular import PATH, TEXT, read_table

IMAGES, CAPTIONS = "images.tsv", "captions.tsv"
_WHITE = 255
_SMALLEST = 64
"""Longer side; smaller pictures (openclipart has one of 3 px) would forbid every useful `--size` for all others."""
_LARGEST = 25_000_000
"""Pixels; a few drawings of openclipart have 100 to 600 million, and would fill the memory when decoded."""
_THEME = 10
"""A text that stands for more drawings than this names their collection, and describes none of them."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A row of the tables."""

    path: str
    """Relative to the sample's folder."""
    label: str
    concept: str
    """Pictures of one concept belong to one group."""
    texts: tuple[str, ...]


def listed(name: str) -> Callable[[Path], FileListing]:
    """How a sample of that name is opened: by its table, on white, since drawings are transparent around."""
    return partial(_listed, name)


def stamps(folder: Path) -> None:
    """Tables of Tux Paint's stamps: class is the outermost folder, caption the first line of the text beside."""
    pictures = []
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).as_posix()
        caption = _plain(path.with_suffix(".txt").read_text(encoding="utf-8").partition("\n")[0])
        pictures.append(Picture(path=name, label=name.partition("/")[0], concept=caption, texts=(caption,)))
    _write_tables(folder, pictures)


def emoji(folder: Path) -> None:
    """Tables of the emoji in every style: class is the category, and the styles of one concept form a group."""
    words = {row["hexcode"]: row for row in _json(folder / "emojibase" / "data.json")}
    pictures = []
    for style in ("google", "twitter"):
        for row in _json(folder / style / "emoji.json"):
            code = row["unified"]
            known = words.get(code) or words[code.replace("-FE0F", "")]
            path = f"{style}/img/{style}/64/{row['image']}"
            texts = (known["label"], *known.get("tags", ()))
            pictures.append(Picture(path=path, label=row["category"], concept=code, texts=texts))
    _write_tables(folder, pictures)


def openclipart(folder: Path) -> None:
    """Tables of openclipart: class is the outermost folder, and drawings of one title form a group."""
    pictures = []
    for path in sorted((folder / "png").rglob("*.png")):
        name = path.relative_to(folder / "png").as_posix()
        texts = _metadata((folder / "svg" / name).with_suffix(".svg"))
        concept = (texts[0] or path.stem).casefold()
        pictures.append(Picture(path=f"png/{name}", label=name.partition("/")[0], concept=concept, texts=texts))
    shared = Counter(text for picture in pictures for text in set(picture.texts[:-1]))
    _write_tables(folder, [replace(picture, texts=_telling(picture.texts, shared)) for picture in pictures])


def groups(concepts: Sequence[str], digests: Sequence[str]) -> list[str]:
    """A name for each picture's group: those of one concept, and of one content, belong together.

    Some concepts are drawn alike, as the flags of France and Clipperton are among emoji.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for concept, digest in zip(concepts, digests, strict=True):
        parent[root(f"content {digest}")] = root(f"concept {concept}")
    return [root(f"concept {concept}").removeprefix("concept ") for concept in concepts]


def _listed(name: str, folder: Path) -> FileListing:
    found = list_table(folder / IMAGES)
    captions = read_table(folder / CAPTIONS).columns
    texts: dict[str, list[str]] = {path: [] for path in found.names}
    for path, text in zip(captions[PATH], captions[TEXT], strict=True):
        texts[path].append(text)
    kept = found.take(np.array([row for row, path in enumerate(found.names) if texts[path]], dtype=np.int64))
    known = replace(kept.annotations, texts=tuple(tuple(texts[path]) for path in kept.names))
    return replace(kept, name=f"sample:{name}", background=_WHITE, annotations=known)


def _write_tables(folder: Path, pictures: list[Picture]) -> None:
    pictures = [picture for picture in pictures if _is_of_use(folder / picture.path)]
    digests = [hashlib.sha256((folder / picture.path).read_bytes()).hexdigest() for picture in pictures]
    known = groups([picture.concept for picture in pictures], digests)
    rows = [(picture.path, picture.label, group) for picture, group in zip(pictures, known, strict=True)]
    _write(folder / IMAGES, ("path", "label", "group"), rows)
    texts = ((picture.path, _plain(text)) for picture in pictures for text in dict.fromkeys(picture.texts) if text)
    _write(folder / CAPTIONS, ("path", "text"), texts)


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _plain(text: str) -> str:
    """One line, without spaces around."""
    return " ".join(text.split())


def _json(path: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(path.read_bytes())
    return found


def _is_of_use(path: Path) -> bool:
    """Whether a PNG is neither tiny nor huge, from its header."""
    with path.open("rb") as file:
        header = file.read(24)
    width, height = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    return max(width, height) >= _SMALLEST and width * height <= _LARGEST


def _metadata(drawing: Path) -> tuple[str, ...]:
    """What an SVG says of itself: title, descriptions, and last the keywords; "" for what it does not.

    Some are links to another drawing, which are not unpacked: these say nothing.
    """
    if not drawing.is_file():
        return ("", "")
    found: dict[str, list[str]] = {"title": [], "description": [], "li": []}
    for work in ElementTree.parse(drawing).iter("{http://web.resource.org/cc/}Work"):
        for element in (*work, *work.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")):
            kind = element.tag.rpartition("}")[2]
            if kind in found and _plain(element.text or ""):
                found[kind].append(_plain(element.text or ""))
    keywords = ", ".join(word for word in dict.fromkeys(found["li"]) if word not in ("hash", "unsorted"))
    return (found["title"][0] if found["title"] else "", *found["description"], keywords)


def _telling(texts: Sequence[str], shared: Counter[str]) -> tuple[str, ...]:
    """Without addresses, artefacts of the conversion, and names of collections; keywords, the last, may be common."""
    clean = [text for text in texts if not any(mark in text for mark in ("@", "://", "HASH("))]
    return tuple(text for text in clean if shared[text] <= _THEME or text == texts[-1])
