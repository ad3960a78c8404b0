"""Encoders: any timm network or image tower of open_clip, for any number of channels, with a stem for small images."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kontrast.batch import as_float
from kontrast.errors import InputError
from kontrast.files import whole_file
from kontrast.nn import open_clip
from kontrast.nn.bit import write_bit
from kontrast.nn.import_timm import import_timm
from kontrast.nn.norms import Affine, Norm, convert_norm, kind
from kontrast.nn.norms import rebuild_lines as norm_lines
from kontrast.nn.weights import load_weights

Stem = Literal["auto", "standard", "small"]
SMALL_BELOW = 64
"""Images smaller than this get the small stem when the stem is `auto`."""


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What it takes to build an encoder again and to feed it: the content of `encoder.json`."""

    name: str
    """timm's name of the architecture, or `open_clip:` and open_clip's."""
    channels: int = 3
    """Channels of the image."""
    stem: Literal["standard", "small"] = "standard"
    """`small`: first convolution at stride 1 and no pooling behind it, for images below 64 px."""
    size: int = 224
    """Side of the images it was trained on, in pixels."""
    mean: tuple[float, ...] = (0.5,)
    """Subtracted from each channel of an image in 0..1; one value serves all channels."""
    std: tuple[float, ...] = (0.25,)
    """Then divided by, likewise."""
    norm: Norm | None = None
    """What its norms were converted to, `none` where they were taken out; None for the architecture's own."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of timm's `create_model`, such as `channels` of a narrower network."""


