"""A classifier from a run."""

import csv
import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score

import kontrast as package
from kontrast import data
from kontrast.commands.assemble import build_policy, split
from kontrast.commands.finetune import _halves
from kontrast.evaluate.finetune import FineTuning
from kontrast.evaluate.finetune import finetune as fine_tune
from kontrast.evaluate.hyper_rule import HyperRule
from kontrast.train import Fit

TRAINING = [*("--encoder", "test_efficientnet", "--stem", "standard", "--precision", "float32"), "--epochs", "1"]
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


def test_the_temperature_is_the_best_for_images_that_a_second_classifier_has_not_learned_from(classifier, noisy):
    """Both are made again here: the part by class, and the classifier without it; the temperature by a grid."""
    labelled = split(data.open(noisy)).train
    rest, held = data.validation_part(labelled.labels)
    config = FineTuning(steps=6 * (len(rest) // 16), batch_size=16, training=Fit(lr=0.3, precision="float32"))
    again = fine_tune(
        package.load(run=classifier.parent / "run"), labelled.take(rest), build_policy("ct", 16, 1), config
    )
    with torch.no_grad():
        logits = again.predict(labelled.take(held).batch(np.arange(len(held))).image).double().numpy()

    def loss(temperature):
        return -sum(
            z[y] / temperature - math.log(sum(math.exp(value / temperature) for value in z))
            for z, y in zip(logits, labelled.labels[held], strict=True)
        )

    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 3000))
    found = json.loads((classifier / "classifier.json").read_text())
    assert found["temperature"] == pytest.approx(min(grid, key=loss), rel=0.003)
    assert 0.05 < found["temperature"] < 20
    assert found["calibration"].startswith(f"Temperature found on {len(held)} training images by a second classifier")


def rows_of_the_test(classifier, noisy, tmp_path):
    """What `predict` writes for the test images, and their labels."""
    opened = data.open(noisy)
    out = package.predict(run=classifier, data=str(noisy), out=tmp_path / "p.csv")
    with out.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    test = split(opened).test
    return [(rows[name], opened.classes[label]) for name, label in zip(test.names, test.labels, strict=True)]


def test_scores_calibration_error_and_coverage_are_those_of_what_predict_writes(classifier, noisy, tmp_path):
    found = json.loads((classifier / "evaluations/test.json").read_text())
    tested = rows_of_the_test(classifier, noisy, tmp_path)
    right = [(float(row["confidence"]), row["prediction"] == label) for row, label in tested]
    assert found["scores"]["accuracy"]["value"] == pytest.approx(np.mean([is_right for _, is_right in right]))
    total = 0.0
    for number in range(15):
        inside = [pair for pair in right if number / 15 < pair[0] <= (number + 1) / 15]
        if inside:
            total += abs(sum(c for c, _ in inside) - sum(t for _, t in inside)) / len(right)
    assert found["calibration"]["ece_after"] == pytest.approx(total, abs=1e-6)
    assert found["calibration"]["ece_before"] != found["calibration"]["ece_after"]
    for row in found["risk_coverage"]:
        answered = [is_right for confidence, is_right in right if confidence >= row["abstain_below"]]
        assert row["answered"] == pytest.approx(len(answered) / len(right))
        if len(answered) > 1:
            assert row["accuracy"]["value"] == pytest.approx(np.mean(answered))


def test_where_labels_are_too_few_to_hold_some_out_the_temperature_is_one_and_it_is_said(tuned):
    found = json.loads((tuned / "classifier.json").read_text())
    assert found["temperature"] == 1
    assert found["calibration"].startswith("Not calibrated: too few labels to hold out 20 images")
    assert found["calibration"] in (tuned / "MODEL_CARD.md").read_text()
    scored = json.loads((tuned / "evaluations/test.json").read_text())["calibration"]
    assert scored["how"] == found["calibration"]
    assert scored["ece_before"] == scored["ece_after"]


