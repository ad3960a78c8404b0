"""Scores of other images are those of the energy that the run left, and never of images it has seen."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import kontrast as package
from kontrast import data
from kontrast.commands.assemble import split
from kontrast.evaluate.features import features
from kontrast.nn.energy import load_energy


@pytest.fixture(scope="module")
def energetic(tmp_path_factory, images, training):
    """A finished run of EBCLR."""
    from kontrast.cli import main

    out = tmp_path_factory.mktemp("runs") / "ebclr"
    words = ["pretrain", "ebclr", str(images), *training, "--norm", "none", "--langevin-steps", "2"]
    assert main([*words, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Images of another kind, without labels."""
    pixels = np.zeros((12, 16, 16), dtype=np.uint8)
    for number in range(12):
        pixels[number, :: number % 4 + 2] = 255
    path = tmp_path_factory.mktemp("other") / "stripes.npz"
    np.savez(path, images=pixels)
    return path


def test_the_score_of_other_images_is_the_one_recomputed_by_hand(energetic, images, stripes, kontrast):
    assert kontrast("evaluate", "energy", energetic, "--ood", stripes) == 0
    found = json.loads((energetic / "evaluations/energy-stripes-npz.json").read_text())
    encoder, energy = package.load(run=energetic), load_energy(energetic)
    sides = [split(data.open(images)).test, data.open(stripes)]
    with torch.no_grad():
        scores = [energy(torch.from_numpy(features(encoder, side))).numpy() for side in sides]
    truth = np.repeat([0, 1], [len(side) for side in sides])
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, np.concatenate(scores)))
    assert 0 <= found["auroc"]["low"] <= found["auroc"]["value"] <= found["auroc"]["high"] <= 1
    assert (found["in"]["images"], found["ood"]["images"]) == tuple(len(side) for side in sides)
    assert found["in"]["mean_energy"] == pytest.approx(float(scores[0].mean()), rel=1e-5)
    assert found["keys"] == len(energy.key)


def test_the_same_images_on_both_sides_are_told_apart_half_of_the_time(energetic, images):
    found = package.evaluate(run=energetic, protocol="energy", ood=str(images))
    assert found["auroc"].value == pytest.approx(0.5)


def test_an_image_keeps_its_energy_whatever_it_is_asked_about_with(energetic, stripes, tmp_path):
    few = tmp_path / "few.npz"
    np.savez(few, images=np.load(stripes)["images"][:5])
    energy = load_energy(energetic)
    encoder = package.load(run=energetic)
    with torch.no_grad():
        all_of_them, some = (energy(torch.from_numpy(features(encoder, data.open(f)))) for f in (stripes, few))
    torch.testing.assert_close(all_of_them[:5], some, rtol=1e-4, atol=1e-4)


def test_images_that_the_run_has_learned_from_are_refused(tmp_path, draw_folder, training, kontrast, refused, stripes):
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=20)
    words = ["pretrain", "ebclr", flat, *training, "--norm", "none", "--langevin-steps", 1, "--out", tmp_path / "run"]
    assert kontrast(*words) == 0
    said = "it has seen 20 of 20"
    assert said in refused("evaluate", "energy", tmp_path / "run", "--ood", stripes)
    assert said in refused("evaluate", "energy", tmp_path / "run", "--data", stripes, "--ood", flat)
    assert package.evaluate(run=tmp_path / "run", protocol="energy", data=str(stripes), ood=str(stripes))


def test_wrong_input_is_refused(energetic, run, stripes, refused, draw_folder, tmp_path):
    assert "energy without --ood" in refused("evaluate", "energy", energetic)
    assert "got linear with it" in refused("evaluate", "linear", energetic, "--ood", stripes)
    assert "has none, so name such a run" in refused("evaluate", "energy", run, "--ood", stripes)
    colour = draw_folder(tmp_path / "colour", channels=3, count=4)
    assert "use --channels 1" in refused("evaluate", "energy", energetic, "--ood", colour)


def test_a_run_of_ebclr_leaves_pictures_of_its_samples_and_its_encoder_is_evaluated_as_any(energetic):
    assert [file.name for file in sorted((energetic / "samples").iterdir())] == ["epoch_00001.png", "epoch_00002.png"]
    found = package.evaluate(run=energetic, protocol="knn", per_class=(2,), draws=1)
    assert found["rows"][0]["scores"]["accuracy"].value >= 0


def test_batch_norm_is_refused_in_words_that_say_what_to_add(images, training, refused, tmp_path, kontrast):
    words = ["pretrain", "ebclr", images, *training, "--out", tmp_path / "run"]
    assert "test_efficientnet has it, so add --norm none" in refused(*words)
    assert not (tmp_path / "run").exists()
    assert kontrast(*words, "--allow-batch-norm", "--langevin-steps", 1) == 0


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(images, kontrast, tmp_path, training, energetic):
    words = ["pretrain", "ebclr", images, *training, "--norm", "none", "--langevin-steps", 2]
    assert kontrast(*words, "--out", tmp_path / "run") == 0
    (tmp_path / "run/encoder.safetensors").unlink()
    (tmp_path / "run/checkpoint/epoch_00002.pt").unlink()
    assert kontrast(*words, "--out", tmp_path / "run", "--resume") == 0
    for name in ("encoder.safetensors", "energy.safetensors", "samples/epoch_00002.png"):
        assert (tmp_path / "run" / name).read_bytes() == (energetic / name).read_bytes()


def test_a_study_shows_the_samples_of_the_arm_that_draws_them_and_leaves_them_out_where_asked(
    images, training, scoring, tmp_path, kontrast
):
    words = ["study", images, *training, *scoring, "--methods", "simclr", "ebclr:norm=none"]
    words += ["--ebclr.langevin-steps", 1]
    assert kontrast(*words, "--out", tmp_path / "study") == 0
    html = (tmp_path / "study/report.html").read_text()
    assert '<h2 id="samples">What the model samples</h2>' in html
    assert html.count('alt="samples of EBCLR (norm=none) after') == 2
    assert "samples of SimCLR" not in html
    assert "Energy gap" in html
    assert kontrast(*words, "--no-thumbnails", "--out", tmp_path / "bare") == 0
    assert "What the model samples" not in (tmp_path / "bare/report.html").read_text()
