"""Put the parts together: options shared by commands, and from them data, encoder, policy and method."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import yaml
from torch import Tensor

from kontrast import data as data_package
from kontrast.augment import policy_file
from kontrast.augment.geometry import resize
from kontrast.augment.policies import POLICIES, Policy
from kontrast.batch import as_float
from kontrast.commands.lineage import check_leaks
from kontrast.commands.pretrained import weights_of
from kontrast.commands.texts import TextOptions, build_text_tower, check_apart
from kontrast.data import ImageSet, hold_out
from kontrast.data.reading import Axis, Reading
from kontrast.data.tabular import Columns
from kontrast.errors import InputError
from kontrast.files import whole_file
from kontrast.methods import METHODS, Method
from kontrast.nn.classifier import is_classifier
from kontrast.nn.encoders import Encoder, Stem, encoder
from kontrast.nn.norms import Affine, kind
from kontrast.nn.text import TextTower

log = logging.getLogger("kontrast")


Texts = Literal["auto", "read", "ignore"]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images."""

    data: str
    """A folder of pictures, DICOM files or volumes, a table with a column `path`, an .npz of arrays, or `sample:NAME`.

    Texts are those of the table's column `text`, or of .txt files beside the images. Also shards of WebDataset, one
    picture, volume or DICOMDIR, a known data set's folder as `NAME:FOLDER` (acdc, brats, ham10000, iu-xray, kermany,
    mimic-cxr, mmwhs, nih-chest), and from Python an `ImageSet` or a torch `Dataset`.
    """
    labels: Path | None = None
    """Table with columns `path,label` and, if you have them, `group` (patient, lesion, volume) and `split`."""
    size: int | None = None
    """Side of the square that the encoder sees, in pixels; by default the images' own up to 256, else 224."""
    channels: int | None = None
    """1 or 3; by default what the files have, any number."""
    window: str | None = None
    """Values shown from black to white: auto, full, percentile, LOW:HIGH, or for CT lung, brain, bone, soft-tissue ...

    By default auto: what a DICOM file says, else all of CT's range, else percentiles of the file or volume.
    """
    axis: Axis | None = None
    """Volumes are cut across this axis; by default axial."""
    spacing: float | None = None
    """Resample DICOM images and slices of volumes to pixels of so many mm; by default as they are."""
    keep_empty: bool = False
    """Keep slices of volumes that show nothing."""
    keep_captures: bool = False
    """Take DICOM's secondary captures for images; some collections of radiographs are stored as such."""
    n4: bool = False
    """Correct the bias field of volumes first (N4, needs SimpleITK; slow)."""
    image_column: str | None = None
    """Column of a table that names the files; by default path, else image, else filepath."""
    text_column: str | None = None
    """Column of a table that says what they show; by default text, else caption, else title beside filepath."""
    texts: Texts = "auto"
    """Whether the texts of images are read, without which an image then counts as incomplete; `auto` reads them where
    they are used: in clip and cyclip, `search` and `data check`."""
    delimiter: str | None = None
    """What parts the columns of a CSV, one character or `tab`; by default comma, semicolon or tab, as its first line
    has it."""
    group_pattern: str | None = None
    """Regular expression whose brackets match what names the group in a file's name, such as 'person(\\d+)'."""
    ignore_groups: bool = False
    """Split by image although groups are known, as some papers do: scores are then too high, and it says why."""
    alias_paths: bool = False
    """Put aliases in place of file names on pages, in logs and tables; `data aliases` says which is which."""
    limit: int | None = None
    """Use only so many images, always the same ones, in proportion to the classes."""
    max_unreadable: float = 0.01
    """Share of files that may be unreadable, and of pairs that may lack image or text; they are named and skipped."""


NormChoice = Literal["own", "batch", "group", "sync", "none"]
RECALIBRATED_BY = 1024
"""Training images at most by which running statistics are set, in batches of 128."""


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Which encoder, and what it is shown."""

    encoder: str = "resnet18"
    """Any architecture of timm, or `open_clip:NAME` for the image tower of a CLIP, afresh."""
    encoder_options: tuple[str, ...] = ()
    """What timm's architecture is told besides, KEY=VALUE, such as 'channels=[128,256,512,1024]' stem_chs=32 for a
    resnetv2_50x1_bit of half the width."""
    stem: Stem = "auto"
    """`small` keeps full resolution at the input (costs more, sees more); `auto` does so below 64 px."""
    init: str = "none"
    """`none` for random weights, `pretrained` for timm's own, or a .safetensors, .npz or .pth, or a run; for --towers a
    file of both or a tag."""
    norm: NormChoice = "own"
    """Convert the encoder's norms: `batch` or `group`, or `sync`, which is batch norm over all processes; `none` takes
    them out, with leaky rectifiers for activations and fresh weights, as `ebclr` needs it."""
    norm_affine: Affine = "reset"
    """Of converted norms: `reset` begins them afresh, `keep` takes scale and shift over, `recalibrate` also sets their
    running statistics by the training images."""
    policy: str = "natural"
    """Augmentation: captioned, ct, dermoscopy, digits, histology, mri, natural, randaugment, ultrasound or xray, or a
    .yaml file such as the policy.yaml that a run leaves; see `data preview`."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Images on both sides of the split. Only `train` may be learned from; without labels and texts `test` is None."""

    train: ImageSet
    test: ImageSet | None