def test_calibration_is_left_out_on_request(classifier, caplog, tmp_path):
    out = package.finetune(
        run=classifier.parent / "run",
        task="classification",
        epochs=1,
        batch_size=64,
        calibrate=False,
        out=tmp_path / "c",
    )
    assert "not calibrated: switched off by --no-calibrate" in caplog.text
    assert json.loads((out / "classifier.json").read_text())["temperature"] == 1


def test_held_out_images_that_are_all_right_do_not_make_the_classifier_surer(run, draw_folder, tmp_path):
    easy = draw_folder(tmp_path / "easy", count=65)
    out = package.finetune(
        run=run, task="classification", data=str(easy), epochs=12, batch_size=16, lr=0.5, out=tmp_path / "c"
    )
    found = json.loads((out / "classifier.json").read_text())
    assert "images were classified rightly" in found["calibration"]
    assert found["temperature"] == 1


@pytest.fixture
def known(noisy):
    """160 images, every second of them of either class."""
    opened = data.open(noisy)
    return opened.take(np.arange(160).reshape(2, 80).T.ravel())


def test_the_datas_own_validation_part_is_what_is_held_out(known):
    parts = np.where(np.arange(160) < 30, "validation", "train")
    rest, held = _halves(replace(known, parts=parts))
    assert held.tolist() == list(range(30))
    assert rest.tolist() == list(range(30, 160))


def test_a_validation_part_that_is_small_or_cuts_a_group_or_leaves_a_class_out_is_not_used(known):
    def halves(is_validation, **changed):
        parts = np.where(is_validation, "validation", "train")
        return _halves(replace(known, parts=parts, **changed))[1].tolist()

    number = np.arange(160)
    assert halves(number < 10) == _halves(known)[1].tolist()
    assert halves(number >= 0) == _halves(known)[1].tolist()
    assert halves(known.labels == 0) == _halves(known)[1].tolist()
    groups = number // 4
    assert halves(number < 30, groups=groups) == _halves(replace(known, groups=groups))[1].tolist()
    assert halves(number < 32, groups=groups) == list(range(32))


def test_no_group_is_on_both_sides_of_the_calibration(known):
    groups = np.arange(160) // 5
    rest, held = _halves(replace(known, groups=groups))
    assert not set(groups[rest]) & set(groups[held])
    assert len(held) >= 20
    assert set(known.labels[rest]) == set(known.labels[held]) == {0, 1}


