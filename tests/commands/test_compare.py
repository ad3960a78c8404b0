"""Several studies on one page: paired where that is fair, side by side where it is not."""

import json
import shutil

import numpy as np
import pytest

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
    assert "the same images and split" in html
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
    assert "other images or another split" in found["notes"][0]
    assert f"data: first {study.parent}" in out.read_text() or "data: first" in out.read_text()


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
    assert "never overwrites" in refused("compare", study, tmp_path, "--out", mine)
    assert mine.read_text() == "mine"
