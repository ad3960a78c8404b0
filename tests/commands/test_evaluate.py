"""Scores of a run are those that its predictions have."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

import kontrast as package
from kontrast import data
from kontrast.commands.assemble import split
from kontrast.data import draw
from kontrast.evaluate.features import features
from kontrast.evaluate.linear import linear_probe


def test_the_numbers_in_linear_json_are_those_recomputed_by_hand(run, images, kontrast):
    assert kontrast("evaluate", "linear", run, "--per-class", 3, "--draws", 2, "--seed", 4) == 0
    found = json.loads((run / "evaluations/linear.json").read_text())
    [row] = found["rows"]
    parts = split(data.open(images))
    encoder = package.load(run=run)
    known, asked = features(encoder, parts.train), features(encoder, parts.test)
    scores = []
    for number in range(2):
        seed = int(np.random.SeedSequence([4, number]).generate_state(1)[0])
        chosen = parts.train.labelled[draw(parts.train.labels, per_class=3, seed=seed)]
        answers = linear_probe(known[chosen], parts.train.labels[chosen], asked, num_classes=2, seed=seed).probabilities
        truth = parts.test.labels
        scores.append((accuracy_score(truth, answers.argmax(1)), roc_auc_score(truth, answers[:, 1])))
    means = np.mean(scores, axis=0)
    assert (row["labels"], row["draws"]) == (6, 2)
    assert row["scores"]["accuracy"]["value"] == pytest.approx(means[0])
    assert row["scores"]["auroc"]["value"] == pytest.approx(means[1])
    assert row["scores"]["accuracy"]["scope"].startswith("for this one encoder")


@pytest.mark.parametrize("protocol", ["knn", "finetune"])
def test_every_protocol_writes_its_own_file_and_returns_what_it_wrote(protocol, run):
    found = package.evaluate(run=run, protocol=protocol, fractions=(0.5,), draws=1, finetune_steps=1)
    written = json.loads((run / f"evaluations/{protocol}.json").read_text())
    assert written["rows"][0]["labels"] == found["rows"][0]["labels"] == 19
    assert written["rows"][0]["scores"]["accuracy"]["value"] == found["rows"][0]["scores"]["accuracy"].value


def test_colour_images_before_a_grey_encoder_are_refused_until_their_conversion_is_asked_for(
    run, draw_folder, refused, tmp_path
):
    colour = draw_folder(tmp_path / "colour", channels=3, count=10)
    assert "use --channels 1" in refused("evaluate", "knn", run, "--data", colour)
    found = package.evaluate(run=run, protocol="knn", data=str(colour), channels=1, per_class=(2,), draws=1)
    assert found["images"] == 16


def test_labels_that_come_after_pretraining_bring_a_warning_that_test_images_were_seen(
    draw_folder, kontrast, training, caplog, tmp_path
):
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=20)
    table = tmp_path / "labels.csv"
    rows = [f"{number:02d}.png,{'even' if number % 2 == 0 else 'odd'}" for number in range(20)]
    table.write_text("\n".join(["path,label", *rows]))
    out = tmp_path / "run"
    assert kontrast("pretrain", "simclr", flat, *training, "--out", out) == 0
    found = package.evaluate(run=out, protocol="knn", labels=table, per_class=(2,), draws=1)
    assert found["test_images_seen_in_pretraining"] == 4
    assert "4 of 4 test images were among those of pre-training" in caplog.text


def test_an_encoder_that_learned_from_all_labels_brings_a_warning(images, kontrast, training, caplog, tmp_path):
    assert kontrast("pretrain", "supervised", images, *training, "--out", tmp_path / "run") == 0
    found = package.evaluate(run=tmp_path / "run", protocol="knn", per_class=(2,), draws=1)
    assert found["test_images_seen_in_pretraining"] == 0
    assert "has learned from labels already" in caplog.text


def test_wrong_input_is_refused(run, refused, draw_folder, tmp_path):
    words = ["evaluate", "linear", run]
    assert "did you mean linear?" in refused("evaluate", "liner", run)
    assert "does not, so pretrain first" in refused("evaluate", "linear", tmp_path)
    assert "every class needs a label" in refused(*words, "--fractions", 0.01)
    assert "--fractions is empty" in refused(*words, "--fractions")
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=4)
    assert "evaluation needs labels" in refused(*words, "--data", flat)
    assert "--finetune-steps is 0" in refused(*words, "--finetune-steps", 0)