def test_multilabel_and_grouped_data_are_trained_scored_and_predicted(run, known, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.stack([known.labels, rng.integers(0, 2, 160)], axis=1).astype(float)
    labels[rng.random((160, 2)) < 0.1] = np.nan
    several = replace(known.with_labels(labels, ("light", "odd")), groups=np.arange(160) // 2)
    out = package.finetune(
        run=run, task="classification", data=several, epochs=6, batch_size=16, lr=0.3, out=tmp_path / "c"
    )
    found = json.loads((out / "evaluations/test.json").read_text())
    assert json.loads((out / "classifier.json").read_text())["multilabel"] is True
    assert "Temperature found on" in found["calibration"]["how"]
    assert found["scores"]["auroc"]["num_groups"] == len(set(split(several).test.groups))
    assert found["risk_coverage"][0]["answered"] == 1
    text = (out / "MODEL_CARD.md").read_text()
    assert "any number of 2 classes: light, odd." in text
    assert "split: a fifth of the labelled images, drawn at random in whole groups" in text
    assert "It always chooses among its classes" not in text
    assert "an answer for each class too, sometimes a sure one" in text
    with package.predict(run=out, data=several, out=tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["unanswered", "p:light", "p:odd"]
    assert all(json.loads(row["prediction"]) in ([], ["light"], ["odd"], ["light", "odd"]) for row in rows)


def test_after_ctrl_c_the_folder_is_no_classifier(run, noisy, interrupted, refused, tmp_path):
    out = tmp_path / "c"
    words = ["finetune", "classification", run, "--data", noisy, *FAST, "--epochs", 500, "--out", out]
    code, said = interrupted(words, when=lambda: (out / "metrics.jsonl").exists(), send=signal.SIGINT)
    assert code == 130
    assert "stopped; nothing was finished yet, so nothing is kept" in " ".join(said.split())
    assert not (out / "classifier.json").exists()
    assert "so make one with kontrast finetune" in refused("predict", out, noisy, "--out", tmp_path / "p.csv")


class Unreadable(np.ndarray):
    """Pixels on a disk that has gone bad where the test images lie."""

    bad = ()

    def __getitem__(self, rows):
        if np.isin(rows, Unreadable.bad).any():
            raise OSError("the disk is broken")
        return np.asarray(self)[rows]


def test_what_was_trained_is_kept_where_scoring_fails(run, noisy, tmp_path, monkeypatch):
    opened = data.open(noisy)
    monkeypatch.setattr(Unreadable, "bad", split(opened).test.rows)
    broken = replace(opened, pixels=opened.pixels.view(Unreadable))
    out = tmp_path / "c"
    words = {"epochs": 1, "batch_size": 64, "precision": "float32", "calibrate": False}
    with pytest.raises(OSError, match="the disk is broken"):
        package.finetune(run=run, task="classification", data=broken, out=out, **words)
    assert not (out / "evaluations/test.json").exists()
    whole = package.finetune(run=run, task="classification", data=opened, out=tmp_path / "whole", **words)
    assert (out / "classifier.safetensors").read_bytes() == (whole / "classifier.safetensors").read_bytes()
    assert (out / "encoder.safetensors").read_bytes() == (whole / "encoder.safetensors").read_bytes()
    assert package.predict(run=out, data=str(noisy), out=tmp_path / "p.csv").is_file()


def test_too_few_test_images_or_groups_for_an_interval_are_refused_before_anything_trains(
    run, images, refused, tmp_path
):
    names = sorted(images.rglob("*.png"))

    def table(name, tests, group):
        rows = [(p, p.parent.name, "test" if p in tests else "train", group(p)) for p in names]
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
        return tmp_path / name

    tests = [names[0], names[1], names[-1]]
    one_group = table("group.csv", tests, lambda path: "tested" if path in tests else path.stem)
    one_image = table("image.csv", tests[:1], lambda path: "")
    for command in (["finetune", "classification"], ["evaluate", "linear"]):
        before = sorted(run.rglob("*"))
        out = ["--out", tmp_path / "out"] if command[0] == "finetune" else []
        said = refused(*command, run, "--data", one_group, *out)
        assert f"at least two labelled test groups; {one_group} has 1, so label more groups" in said
        said = refused(*command, run, "--data", one_image, *out)
        assert f"{one_image} has 1, so label more" in said
        assert not (tmp_path / "out").exists()
        assert sorted(run.rglob("*")) == before


@pytest.fixture
def short_rule(monkeypatch):
    """BiT's rule with three steps of views of 24 px."""
    of = HyperRule.of
    short = lambda *given: replace(of(*given), steps=3, warmup=1, decays=(1, 2, 2), resize=30, crop=24)  # noqa: E731
    monkeypatch.setattr(HyperRule, "of", staticmethod(short))


@pytest.mark.parametrize(("policy", "flip"), [("ct", 0.0), ("natural", 0.5)])
def test_under_bits_rule_steps_sizes_and_views_are_those_of_the_rule(
    images, short_rule, kontrast, tmp_path, policy, flip
):
    run, out = tmp_path / "run", tmp_path / "tuned"
    assert kontrast("pretrain", "simclr", images, *TRAINING, "--policy", policy, "--out", run) == 0
    told = ["--rule", "bit", "--batch-size", 16, "--precision", "float32", "--no-calibrate"]
    assert kontrast("finetune", "classification", run, *told, "--out", out) == 0
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert {key: settings[key] for key in ("rule", "policy", "size", "optimiser", "weight_decay", "epochs")} == {
        "rule": "bit", "policy": "bit", "size": None, "optimiser": "sgd", "weight_decay": 0.0, "epochs": 1.3,
    }  # fmt: skip
    assert json.loads((out / "encoder.json").read_text())["size"] == 24
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3]
    views = yaml.safe_load((out / "policy.yaml").read_text())
    assert ("flip" in str(views)) == bool(flip), views
    assert json.loads((out / "evaluations/test.json").read_text())["labels"] == 38
    assert kontrast("predict", out, images, "--out", tmp_path / "p.csv") == 0
    assert kontrast("evaluate", "knn", out, "--per-class", 2, "--draws", 1) == 0


@pytest.mark.parametrize(("sides", "size"), [((40, 30), 24), ((40, 12), None)])
def test_under_the_rule_images_are_read_at_its_size_where_none_is_smaller(
    draw_folder, short_rule, kontrast, tmp_path, sides, size
):
    images = draw_folder(draw_folder(tmp_path / "set", side=sides[0]), side=sides[1], count=3)
    run, out = tmp_path / "run", tmp_path / "tuned"
    assert kontrast("pretrain", "simclr", images, *TRAINING, "--batch-size", 16, "--out", run) == 0
    told = ["--rule", "bit", "--batch-size", 16, "--precision", "float32", "--no-calibrate"]
    assert kontrast("finetune", "classification", run, *told, "--out", out) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["size"] == size
    assert "| Settings | by BiT's rule |" in (out / "MODEL_CARD.md").read_text()


def test_a_schedule_longer_than_the_training_is_that_of_fine_tuning_too(run, kontrast, tmp_path):
    for horizon, expected in ((4, "above"), (2, "below")):
        out = tmp_path / expected
        told = [*FAST, "--schedule-epochs", horizon, "--no-calibrate"]
        assert kontrast("finetune", "classification", run, *told, "--out", out) == 0
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert (rows[-1]["lr"] > rows[0]["lr"] / 2) == (expected == "above")


def test_a_split_through_groups_is_told_in_the_run_its_scores_and_its_card(draw_folder, kontrast, tmp_path):
    images = draw_folder(tmp_path / "set")
    run, out, told = tmp_path / "run", tmp_path / "tuned", ["--batch-size", 16]
    grouped = ["--group-pattern", r"([0-9])[0-9]\.png", "--ignore-groups"]
    assert kontrast("pretrain", "simclr", images, *TRAINING, *told, *grouped, "--out", run) == 0
    assert kontrast("finetune", "classification", run, *FAST, "--out", out) == 0
    assert kontrast("evaluate", "focal", run, "--per-class", 2, "--draws", 1) == 0
    parts = split(replace(data.open(images, group_pattern=r"([0-9])[0-9]\.png"), may_cut_groups=True))
    shared = int(np.isin(parts.test.groups, parts.train.groups).sum())
    assert shared > 0
    for file in (out / "evaluations/test.json", run / "evaluations/focal.json"):
        assert json.loads(file.read_text())["test_images_sharing_a_group"] == shared
    assert json.loads((out / "run.json").read_text())["split"].endswith("by class, through groups")
    assert (
        f"Leak: the split is by image, and {shared} of the test images share a group"
        in (out / "MODEL_CARD.md").read_text()
    )


def test_a_batch_is_512_under_the_rule_and_64_without(run, short_rule, kontrast, tmp_path):
    for rule, expected in (("bit", 512), ("none", 64)):
        told = ["--rule", rule, "--epochs", 1, "--precision", "float32", "--no-calibrate"]
        assert kontrast("finetune", "classification", run, *told, "--out", tmp_path / rule) == 0
        assert yaml.safe_load((tmp_path / rule / "config.yaml").read_text())["batch_size"] == expected


def test_an_encoder_of_one_size_cannot_follow_the_rule(draw_folder, kontrast, refused, tmp_path):
    images = draw_folder(tmp_path / "set", side=32)
    told = ["--encoder", "test_vit", "--epochs", 1, "--batch-size", 16, "--precision", "float32"]
    assert kontrast("pretrain", "simclr", images, *told, "--out", tmp_path / "run") == 0
    out = tmp_path / "tuned"
    said = refused("finetune", "classification", tmp_path / "run", "--rule", "bit", "--out", out)
    assert "takes those of 32 px only, so leave --rule out" in said
    assert not out.exists()
