"""The command line: verbs to commands. The only file that knows tyro."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from kontrast import interrupts
from kontrast.errors import InputError, TrainingStopped


@dataclass(frozen=True)
class Verb:
    """A command as the user types it."""

    module: str
    options: str
    """Name of its dataclass."""
    function: str
    words: tuple[str, ...]
    """Options that may be given without a flag, in this order, before all flags."""
    help: str
    example: str


VERBS = {
    "study": Verb(
        "study", "Study", "run", ("data",),
        "Does pre-training help on these images? Trains, compares, writes report.html.",
        "kontrast study images/ --labels labels.csv --out study/",
    ),
    "compare": Verb(
        "compare", "Compare", "run", ("studies...",),
        "Put several studies on one page.",
        "kontrast compare study-a/ study-b/ --out compare.html",
    ),
    "pretrain": Verb(
        "pretrain", "Pretrain", "run", ("method", "data"),
        "Learn an encoder from images without labels.",
        "kontrast pretrain simclr images/ --encoder resnet18 --epochs 100 --out runs/a",
    ),
    "evaluate": Verb(
        "evaluate", "Evaluate", "run", ("protocol", "run"),
        "Score an encoder at several numbers of labels, with intervals.",
        "kontrast evaluate linear runs/a --labels labels.csv --fractions 0.01 0.1",
    ),
    "finetune": Verb(
        "finetune", "Finetune", "run", ("task", "run"),
        "Train a classifier from an encoder and all labels.",
        "kontrast finetune classification runs/a --labels labels.csv --out runs/classifier",
    ),
    "predict": Verb(
        "predict", "Predict", "run", ("run", "data"),
        "Classify images, with calibrated probabilities, or abstain; a run of clip does so by texts, uncalibrated.",
        "kontrast predict runs/classifier images/ --out predictions.csv --abstain-below 0.8",
    ),
    "embed": Verb(
        "embed", "Embed", "run", ("run", "data"),
        "Write the representations of images to .parquet, .csv or .npz.",
        "kontrast embed runs/a images/ --out embeddings.parquet",
    ),
    "search": Verb(
        "search", "Search", "run", ("run", "query"),
        "Find the images nearest to a text, or the texts and images nearest to an image, by a run of clip.",
        'kontrast search runs/clip "left sided opacity" --data images/ --out found.csv found.html',
    ),
    "export": Verb(
        "export", "Export", "run", ("run",),
        "Write weights for plain timm or as ONNX, with a model card.",
        "kontrast export runs/classifier --out classifier.onnx",
    ),
    "data list": Verb("data", "List", "run_list", (), "List the sample data sets.", "kontrast data list"),
    "data get": Verb(
        "data", "Get", "run_get", ("name",), "Fetch a sample data set.", "kontrast data get digits-5k"
    ),
    "data preview": Verb(
        "data", "Preview", "run_preview", ("data",),
        "Look at the views that an augmentation policy makes of your images.",
        "kontrast data preview images/ --policy xray",
    ),
    "data check": Verb(
        "check", "Check", "run_for_exit_code", ("data",),
        "Find leaks, duplicates and conflicting labels before anything trains; exit code 1 for a leak.",
        "kontrast data check images/ --labels labels.csv --out check/",
    ),
    "data aliases": Verb(
        "data", "AliasTable", "run_aliases", ("data",),
        "Write which alias stands for which file and group.",
        "kontrast data aliases images/ --out aliases.csv",
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: what the command returns if that is a whole number, else 0.

    1 is also training that stopped itself, 2 bad input, and 130 Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"kontrast {version('kontrast')}")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options: Any = None
    try:
        function, options = _parse(words)
        with interrupts.remembered():
            result = function(options)
    except InputError as error:
        return _fail(str(error), 2)
    except TrainingStopped as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail(f"stopped; {_kept(options)}", 130)
    except PermissionError as error:
        return _fail(f"files must be readable and folders writable; {error.filename} is not, so name another", 2)
    except Exception as error:
        if not _disk_is_full(error):
            raise
        what = getattr(error, "filename", None) or "the results"
        return _fail(f"results must fit on the disk; no space is left for {what}, so free some and go on", 2)
    return result if isinstance(result, int) else 0


def _parse(words: list[str]) -> tuple[Callable[[Any], object], Any]:
    """From what was typed to a command's function and its options; tyro answers `--help` and unknown flags itself."""
    name = next((verb for verb in VERBS if words[: len(verb.split())] == verb.split()), None)
    if name is None:
        raise InputError(f"there is no command {words[0]!r}; kontrast --help lists them: {', '.join(VERBS)}")
    verb = VERBS[name]
    rest = words[len(name.split()) :]
    given, rest = _leading_words(verb, rest)
    rest = [*(part for option, values in given.items() for part in (f"--{option}", *values)), *rest]
    rest = _with_recipe(_with_study(rest) if name == "study" else rest)
    module = import_module(f"kontrast.commands.{verb.module}")
    kind = getattr(module, verb.options)
    if name == "pretrain":
        kind = _with_method(kind, _flag(rest, "--method") or "", asks_help=bool({"-h", "--help"} & {*rest}))
    if name == "study":
        kind = _with_methods(kind)
    options = _tyro(kind, f"kontrast {name}", verb, rest)
    if name == "study":
        used = {text.partition(":")[0] for text in options.methods}
        configs = {name: getattr(options.configs, name) for name in sorted(used) if hasattr(options.configs, name)}
        options = replace(options, configs=configs)
    return getattr(module, verb.function), options