class Encoder(nn.Module):
    """A network without classifier, timm's or open_clip's, behind the normalisation that belongs to its weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.net, self.spec, self.layout = net, spec, _layout(net)
        # Some networks, MobileNetV3 among them, end in a layer of another width than their last features.
        self.width: int = getattr(net, "head_hidden_size", None) or net.num_features  # type: ignore[assignment]
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    @property
    def has_fixed_size(self) -> bool:
        """Whether it takes images of the size that it was built for and of no other."""
        return _takes_size(self.net) or open_clip.is_open_clip(self.spec.name)

    def forward(self, image: Tensor) -> Tensor:
        """Images `(n, c, h, w)`, uint8, uint16 or float in 0..1, to representations `(n, width)`."""
        x = ((as_float(image) - self.mean) / self.std).to(self.mean.dtype, memory_format=self.layout)
        representation: Tensor = self.net(x)
        return representation


def encoder(
    name: str = "resnet18",
    *,
    channels: int = 3,
    size: int = 224,
    stem: Stem = "auto",
    init: str = "none",
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.25,),
    norm: Norm | None = None,
    affine: Affine = "reset",
    images: Iterable[Tensor] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """Build an encoder.

    Args:
        name: Any timm architecture, or `open_clip:` and a model of open_clip, whose image tower it is.
        channels: Channels of the images; one channel is shown to each of the three of an open_clip model.
        size: Side of the images in pixels.
        stem: `small` keeps the resolution at the input, `auto` does so below 64 px where the architecture allows.
        init: `none` for random weights, `pretrained` for timm's own, or the path of a `.safetensors`, `.npz` or `.pth`.
        mean: Subtracted from images in 0..1. Weights that are `pretrained`, a run's, BiT's or EfficientNet-Lite's bring
            their own mean and deviation.
        std: Divided by afterwards.
        norm: `batch`, `group` or `sync`: convert the norms of the network, after its weights are loaded; `none`: take
            them out, which begins it afresh.
        affine: What becomes of their scale and shift; see `norms.convert_norm`.
        images: Batches in 0..1 for `affine="recalibrate"`.
        options: Further arguments of timm's `create_model`: numbers, words, or lists of them.

    Raises:
        InputError: Unknown name (with near ones), no small stem for this architecture, options that it does not take,
            weights that do not fit, or that would be lost with the norms.
    """
    saved = None if init in ("none", "pretrained") else _spec_beside(Path(init))
    if saved is not None:
        seen = 3 if open_clip.is_open_clip(name) else channels
        mean, std = (_fit_channels(values, seen) for values in (saved.mean, saved.std))
    if norm == "none" and saved is not None and saved.norm == "none":
        norm = None  # it has none already
    if norm == "none" and init != "none":
        raise InputError(
            f"an encoder whose norms are taken out begins afresh, so given weights would be lost; --init is {init}, so "
            "leave it or --norm none out, or in a study give one arm both, as in ebclr:init=none,norm=none"
        )
    options = dict(options or {})
    _check_options(options)
    if open_clip.is_open_clip(name):
        _check_open_clip(name, channels=channels, init=init if saved is None else "none", options=options)
        mean, std = (tuple(values) * (3 if len(values) == 1 else 1) for values in (mean, std))
    net = _create(name, channels=channels, size=size, pretrained=init == "pretrained", options=options)
    if init == "pretrained":
        mean, std = (_fit_channels(net.pretrained_cfg[key], channels) for key in ("mean", "std"))
    family = _stem_family(net)
    if stem == "small" and family is None:
        known = ", ".join(f.__name__.removeprefix("_small_").replace("_", "") for f in _SMALL_STEMS.values())
        raise InputError(f"a small stem is known for {known}; {name} is none of them, so use --stem standard")
    small = family is not None and (stem == "small" or (stem == "auto" and size < SMALL_BELOW))
    if small:
        assert family is not None
        _SMALL_STEMS[family](net)
    if saved is not None and saved.norm is not None:  # the names of weights do not tell one norm from another
        convert_norm(net, saved.norm)
    report = None if init in ("none", "pretrained") else load_weights(net, Path(init))
    if report is not None and report.statistics is not None and saved is None:
        mean, std = (_fit_channels(values, channels) for values in report.statistics)
    spec = EncoderSpec(
        name=name, channels=channels, stem="small" if small else "standard", size=size, mean=mean, std=std,
        norm=None if saved is None else saved.norm, options=options,
    )  # fmt: skip
    built = Encoder(net, spec)
    if norm is not None:
        convert_norm(built, norm, affine=affine, images=images)
        built.spec, built.layout = replace(spec, norm="batch" if norm == "sync" else norm), _layout(net)
    return built.to(memory_format=built.layout)  # type: ignore[call-overload, no-any-return]


def save_encoder(built: Encoder, folder: Path, *, stem: str = "encoder") -> None:
    """Write `encoder.safetensors`, which plain timm loads, and `encoder.json`, which says how; both atomically."""
    weights = {k: v.detach().contiguous().cpu() for k, v in built.net.state_dict().items()}
    with _described(built, folder / f"{stem}.safetensors") as partial:
        save_file(weights, partial)


def save_as_bit(built: Encoder, path: Path) -> None:
    """Write weights in the layout of BiT's files, `.npz`, and the `.json` that says what they are; both atomically.

    Raises:
        InputError: Another architecture than BiT's, another norm, or channels that timm does not read from such a file.
    """
    if built.spec.channels not in (1, 3):
        raise InputError(
            f"BiT's files are for images of 1 or 3 channels; this encoder reads {built.spec.channels}, so save it as "
            ".safetensors"
        )
    with _described(built, path) as partial:
        write_bit(built.net, partial)


@contextmanager
def _described(built: Encoder, path: Path) -> Iterator[Path]:
    """Where to write the weights that will be at `path`; their description comes beside them."""
    description = {**asdict(built.spec), "width": built.width, "rebuild": rebuild_lines(built, path.name)}
    with whole_file(path.with_suffix(".json")) as text, whole_file(path) as partial:
        yield partial
        text.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_encoder(path: Path) -> Encoder:
    """Load an encoder from a run's folder, or from an `encoder.safetensors` with its `.json` beside it.

    Raises:
        InputError: A file is missing, or the two do not belong together.
    """
    path = path / "encoder.safetensors" if path.is_dir() else path
    spec = _spec_beside(path)
    if spec is None or not path.is_file():
        raise InputError(
            f"an encoder is a .safetensors file with its .json beside it; {path} is not, so give a finished run"
        )
    told = {key: getattr(spec, key) for key in ("channels", "size", "stem", "mean", "std", "norm", "options")}
    built = encoder(spec.name, **told)
    try:
        built.net.load_state_dict(load_file(path), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} does not hold the weights that its .json describes: {error}") from error
    return built


def rebuild_lines(built: Encoder, file: str) -> list[str]:
    """Lines of Python that rebuild the network with timm, or open_clip, alone and load its weights strictly."""
    spec = built.spec
    is_bit = file.endswith(".npz")
    reader = [] if is_bit else ["from safetensors.torch import load_file"]
    if open_clip.is_open_clip(spec.name):
        library, line = "open_clip", open_clip.rebuild_line(spec.name.removeprefix(open_clip.PREFIX), spec.size)
    else:
        more = {**spec.options, **({"img_size": spec.size} if _takes_size(built.net) else {})}
        told = "".join(f", {key}={value!r}" for key, value in more.items())
        line = f"net = timm.create_model({spec.name!r}, num_classes=0, in_chans={spec.channels}{told})"
        library = "timm"
    lines = [f"import {library}, torch", *reader, line]
    if spec.stem == "small":
        lines += _small_stem_lines(built.net)
    if spec.norm is not None:
        lines += norm_lines(spec.norm)
    load = f"load_pretrained({file!r})" if is_bit else f"load_state_dict(load_file({file!r}), strict=True)"
    return [*lines, f"net.{load}", "net.eval()"]


def _create(name: str, *, channels: int, size: int, pretrained: bool, options: Mapping[str, Any]) -> Any:
    if open_clip.is_open_clip(name):
        return open_clip.image_network(name.removeprefix(open_clip.PREFIX), size=size)
    timm = import_timm()
    options = {**options, "num_classes": 0, "in_chans": channels, "pretrained": pretrained}
    if name.partition(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise InputError(f"an encoder is one of timm's architectures; {name!r} is none, near names: {', '.join(near)}")
    try:
        net = timm.create_model(name, **options)
        if "zero_init_last" in signature(type(net)).parameters and "zero_init_last" not in options:
            # Residual branches that start at zero leave an untrained ResNet blind to all but a corner of small images.
            net = timm.create_model(name, zero_init_last=False, **options)
        if _takes_size(net) and net.patch_embed.img_size != (size, size):
            _check_patches(net, name, size)
            net = timm.create_model(name, img_size=size, **options)
        if len(options) > len(_OURS):
            _check_output(net, channels, size)
    except InputError:
        raise
    except Exception as error:
        if not pretrained and len(options) > len(_OURS):
            said = ", ".join(f"{key}={value}" for key, value in options.items() if key not in _OURS)
            raise InputError(
                f"--encoder-options are arguments of timm's {name}; it does not take {said} ({str(error)[:120]}), so "
                "change them"
            ) from error
        if not pretrained:
            raise
        raise InputError(
            f"timm could not provide pre-trained weights for {name} ({type(error).__name__}: {str(error)[:120]}); "
            "give --init a local file, or --init none"
        ) from error
    return net


def _check_open_clip(name: str, *, channels: int, init: str, options: Mapping[str, Any]) -> None:
    open_clip.check_channels(channels)
    if init != "none":
        raise InputError(
            f"weights of open_clip belong to both towers; --init is {init}, so use clip with --towers {name}"
        )
    if options:
        raise InputError(f"--encoder-options are told to timm; {name} takes none, so leave {', '.join(options)} out")


_OURS = ("num_classes", "in_chans", "pretrained")
_OTHERS = ("img_size", "cache_dir", "checkpoint_path", "features_only", "out_indices", "scriptable", "exportable")
"""Arguments of `create_model` that would read files, or make of the network what is no encoder."""


def _check_options(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        items = value if isinstance(value, list | tuple) else [value]
        if key in (*_OURS, *_OTHERS) or key.startswith("pretrained"):
            raise InputError(f"--encoder-options change the architecture; {key} is set by other flags, so leave it out")
        if not key.isidentifier() or not all(isinstance(item, bool | int | float | str) for item in items):
            raise InputError(
                "--encoder-options are a name, =, and a number, a word or a list of them, such as "
                f"channels=[128,256,512,1024]; got {key}={value!r}"
            )


@torch.no_grad()
def _check_output(net: Any, channels: int, size: int) -> None:
    """Raises what the network raises on an image, or that it does not make a row of numbers of it."""
    found = deepcopy(net).eval()(torch.zeros(1, channels, size, size))
    if found.ndim != 2:
        raise ValueError(f"an image becomes {tuple(found.shape[1:])} and not a row of numbers")


def _layout(net: nn.Module) -> torch.memory_format:
    """How images lie in memory: torch's group norm takes twice as long on channels that come last."""
    return torch.contiguous_format if kind(net) == "group" else torch.channels_last


