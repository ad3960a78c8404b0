"""Several studies on one page: paired where that is fair, side by side where it is not."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

import kontrast as package
from kontrast import data
from kontrast.evaluate import intervals
from kontrast.study.plan import Answers, read_answers, write_answers

FAST = ["--epochs", "1", "--batch-size", "16"]


@pytest.fixture(scope="module")
def study(tmp_path_factory, images, training, scoring):
    from kontrast.cli import main

    out = tmp_path_factory.mktemp("studies") / "first"
    assert main(["study", str(images), *training, *FAST, *scoring, "--out", str(out)]) == 0
    return out


@pytest.fixture
def better(study, tmp_path):
    """The same study, but its SimCLR was right everywhere."""
    out = tmp_path / "better"
    shutil.copytree(study, out)
    with np.load(out / "truth.npz") as truth:
        right = np.eye(2, dtype=np.float32)[truth["test"]]
    for path in (out / "cells" / "simclr-linear").glob("*/*.npz"):
        before = read_answers(path)
        write_answers(path, Answers(test=right, validation=before.validation, labelled=before.labelled))
    return out


def figures(page):
    return json.loads(page.with_suffix(".json").read_text())


def test_studies_of_the_same_images_are_compared_pair_by_pair(study, better, kontrast, tmp_path):
    out = tmp_path / "compare.html"
    assert kontrast("compare", study, better, "--out", out) == 0
    found = figures(out)
    assert [one["arm"] for one in found["differences"]] == [
        f"better {arm}" for arm in ("simclr-linear", "scratch", "untrained-linear")
    ]
    arms = []
    for folder in (better, study):
        paths = sorted((folder / "cells" / "simclr-linear" / "seed-0").glob("*.npz"))
        arms.append(np.stack([read_answers(path).test for path in paths])[None].astype(float))
    with np.load(study / "truth.npz") as truth:
        expected = intervals.difference(truth["test"], *arms, "accuracy")
    assert found["differences"][0]["estimate"]["value"] == expected.value
    assert [one["estimate"]["value"] for one in found["differences"][1:]] == [0, 0]
    html = out.read_text()
    assert "first: SimCLR, linear probe" in html
    assert "better: SimCLR, linear probe" in html
    assert "the same images, labels and split" in html
    assert " of 3 paired differences of accuracy leave out 0" in found["verdict"][0]


def test_the_scores_on_the_page_are_those_of_the_studies(study, better, kontrast, tmp_path):
    out = tmp_path / "compare.html"
    assert kontrast("compare", study, better, "--out", out) == 0
    rows = json.loads((study / "study.json").read_text())["rows"]
    assert [row["scores"] for row in figures(out)["rows"][: len(rows)]] == [row["scores"] for row in rows]


def test_studies_of_other_images_stand_side_by_side_without_a_difference(
    study, draw_folder, training, scoring, kontrast, tmp_path
):
    other, out = tmp_path / "other", tmp_path / "compare.html"
    images = draw_folder(tmp_path / "images", count=12, side=20)
    assert kontrast("study", images, *training, *FAST, *scoring, "--out", other) == 0
    assert kontrast("compare", study, other, "--out", out) == 0
    found = figures(out)
    assert found["differences"] == []
    assert found["verdict"][0] == "These studies cannot be compared pair by pair; their scores stand side by side."
    assert found["notes"] == [
        "first and other: other images, so their scores stand side by side and no difference is computed."
    ]
    assert f"data: first {folder_of(study)}, other {images}" in out.read_text()


def folder_of(study):
    return yaml.safe_load((study / "config.yaml").read_text())["data"]


@pytest.fixture
def table(images, tmp_path):
    """A table of the images, the first five of each class to test; any field of any row may be another."""

    def table(name, **changed):
        rows = []
        for path in sorted(images.rglob("*.png")):
            side = "test" if int(path.stem) < 5 else "train"
            key = f"{path.parent.name}{path.stem}"
            known = {"path": path, "label": path.parent.name, "split": side, "group": f"of {key}"}
            rows.append({**known, **changed.get(key, {})})
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / f"{name}.csv"

    return table


@pytest.mark.parametrize(
    ("changed", "why_not"),
    [
        (
            {"dark00": {"split": "train"}, "dark20": {"split": "test"}},
            "the same images, but another split",
        ),
        (
            {"dark00": {"label": "light"}, "light00": {"label": "dark"}},
            "the same test images, but other labels, groups or names of classes",
        ),
        (
            {"dark00": {"group": "one"}, "dark01": {"group": "one"}},
            "the same test images, but other labels, groups or names of classes",
        ),
        (
            {"dark20": {"label": "light"}, "light20": {"label": "dark"}},
            "the same test images, but other training images, or other labels or groups of them",
        ),
    ],
    ids=["test images", "test labels", "test groups", "training labels"],
)
def test_studies_of_the_same_images_are_not_paired_if_anything_else_of_the_data_differs(
    changed, why_not, table, training, scoring, kontrast, tmp_path
):
    """In each case the labels of the test images, as numbers in their order, are the same or as many of each."""
    for name, change in (("one", {}), ("other", changed)):
        words = ["study", table(name, **change), *training, *FAST, *scoring, "--draws", 1, "--out", tmp_path / name]
        assert kontrast(*words) == 0
    out = tmp_path / "compare.html"
    assert kontrast("compare", tmp_path / "one", tmp_path / "other", "--out", out) == 0
    found = figures(out)
    assert found["differences"] == []
    assert found["notes"][0].startswith(f"one and other: {why_not}, so")


def test_studies_of_classes_of_other_names_are_not_paired(study, kontrast, tmp_path):
    other, out = tmp_path / "other", tmp_path / "compare.html"
    shutil.copytree(study, other)
    with np.load(study / "truth.npz") as truth:
        np.savez(other / "truth.npz", **{**truth, "classes": np.array(["dark", "night"])})
    assert kontrast("compare", study, other, "--out", out) == 0
    assert figures(out)["differences"] == []
    assert "names of classes" in figures(out)["notes"][0]


def test_a_multilabel_study_whose_labels_have_gaps_is_paired_with_its_copy(images, kontrast, tmp_path):
    opened = data.open(images)
    labels = np.eye(2)[opened.labels]
    labels[::5, 1] = np.nan
    several = opened.with_labels(labels, ("dark", "light"))
    settings = {"encoder": "test_efficientnet", "stem": "standard", "precision": "float32", "epochs": 1}
    settings |= {"batch_size": 16, "seeds": 1, "draws": 1, "fractions": (0.5,), "finetune_steps": 1}
    first, second, out = (tmp_path / name for name in ("first", "second", "compare.html"))
    package.study(data=several, out=first, **settings)
    with np.load(first / "truth.npz") as truth:
        assert np.isnan(truth["test"]).any(), "else this tests nothing"
    shutil.copytree(first, second)
    assert kontrast("compare", first, second, "--out", out) == 0
    assert [one["estimate"]["value"] for one in figures(out)["differences"]] == [0, 0, 0]


def test_other_draws_are_not_paired(study, images, training, scoring, kontrast, tmp_path):
    other, out = tmp_path / "other", tmp_path / "compare.html"
    assert kontrast("study", images, *training, *FAST, *scoring, "--seed", 5, "--out", other) == 0
    assert kontrast("compare", study, other, "--out", out) == 0
    assert figures(out)["differences"] == []


def test_folders_of_one_name_are_told_apart_by_their_paths(study, kontrast, tmp_path):
    second, out = tmp_path / "first", tmp_path / "compare.html"
    shutil.copytree(study, second)
    assert kontrast("compare", study, second, "--out", out) == 0
    assert [row["title"] for row in figures(out)["rows"]][::3] == [
        f"{f}: SimCLR, linear probe" for f in (study, second)
    ]


def test_what_cannot_be_compared_is_refused_and_nothing_is_overwritten(study, refused, tmp_path):
    assert "two or more studies, each once" in refused("compare", study)
    assert "two or more studies, each once" in refused("compare", study, study)
    assert "holds study.json" in refused("compare", study, tmp_path)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert "never overwrite" in refused("compare", study, tmp_path, "--out", mine)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["x.json", "x", "x.htm"])
def test_a_page_that_would_be_its_own_figures_is_refused(name, study, better, refused, tmp_path):
    assert f"--out must end in .html; got {name}" in refused("compare", study, better, "--out", tmp_path / name)
    assert not (tmp_path / name).exists()


def test_figures_that_are_there_already_are_not_overwritten(study, better, refused, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    said = refused("compare", study, better, "--out", tmp_path / "mine.html")
    assert f"never overwrite; {mine} is there already" in said
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["study.json", "config.yaml", "truth.npz"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_study_with_a_missing_or_damaged_file_is_refused_in_one_sentence(
    name, content, study, better, refused, tmp_path
):
    file = better / name
    file.unlink() if content is None else file.write_bytes(content)
    said = refused("compare", study, better, "--out", tmp_path / "compare.html")
    assert name in said
    assert str(better) in said
    assert not (tmp_path / "compare.html").exists()


def test_a_study_of_a_version_that_did_not_say_which_images_test_is_refused(study, better, refused, tmp_path):
    with np.load(study / "truth.npz") as truth:
        np.savez(better / "truth.npz", test=truth["test"], groups=truth["groups"])
    said = refused("compare", study, better, "--out", tmp_path / "compare.html")
    assert f"that of {better} is missing, damaged or of another version: run the same kontrast study command" in said
