"""The command line: what is typed, what is said, and the exit code."""

import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import kontrast as package
from kontrast.cli import VERBS, main

TINY = ["--encoder", "test_efficientnet", "--stem", "standard", "--epochs", "1", "--batch-size", "8"]


@pytest.fixture
def images(tmp_path):
    """20 grey images of 16 px in two classes."""
    for kind in range(2):
        (tmp_path / f"images/class{kind}").mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng([kind, number]).integers(0, 128, (16, 16)) + 100 * kind
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"images/class{kind}/{number}.png")
    return tmp_path / "images"


@pytest.fixture
def refused(capsys):
    def refused(*words):
        assert main([str(word) for word in words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        lines = shown.err.splitlines()
        assert len(lines) == 1, shown.err
        assert lines[0].startswith("kontrast: ")
        return lines[0]

    return refused


@pytest.fixture
def shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # a wider one has several columns, whose lines would mix

    def shown(*words, code=0):
        try:
            found = main(list(words))
        except SystemExit as error:
            found = error.code
        both = capsys.readouterr()
        assert found == code, both.err
        return re.sub(r"[\s│]+", " ", both.out + both.err)

    return shown


def labels(path, text):
    path.write_text(text)
    return path


def bad_inputs():
    """Name, what to type after making the images, and a part of the sentence."""

    def one(name, said, *words, make=lambda tmp_path: None):
        return pytest.param(make, words, said, id=name)

    def write(name, text):
        return lambda tmp_path: labels(tmp_path / name, text)

    def one_class(tmp_path):
        for number in range(5):
            (tmp_path / "images/class1" / f"{number}.png").unlink()
            (tmp_path / "images/class1" / f"{number + 5}.png").unlink()

    def damaged(tmp_path):
        (tmp_path / "images/class0/3.png").write_bytes(b"no image")

    def flat(tmp_path):
        (tmp_path / "flat").mkdir()
        for number in range(4):
            Image.new("L", (16, 16), number).save(tmp_path / f"flat/{number}.png")

    run = ["pretrain", "simclr", "IMAGES", "--out", "OUT"]
    study = ["study", "IMAGES", "--out", "OUT"]
    table = [*run, "--labels", "TMP/labels.csv"]
    return [
        one("missing folder", "there is no folder", "pretrain", "simclr", "TMP/none", "--out", "OUT"),
        one("empty folder", "holds none", "pretrain", "simclr", "TMP/empty", "--out", "OUT",
            make=lambda tmp_path: (tmp_path / "empty").mkdir()),
        one("one class only", "at least two classes", *run, make=one_class),
        one("labels for missing files", "are not in", *table, make=write("labels.csv", "path,label\nx.png,a\n")),
        one("NaN labels", "has 'nan'", *table, make=write("labels.csv", "path,label\nclass0/1.png,nan\n")),
        one("no column path", "in a column `path`", *table, make=write("labels.csv", "file,label\nclass0/1.png,a\n")),
        one("no such table", "there is none at", *table),
        one("fewer labels than classes", "every class needs a label", *study, "--fractions", "0.01"),
        one("too many unreadable", "1 of 20 are (class0/3.png", *run, make=damaged),
        one("smaller than the crop", "16", *run, "--size", "64"),
        one("channels", "1 where 2 are wanted", *run, "--channels", "2"),
        one("unknown encoder", "resnet18", *run, "--encoder", "resnet_18"),
        one("unknown policy", "did you mean natural?", *run, "--policy", "naturl"),
        one("unknown method", "did you mean simsiam?", "pretrain", "simsim", "IMAGES", "--out", "OUT"),
        one("unknown protocol", "did you mean linear?", "evaluate", "lineer", "TMP/run"),
        one("no finished run", "pretrain first", "evaluate", "linear", "TMP/run"),
        one("supervised without labels", "supervised learning needs labels", "pretrain", "supervised", "TMP/flat",
            "--out", "OUT", make=flat),
        one("study without labels", "a study needs labels", "study", "TMP/flat", "--out", "OUT", make=flat),
        one("no method", "pretrain needs a method", "pretrain"),
        one("unknown command", "there is no command 'pretrian'", "pretrian"),
        one("half a command", "there is no command 'data'", "data"),
        one("a word too many", "is a flag; got 'more'", "pretrain", "simclr", "IMAGES", "more"),
        one("missing recipe", "there is no file", *run, "--recipe", "TMP/none.yaml"),
        one("recipe that is no YAML", "is not", *run, "--recipe", "TMP/r.yaml", make=write("r.yaml", "a: [1, 2")),
        one("recipe that is a list", "holds a list", *run, "--recipe", "TMP/r.yaml", make=write("r.yaml", "- a\n")),
        one("no epochs", "epochs must be 1 or more", *run, "--epochs", "0"),
        one("no such weights", "there is no file", *run, "--init", "TMP/none.npz"),
    ]  # fmt: skip


@pytest.mark.parametrize(("make", "words", "said"), bad_inputs())
def test_bad_input_gets_one_sentence_and_exit_code_2(make, words, said, images, tmp_path, refused):
    make(tmp_path)
    places = {"IMAGES": str(images), "OUT": str(tmp_path / "out"), "TMP": str(tmp_path)}
    typed = [re.sub("IMAGES|OUT|TMP", lambda found: places[found[0]], word) for word in words]
    assert said in refused(*typed)
    assert not (tmp_path / "out").exists()


def test_a_refusal_of_a_real_process_is_one_line_without_a_traceback(tmp_path):
    words = [sys.executable, "-m", "kontrast", "pretrain", "simclr", tmp_path / "none", "--out", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"kontrast: data must be an existing folder or file; there is no folder {tmp_path / 'none'}: check the path\n"
    )


def test_help_and_version_import_no_torch():
    code = (
        "import sys\nfrom kontrast.cli import main\n"
        "assert main(['--help']) == main(['--version']) == main([]) == 0\n"
        "sys.exit(bool({'torch', 'timm', 'tyro', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb.example in done.stdout for verb in VERBS.values())


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_with_its_example(verb, shown):
    assert VERBS[verb].example in shown(*verb.split(), "--help")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["pretrain", "simclr"], "kontrast.commands.pretrain.Pretrain"),
        (["study"], "kontrast.commands.study.Study"),
        (["evaluate"], "kontrast.commands.evaluate.Evaluate"),
        (["finetune"], "kontrast.commands.finetune.Finetune"),
        (["predict"], "kontrast.commands.predict.Predict"),
        (["embed"], "kontrast.commands.embed.Embed"),
        (["search"], "kontrast.commands.search.Search"),
        (["export"], "kontrast.commands.export.Export"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_help_explains_every_flag_in_the_words_of_its_docstring(words, options, shown):
    import ast
    import inspect
    from dataclasses import fields
    from importlib import import_module

    module, _, name = options.rpartition(".")
    kind = getattr(import_module(module), name)
    documented = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(inspect.getsource(base)).body[0].body
        for before, after in pairwise(body):
            if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
                documented[before.target.id] = after.value.value
    help_text = shown(*words, "--help")
    assert {f.name for f in fields(kind)} <= documented.keys()
    for name, text in documented.items():
        if name not in ("config", "configs"):
            assert f"--{name.replace('_', '-')}" in help_text
            assert " ".join(text.split("\n\n")[0].split()).rstrip(".")[:60] in help_text, name


def test_a_methods_own_settings_are_flags_of_its_command_alone(shown):
    assert "--temperature" in shown("pretrain", "simclr", "--help")
    assert "--bottleneck" in shown("pretrain", "simsiam", "--help")
    assert "--bottleneck" not in shown("pretrain", "simclr", "--help")
    assert "--simclr.temperature" in shown("study", "--help")
    assert "--temperature" not in shown("pretrain", "--help")


def test_an_unknown_flag_is_refused_with_2(images, tmp_path, shown):
    words = ["pretrain", "simclr", str(images), "--out", str(tmp_path / "out"), "--temprature", "1"]
    assert "--temprature" in shown(*words, code=2)
    assert not (tmp_path / "out").exists()


def test_flags_of_a_recipe_are_read_and_typed_ones_win(images, tmp_path):
    recipe = labels(
        tmp_path / "recipe.yaml",
        f"# a comment\ndata: {images}\nencoder: test_efficientnet\nstem: standard\nepochs: 3\nbatch_size: 8\n"
        "labels: null\ntemperature: 0.3\nlr: 1e-3\n",
    )
    words = ["pretrain", "simclr", "--recipe", str(recipe), "--epochs=1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    config = (tmp_path / "run/config.yaml").read_text()
    assert "epochs: 1\n" in config
    assert "temperature: 0.3\n" in config
    assert "lr: 0.001\n" in config


def test_a_full_disk_is_one_sentence(images, tmp_path, capsys):
    from pathlib import Path

    if not Path("/dev/full").is_char_device():
        pytest.skip("needs /dev/full")
    out = tmp_path / "run"
    words = ["pretrain", "simclr", str(images), *TINY, "--epochs", "2", "--out", str(out)]
    assert main(words) == 0
    (out / "checkpoint/epoch_00002.pt").unlink()
    (out / "checkpoint/epoch_00002.partial").symlink_to("/dev/full")
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("kontrast: a checkpoint must fit on the disk; no space is left for ")
    assert main([*words, "--resume"]) == 0


def test_packages_that_are_verbs_stay_callable_after_their_modules_are_imported(images, tmp_path):
    import kontrast.evaluate.knn
    import kontrast.study.page  # noqa: F401

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = {"encoder": "test_efficientnet", "stem": "standard", "epochs": 1, "batch_size": 8, "seeds": 1}
    page = package.study(
        data=str(images), out=tmp_path / "study", per_class=(1,), draws=1, finetune_steps=1, **settings
    )
    torch.set_num_threads(before)
    assert page.name == "report.html"
    with pytest.raises(TypeError, match="positional"):
        package.study(str(images))
    code = (
        "import kontrast; assert callable(kontrast.study); import kontrast.study.figures; kontrast.study(data='none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "TypeError" in done.stderr
    assert "out" in done.stderr.splitlines()[-1]
