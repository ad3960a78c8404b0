"""A model card says what the run's files say, and no name in them can change how it reads."""

import json
import re

import pytest
import yaml
from markdown_it import MarkdownIt

import kontrast as package
from kontrast.commands.card import folder_card

SECTIONS = ["What it is", "How it was made", "Scores", "Calibration", "Limits", "How to load it", "Versions"]


def render(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def change(file, **values):
    """A JSON or YAML file with other values."""
    content = {**yaml.safe_load(file.read_text()), **values} if file.is_file() else values
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content) if file.suffix == ".json" else yaml.safe_dump(content))


@pytest.fixture
def card(tmp_path):
    """Text of the card of an export."""

    def card(run, **options):
        out = package.export(run=run, out=tmp_path / "exported" / "m.safetensors", **options)
        return out.with_suffix(".md").read_text(encoding="utf-8")

    return card


def test_the_card_of_a_classifier_has_every_section_and_the_written_numbers(classifier):
    text = (classifier / "MODEL_CARD.md").read_text()
    found = json.loads((classifier / "evaluations/test.json").read_text())
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    score = found["scores"]["accuracy"]
    assert f"{100 * score['value']:.1f} % [{100 * score['low']:.1f}, {100 * score['high']:.1f}]" in text
    assert f"{100 * found['calibration']['ece_after']:.1f} %" in text
    assert f"Temperature {found['calibration']['temperature']:.3g}" in text
    assert found["calibration"]["how"] in text
    pretrained = json.loads((classifier.parent / "run/run.json").read_text())
    assert pretrained["fingerprint"] in text
    assert "128 images of set; per class 64, 64" in text
    assert "| simclr |" in text
    assert "Not validated for clinical use" in text
    assert "No groups were given" in text
    assert str(classifier.parent) not in text


def test_a_run_that_was_never_scored_says_that_nothing_was_measured(run, card):
    text = card(run)
    assert "Nothing was measured" in text
    assert "## Calibration" not in text
    assert " % [" not in text


def test_scores_of_protocols_are_in_the_card_of_an_export(run, card, tmp_path):
    scored = tmp_path / "scored"
    import shutil

    shutil.copytree(run, scored)
    package.evaluate(protocol="knn", run=scored, per_class=(2, 4), draws=2)
    text = card(scored)
    assert text.count("| knn on the encoder |") == 2
    rows = json.loads((scored / "evaluations/knn.json").read_text())["rows"]
    assert all(f"{100 * row['scores']['auroc']['value']:.1f} % [" in text for row in rows)
    assert "Nothing was measured" not in text


OVER_IMAGES = "With 95 % intervals over test images (whole groups where there are groups)"


def test_intervals_are_over_label_draws_only_where_there_are_several(classifier, untrained, card, tmp_path):
    assert f"{OVER_IMAGES}.\n" in (classifier / "MODEL_CARD.md").read_text()
    run = untrained(tmp_path / "run", classes=("a", "b"))
    change(run / "evaluations/test.json", labels=7, scores={})
    change(run / "evaluations/knn.json", rows=[{"labels": 4, "draws": 1, "scores": {}}])
    assert f"{OVER_IMAGES}.\n" in folder_card(run)
    rows = [{"labels": 4, "draws": 5, "scores": {}}, {"labels": 9, "draws": 1, "scores": {}}]
    change(run / "evaluations/knn.json", rows=rows)
    assert f"{OVER_IMAGES} and, in rows of several draws, over these.\n" in folder_card(run)


@pytest.mark.parametrize("multilabel", [False, True])
def test_only_a_classifier_of_one_class_an_image_always_chooses(multilabel, untrained, tmp_path):
    text = folder_card(untrained(tmp_path / "run", classes=("a", "b"), multilabel=multilabel))
    assert ("It always chooses among its classes." in text) is not multilabel
    assert ("gets an answer for each class too" in text) is multilabel


def test_a_snapshot_has_no_scores_of_the_finished_run(untrained, card, tmp_path):
    from kontrast.nn.encoders import load_encoder, save_encoder

    run = untrained(tmp_path / "run", classes=("a", "b"))
    change(run / "evaluations/knn.json", rows=[{"labels": 4, "draws": 1, "scores": {}}])
    save_encoder(load_encoder(run), run / "encoders", stem="epoch_00010")
    text = card(run / "encoders/epoch_00010.safetensors")
    assert "Nothing was measured" in text
    assert "snapshot after epoch 10" in text


def test_weights_without_their_run_say_that_little_is_known(run, card, tmp_path):
    alone = package.export(run=run, out=tmp_path / "alone.safetensors")
    text = card(alone)
    assert "Not known: the run that these weights came from is not beside them." in text
    assert "Nothing was measured" in text


def test_leaks_and_sample_data_are_among_the_limits(untrained, card, tmp_path):
    run = untrained(tmp_path / "run", classes=("a", "b"))
    change(run / "config.yaml", data="sample:digits-5k")
    change(run / "evaluations/test.json", test_images_seen_in_pretraining=1234, scores={}, labels=7)
    text = card(run)
    assert "Leak: 1,234 of the test images were among those of pre-training" in text
    assert "Sample data were used" in text


EVIL = "<script>x</script>|\n\n# Heading [a](javascript:x) ![i](http://e/x) `c` \x1b[31m" + "x" * 4000


def test_nothing_in_a_runs_files_can_become_markup(untrained, tmp_path):
    run = untrained(tmp_path / "run", classes=(EVIL, "b"))
    before = {"settings": {"method": EVIL, "epochs": EVIL, "data": EVIL, "init": EVIL}, "fingerprint": EVIL}
    change(run / "config.yaml", data=EVIL, epochs=EVIL, seed=[EVIL])
    versions = {"kontrast": EVIL, EVIL: "1"}
    counts = {"labels_per_class": [EVIL, 1], "test_images": EVIL, "groups": EVIL, "split": EVIL, "data": EVIL}
    change(run / "run.json", **counts, pretraining=before, versions=versions)
    score = {"value": EVIL, "low": 0, "high": 1}
    calibration = {"ece_before": EVIL, "ece_after": None}
    coverage = [{"abstain_below": EVIL, "answered": EVIL, "accuracy": EVIL}, EVIL]
    found = {"labels": EVIL, "scores": {"accuracy": score}, "calibration": calibration, "risk_coverage": coverage}
    change(run / "evaluations/test.json", **found, test_images_seen_in_pretraining=EVIL)
    change(run / "evaluations/knn.json", rows=[EVIL, {"labels": EVIL, "draws": EVIL, "scores": EVIL}])
    change(run / "classifier.json", calibration=EVIL)
    text = folder_card(run)
    page = render(text)
    assert not re.search(r"<(script|a|img|h3)\b", page)
    assert page.count("<h1>") == 1
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 1200
    for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL):
        assert len(re.findall("<t[dh]", row)) in (2, 3, 7)


@pytest.mark.parametrize("content", ["{", "[]", "null", '"text"', ""])
def test_a_damaged_file_beside_the_weights_is_left_out(content, untrained, card, tmp_path):
    run = untrained(tmp_path / "run", classes=("a", "b"))
    (run / "evaluations").mkdir()
    for name in ("run.json", "evaluations/test.json", "evaluations/knn.json"):
        (run / name).write_text(content)
    assert "Nothing was measured" in card(run)