def _tyro(kind: type[Any], program: str, verb: Verb, arguments: list[str]) -> Any:
    import tyro

    words = " ".join(word.upper() for word in verb.words)
    description = f"{verb.help}\n\nUsage: {program} {words} [flags]\n\nExample: {verb.example}\n\n"
    description += "--recipe FILE.yaml reads flags from a file, such as the config.yaml of a run."
    return tyro.cli(kind, prog=program, description=description, args=arguments)


def _leading_words(verb: Verb, words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options given by position, and what is left; they end at the first flag. One with dots takes several words."""
    given: dict[str, list[str]] = {}
    for option in verb.words:
        while words and not words[0].startswith("-"):
            given.setdefault(option.removesuffix("..."), []).append(words.pop(0))
            if not option.endswith("..."):
                break
    if words and not words[0].startswith("-"):
        raise InputError(
            f"everything after {' '.join(verb.words).upper() or 'the command'} is a flag; got {words[0]!r}"
        )
    return given, words


def _with_study(words: list[str]) -> list[str]:
    """For `--from STUDY`: its settings as a recipe, its figures to compare with, and a folder beside it to write."""
    first = _flag(words, "--from")
    if first is None:
        return words
    words = _without(words, "--from")
    if _flag(words, "--recipe") is not None:
        raise InputError(
            f"--from {first} is a recipe already, with all settings of that study: leave out one of the two"
        )
    settings = Path(first) / "config.yaml"
    if not settings.is_file():
        raise InputError(f"--from names the folder of a study; {first or 'nothing'} holds no config.yaml")
    out = [] if _flag(words, "--out") is not None else ["--out", f"{Path(first).resolve()}-repeated"]
    return [*words, "--recipe", str(settings), "--repeats", first, *out]


def _without(words: list[str], flag: str) -> list[str]:
    """What was typed, less a flag and its value."""
    at = next(i for i, word in enumerate(words) if word.partition("=")[0] == flag)
    return words[:at] + words[at + (1 if "=" in words[at] else 2) :]


def _with_recipe(words: list[str]) -> list[str]:
    """Flags from the file of `--recipe`, except those that were typed, then what was typed."""
    path = _flag(words, "--recipe")
    if path is None:
        return words
    words = _without(words, "--recipe")
    typed = {word.partition("=")[0] for word in words if word.startswith("--")}
    flags = _read_recipe(Path(path))
    return [part for flag, values in flags if flag not in typed for part in (flag, *values)] + words


def _read_recipe(path: Path) -> list[tuple[str, list[str]]]:
    import yaml

    if not path.is_file():
        raise InputError(f"--recipe names a YAML file of flags; there is no file {path}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"a recipe is YAML, one `flag: value` a line; {path} is not: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"a recipe is YAML, one `flag: value` a line; {path} holds a {type(found).__name__}")
    return [flag for key, value in found.items() for flag in _as_flags(f"--{key}".replace("_", "-"), value)]


def _as_flags(flag: str, value: Any) -> list[tuple[str, list[str]]]:
    """`{simclr: {width: 64}}` is `--simclr.width 64`; a list is one flag with several values."""
    if value is None or value in ([], ()):
        return []
    if isinstance(value, bool):
        return [(flag if value else flag.replace("--", "--no-", 1), [])]
    if isinstance(value, dict):
        inner = "--" if flag == "--configs" else f"{flag}."
        return [part for key, item in value.items() for part in _as_flags(f"{inner}{key}".replace("_", "-"), item)]
    return [(flag, [str(item) for item in value] if isinstance(value, list) else [str(value)])]


def _flag(words: list[str], flag: str) -> str | None:
    """The value of a flag among what was typed."""
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name == flag:
            return value if equals else following
    return None


def _with_method(kind: type[Any], method: str, *, asks_help: bool) -> type[Any]:
    """`Pretrain` with the flags of one method's own settings; for help without a method, with none."""
    import tyro

    from kontrast.commands.assemble import named
    from kontrast.methods import METHODS

    if not method and asks_help:
        none = ("config", Annotated[Any, tyro.conf.Suppress, tyro.conf.Fixed], field(default=None))
        return make_dataclass(kind.__name__, [none], bases=(kind,), frozen=True, kw_only=True)
    if not method or method.startswith("-"):
        raise InputError(f"pretrain needs a method: kontrast pretrain METHOD DATA --out RUN, with {', '.join(METHODS)}")
    own: type[Any] = METHODS[named(method, METHODS, "method")].Config
    config = ("config", Annotated[own, tyro.conf.arg(name="")], field(default_factory=own))
    return make_dataclass(kind.__name__, [config], bases=(kind,), frozen=True, kw_only=True)


def _with_methods(kind: type[Any]) -> type[Any]:
    """`Study` with flags such as `--simclr.temperature` for every method."""
    import tyro

    from kontrast.methods import METHODS

    owns: dict[str, type[Any]] = {name: method.Config for name, method in METHODS.items() if name != "supervised"}
    configs = make_dataclass("Configs", [(n, own, field(default_factory=own)) for n, own in owns.items()], frozen=True)
    config = ("configs", Annotated[configs, tyro.conf.arg(name="")], field(default_factory=configs))
    return make_dataclass(kind.__name__, [config], bases=(kind,), frozen=True, kw_only=True)


def _kept(options: Any) -> str:
    if not isinstance(getattr(options, "out", None), Path):
        return "nothing was written yet"  # said before anything is imported: what was stopped may be an import of torch
    from kontrast.commands.assemble import kept

    return kept(options.out, can_resume=hasattr(options, "resume"))


def _disk_is_full(error: Exception) -> bool:
    from kontrast.train.checkpoint import no_space_left

    return no_space_left(error)


def _fail(sentence: str, code: int) -> int:
    print(f"kontrast: {' '.join(sentence.splitlines())}", file=sys.stderr)
    return code


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.help}\n  {'':{width}}    {verb.example}" for name, verb in VERBS.items()]
    return (
        "kontrast: from many unlabelled images and a few labels to the best encoder they allow, with the evidence.\n\n"
        "Commands, each with an example; kontrast COMMAND --help lists all flags with their defaults:\n"
        + "\n".join(lines)
        + "\n\nTry it now: kontrast study sample:digits-5k --policy digits --out demo/"
    )