def open_data(options: DataOptions) -> ImageSet:
    """The images that the options name.

    Raises:
        InputError: They cannot be opened, or none of them is asked for.
    """
    if options.limit is not None and options.limit < 1:
        raise InputError(f"there is nothing to do without images; --limit is {options.limit}, so give 1 or more")
    found = data_package.open(
        options.data,
        labels=options.labels,
        size=options.size,
        channels=options.channels,
        max_unreadable=options.max_unreadable,
        reading=_reading(options),
        group_pattern=options.group_pattern,
        alias_paths=options.alias_paths,
        columns=Columns(image=options.image_column, text=options.text_column, delimiter=options.delimiter),
        texts=options.texts == "read",
    )
    found = replace(found, may_cut_groups=options.ignore_groups)
    return found if options.limit is None else _limited(found, options.limit)


Options = TypeVar("Options", bound=DataOptions)


def texts_settled(options: Options, *, are_used: bool) -> Options:
    """The options with `auto` replaced by what it stands for."""
    if options.texts != "auto":
        return options
    return replace(options, texts="read" if are_used else "ignore")


def _reading(options: DataOptions) -> Reading:
    """How medical formats are read: as the options say, where they say something."""
    given = {field.name: getattr(options, field.name) for field in fields(Reading)}
    return Reading(**{name: value for name, value in given.items() if value is not None})


def split(data: ImageSet) -> Parts:
    """Training and test images: the data's own split, or a fixed hold-out by class and group.

    Without labels and texts there is nothing to score by and no test part, unless the data have one.
    """
    if (
        data.labels is None
        and data.texts is None
        and (data.parts is None or not np.isin(["test", "validation"], data.parts).any())
    ):
        return Parts(train=data, test=None)
    train, test = (data.take(part) for part in hold_out(data))
    if data.may_cut_groups and data.groups is not None:
        log.warning(
            "the split is by image, as --ignore-groups asks: %d of %d test images share a group with training images, "
            "so scores will be too high",
            *(num_shared(train, test), len(test)),
        )
    return Parts(train=train, test=test)


def num_shared(train: ImageSet, test: ImageSet) -> int:
    """How many test images share a group with a training image: none, unless the split may cut groups."""
    if train.groups is None or test.groups is None:
        return 0
    return int(np.isin(test.groups, train.groups).sum())


def require_labels(data: ImageSet, what: str, instead: str = "") -> None:
    """Refuse to go on without labels.

    Args:
        data: The images.
        what: What needs labels.
        instead: Another way out, in words.

    Raises:
        InputError: No image has one.
    """
    if not len(data.labelled):
        way_out = f"name a table with --labels{instead and ', or '}{instead}"
        raise InputError(f"{what} needs labels; {data.name} has none, so {way_out}")


def require_texts(data: ImageSet, what: str) -> None:
    """Refuse to go on without texts that tell images apart.

    Args:
        data: The images.
        what: What needs texts.

    Raises:
        InputError: There are none, or all images have the same.
    """
    if data.texts is None:
        raise InputError(
            f"{what} needs a text of each image; {data.name} has none that is read, so name a table with columns "
            "image,text as the data, or put a .txt file of the same name beside each image, without --texts ignore"
        )
    if len(set(map(frozenset, data.texts))) < 2:
        raise InputError(
            f"{what} learns which text belongs to which image, so texts must differ; all {len(data)} images of "
            f"{data.name} have {_quoted(data.texts[0][0])}, which fits each as well as any other and leaves nothing to "
            "contrast: give each image its own text, or name another column with --text-column"
        )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def check_test(test: ImageSet) -> None:
    """Refuse test images too few for an interval; asked before anything trains.

    Raises:
        InputError: It is one image, or where there are groups, one group.
    """
    unit, count = ("images", len(test)) if test.groups is None else ("groups", len(np.unique(test.groups)))
    if count < 2:
        raise InputError(
            f"scores have intervals, which take at least two labelled test {unit}; {test.name} has {count}, so label "
            f"more {unit}, or change the column `split`"
        )