def _takes_size(net: Any) -> bool:
    """Vision transformers fix the image size when they are built."""
    return getattr(getattr(net, "patch_embed", None), "img_size", None) is not None


def _check_patches(net: Any, name: str, size: int) -> None:
    patch = getattr(net.patch_embed, "patch_size", 1)
    side = patch if isinstance(patch, int) else max(patch)
    if size % side:
        below, above = size // side * side, (size // side + 1) * side
        near = f"{below} or {above}" if below else above
        raise InputError(f"{name} cuts images into patches of {side} px; {size} px is no multiple, so use {near} px")


def _fit_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),)


def _spec_beside(path: Path) -> EncoderSpec | None:
    file = (path / "encoder.json") if path.is_dir() else path.with_suffix(".json")
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        fields = {"norm": None, "options": {}, **known}
        if not isinstance(fields["options"], dict):
            raise ValueError("its options are no object")
        fields = {k: fields[k] for k in EncoderSpec.__dataclass_fields__}
    except ValueError as error:
        raise InputError(f"{file} is not a whole JSON file ({error}), so export the run again") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} describes an encoder by its {', '.join(EncoderSpec.__dataclass_fields__)}; "
            f"{error} is missing, so export the run again"
        ) from error
    return EncoderSpec(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def _stem_family(net: nn.Module) -> str | None:
    family = type(net).__name__
    return family if family in _SMALL_STEMS else None


def _slow_down(convolution: Any) -> None:
    convolution.stride = (1, 1)


def _small_resnet(net: Any) -> None:
    if isinstance(net.conv1, nn.Sequential):
        _slow_down(net.conv1[0])
    else:
        net.conv1 = _three_by_three(net.conv1)
    net.maxpool = nn.Identity()


def _small_resnet_v2(net: Any) -> None:
    if hasattr(net.stem, "conv"):
        net.stem.conv = _three_by_three(net.stem.conv)
    else:
        _slow_down(net.stem.conv1)
    net.stem.pool = nn.Identity()
    if hasattr(net.stem, "pad"):  # BiT's, which belongs to its pooling
        net.stem.pad = nn.Identity()


def _small_efficientnet(net: Any) -> None:
    _slow_down(net.conv_stem)


def _three_by_three(old: Any) -> nn.Module:
    """A 3 × 3 convolution of the same kind (plain, or weight-standardised) at stride 1, freshly initialised."""
    new: nn.Module = type(old)(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    return new


_SMALL_STEMS: dict[str, Callable[[Any], None]] = {
    "ResNet": _small_resnet,
    "ResNetV2": _small_resnet_v2,
    "EfficientNet": _small_efficientnet,
}


def _small_stem_lines(net: Any) -> list[str]:
    family = _stem_family(net)
    new = "{0} = type({0})({0}.in_channels, {0}.out_channels, 3, stride=1, padding=1, bias={0}.bias is not None)"
    if family == "ResNetV2":
        first = new.format("net.stem.conv") if hasattr(net.stem, "conv") else "net.stem.conv1.stride = (1, 1)"
        pad = ["net.stem.pad = torch.nn.Identity()"] if hasattr(net.stem, "pad") else []
        return [first, "net.stem.pool = torch.nn.Identity()", *pad]
    if family == "EfficientNet":
        return ["net.conv_stem.stride = (1, 1)"]
    first = "net.conv1[0].stride = (1, 1)" if isinstance(net.conv1, nn.Sequential) else new.format("net.conv1")
    return [first, "net.maxpool = torch.nn.Identity()"]
