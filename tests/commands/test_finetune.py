"""A classifier from a run."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score

import kontrast as package
from kontrast import data
from kontrast.commands.assemble import split

FAST = ["--epochs", "2", "--batch-size", "16", "--precision", "float32"]


@pytest.fixture(scope="module")
def tuned(run, tmp_path_factory):
    from kontrast.cli import main

    out = tmp_path_factory.mktemp("tuned") / "run"
    assert main(["finetune", "classification", str(run), *FAST, "--out", str(out)]) == 0
    return out


def test_the_written_scores_are_those_of_the_written_weights(tuned, images):
    found = json.loads((tuned / "evaluations/test.json").read_text())
    test = split(data.open(images)).test
    weights = load_file(tuned / "classifier.safetensors")
    weight, bias = (next(v for k, v in weights.items() if k.endswith(end)) for end in ("weight", "bias"))
    with torch.no_grad():
        logits = package.load(run=tuned)(torch.from_numpy(np.array(test.pixels[test.rows]))) @ weight.T + bias
    assert found["classes"] == ["dark", "light"]
    assert found["labels"] == 38
    assert found["scores"]["accuracy"]["value"] == pytest.approx(accuracy_score(test.labels, logits.argmax(1)))


def test_a_fine_tuned_run_can_be_evaluated_like_any_other(tuned, kontrast):
    assert kontrast("evaluate", "knn", tuned, "--per-class", 2, "--draws", 1) == 0
    assert json.loads((tuned / "evaluations/knn.json").read_text())["rows"][0]["labels"] == 4


def test_the_run_it_started_from_is_untouched(run, images, tmp_path):
    before = (run / "encoder.safetensors").read_bytes()
    out = package.finetune(run=run, task="classification", epochs=1, batch_size=16, out=tmp_path / "tuned")
    assert (run / "encoder.safetensors").read_bytes() == before
    assert (out / "encoder.safetensors").read_bytes() != before


def test_wrong_input_is_refused_and_takes_no_folder(run, tuned, refused, tmp_path):
    out = tmp_path / "new"
    assert "choose one of classification" in refused("finetune", "segmentation", run, "--out", out)
    assert "so pretrain first" in refused("finetune", "classification", tmp_path, "--out", out)
    assert "did you mean digits?" in refused("finetune", "classification", run, "--policy", "digit", "--out", out)
    assert "--batch-size is 0" in refused("finetune", "classification", run, "--batch-size", 0, "--out", out)
    assert not out.exists()
    said = refused("finetune", "classification", run, *FAST, "--out", tuned)
    assert "so name another" in said
    assert "--resume" not in said