def build_encoder(options: EncoderOptions, train: ImageSet, size: int, *, seed: int) -> Encoder:
    """The encoder, normalising by the statistics of the training images unless its weights bring their own."""
    check_leaks(options.init, train.name)
    torch.manual_seed(seed)
    mean, std = train.mean_std()
    return encoder(
        options.encoder,
        channels=train.channels,
        size=size,
        stem=options.stem,
        init=weights_of(options.encoder, options.init),
        mean=mean,
        std=tuple(max(value, 1e-3) for value in std),
        norm=None if options.norm == "own" else options.norm,
        affine=options.norm_affine,
        images=_some_images(train, size),
        options=_encoder_options(options.encoder_options),
    )


def _encoder_options(texts: Iterable[str]) -> dict[str, Any]:
    """From KEY=VALUE, the value in YAML, to arguments."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise InputError(f"--encoder-options are KEY=VALUE, such as channels=[128,256,512,1024]; got {text!r}")
    return found


def _some_images(train: ImageSet, size: int) -> Iterator[Tensor]:
    """Batches of training images, evenly spaced, in 0..1 at the size that the encoder sees."""
    chosen = np.linspace(0, len(train) - 1, min(len(train), RECALIBRATED_BY)).round().astype(np.int64)
    for start in range(0, len(chosen), 128):
        yield resize(as_float(train.batch(chosen[start : start + 128]).image), size)


def build_policy(name: str, size: int, channels: int) -> Policy:
    """The augmentation policy of that name, or of a YAML file.

    Raises:
        InputError: There is none, or the file is no policy for images of so many channels.
    """
    if name.endswith(policy_file.SUFFIXES):
        return policy_file.read(Path(name).expanduser(), size=size, channels=channels)
    return POLICIES[named(name, POLICIES, "policy")](size)


def build_method(
    name: str,
    config: Any,
    built: Encoder,
    policy: Policy,
    data: ImageSet,
    *,
    texts: TextOptions | None = None,
    text: TextTower | None = None,
) -> Method:
    """The method of that name around an encoder.

    Args:
        name: Of the method.
        config: Its `Config`; None stands for defaults.
        built: The encoder.
        policy: The augmentation.
        data: The training images.
        texts: Of methods that read texts, how the text tower is built, where none is given.
        text: The text tower.

    Raises:
        InputError: The method learns from labels, and the data have none, or only one class; or from texts, and
            there are none, or all are equal.
    """
    method = METHODS[named(name, METHODS, "method")]
    if method.prefers_batch_norm and kind(built.net) == "group":
        log.warning(
            "%s meets an encoder with group norm, from which it learned little in Lu et al., 2021 (with weight "
            "standardisation BYOL did well in Richemond et al., 2020); --norm batch converts it",
            name,
        )
    if method.reads_texts:
        require_texts(data, name)
        if policy.geometry.flip:
            log.warning(
                "this augmentation mirrors images, whose texts may say left and right; --policy captioned, xray, ct "
                "and mri do not"
            )
        text = text or build_text_tower(texts or TextOptions(), data)
        check_apart(text, data)
        return method(built, policy, config, text=text)  # type: ignore[call-arg]
    if not method.reads_labels(config):
        return method(built, policy, config)  # type: ignore[call-arg]
    require_labels(data, name, method.without_labels)
    if data.labels is not None and data.labels.ndim == 1 and len(np.unique(data.labels[data.labelled])) < 2:
        raise InputError(
            f"{name} tells classes apart, so it needs labels of two or more; all labels of {data.name} are "
            f"{data.classes[data.labels[data.labelled[0]]]!r}, so label images of another class"
        )
    return method(built, policy, config, num_classes=len(data.classes))  # type: ignore[call-arg]


def has_read_labels(settings: Mapping[str, Any]) -> bool:
    """Whether the encoder of a run with these settings learned from labels; of a method that is not known, yes."""
    method = METHODS.get(settings["method"])
    if method is None:
        return True
    own = {f.name: settings[f.name] for f in fields(method.Config) if f.name in settings}
    return method.reads_labels(method.Config(**own))


def named(name: str, known: Iterable[str], what: str) -> str:
    """The name itself, if it is known.

    Raises:
        InputError: It is not; near names are given.
    """
    known = sorted(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
    raise InputError(f"there is no {what} {name!r}: {hint}")


def claim_folder(out: Path, settings: dict[str, Any], *, resume: bool, can_resume: bool = True) -> None:
    """Make the folder of a run or study and write its `config.yaml`, or make sure that it is the same one's.

    Args:
        out: The folder.
        settings: Content of `config.yaml`.
        resume: Whether to go on in a folder of the same settings.
        can_resume: Whether the command has a flag for that, which the error then names.

    Raises:
        InputError: It holds something already and `resume` is not set, or it was made with other settings.
    """
    file = out / "config.yaml"
    wanted = as_written(settings)
    if file.is_file() and resume:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        changed = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if changed:
            key = sorted(changed)[0]
            raise InputError(
                f"a resumed run keeps its settings; {key} was {found.get(key)!r} in {out} and is {wanted.get(key)!r} "
                "now, so give the old value or another --out"
            )
        return
    left_by_a_kill = out / ".config.yaml.partial"
    if out.is_file() or (out.is_dir() and set(out.iterdir()) - {left_by_a_kill}):
        go_on = "add --resume or " if file.is_file() and can_resume else ""
        raise InputError(f"--out must be a new or empty folder; {out} holds something, so {go_on}name another")
    with whole_file(file) as partial:
        partial.write_text(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True), encoding="utf-8")


def as_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as `config.yaml` holds them: data by their name, paths as text."""
    written: dict[str, Any] = json.loads(json.dumps(settings, default=_plain))
    return written


def policy_files(names: Iterable[str]) -> dict[str, str]:
    """SHA-256 (hex) of those policies that are files, by their names: part of what makes a run what it is."""
    files = {name: Path(name).expanduser() for name in names if name.endswith(policy_file.SUFFIXES)}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()}


def check_same_data(out: Path, found: dict[str, Any]) -> None:
    """Write the provenance of a run or study to `run.json`, or make sure that its data are still the same.

    Raises:
        InputError: Images, labels, the split or a policy's file have changed.
    """
    file = out / "run.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else found
    if any(known.get(key, found[key]) != found[key] for key in ("fingerprint", "images", "annotations")):
        raise InputError(
            f"what is resumed keeps its data; images, labels or the split have changed since {out} began, "
            "so name another --out"
        )
    if known.get("policies", {}) != found.get("policies", {}):
        raise InputError(
            f"what is resumed keeps its augmentation; a policy's file has changed since {out} began, so restore it or "
            "name another --out"
        )
    write_json(file, found)


def data_name(data: Any) -> str:
    """What `config.yaml` calls the data: a path or name as it is, an object by its name or kind."""
    if isinstance(data, str | Path):
        return str(data)
    return data.name if isinstance(data, ImageSet) else type(data).__name__


def kept(out: Path, *, can_resume: bool) -> str:
    """What an interrupted command left in its folder, in words."""
    if is_classifier(out):
        return f"{out} keeps the classifier, which can be used; some of its scores or its card are missing"
    checkpoints = sorted(out.glob("checkpoint/epoch_*.pt"))
    if checkpoints and not can_resume:
        return f"{out} is not finished and can be deleted; the same command with another --out starts anew"
    if checkpoints:
        return f"{out} keeps the checkpoint of epoch {int(checkpoints[-1].stem[6:])}; go on with --resume"
    cells, runs = len(list(out.glob("cells/*/*/*.npz"))), len(list(out.glob("runs/*/*/encoder.safetensors")))
    begun = len(list(out.glob("runs/*/*/checkpoint/epoch_*.pt"))) > 0
    if cells or runs or begun:
        return f"{out} keeps {runs} finished encoders and {cells} scored cells; the same command goes on from there"
    return "nothing was finished yet, so nothing is kept"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all; numbers that are not finite, which JSON does not know, become null."""
    text = json.dumps(_strict(content), indent=2, default=str, allow_nan=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Data by their name, dataclasses as objects, all else as text."""
    if isinstance(value, ImageSet):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    return str(value)


def _strict(value: Any) -> Any:
    """Dataclasses and mappings as objects, sequences as arrays, what is not finite as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return _strict(vars(value))
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _limited(data: ImageSet, limit: int) -> ImageSet:
    """A fixed subset: the same share of the training and of the test part, stratified where all images are labelled."""
    if limit >= len(data):
        return data
    strata = (
        np.zeros(len(data), dtype=np.int64) if data.parts is None else np.unique(data.parts, return_inverse=True)[1]
    )
    if data.labels is not None and data.labels.ndim == 1:
        strata = strata * (len(data.classes) + 1) + data.labels + 1
    order = np.random.default_rng(0).permutation(len(data))
    order = order[np.argsort(strata[order], kind="stable")]
    kept = np.sort(order[np.linspace(0, len(data) - 1, limit).round().astype(np.int64)])
    return data.take(kept)
