"""A study from end to end: on every kind of data, interrupted, and blind to labels outside its draws."""

import csv
import json
import logging
import re
import shutil
import signal
from dataclasses import replace
from html import escape
from importlib.metadata import version

import numpy as np
import pytest
import yaml

import kontrast as package
from kontrast import data
from kontrast.commands.assemble import split
from kontrast.data import hold_out
from kontrast.errors import InputError
from kontrast.methods import METHODS, Supervised
from kontrast.study.plan import read_answers, validation_positions

FAST = ["--epochs", "1", "--batch-size", "16"]


def content(out):
    found = json.loads((out / "study.json").read_text())
    return found["rows"], found["differences"]


def write_table(path, rows, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, images, training, scoring):
    from kontrast.cli import main

    out = tmp_path_factory.mktemp("studies") / "folder"
    assert main(["study", str(images), *training, *FAST, *scoring, "--out", str(out)]) == 0
    return out


def test_a_study_of_a_class_folder_writes_a_page_with_its_verdict_and_settings(done):
    page = (done / "report.html").read_text()
    rows, found = content(done)
    assert ": SimCLR, linear probe reaches " in page
    assert [row["arm"] for row in rows] == ["simclr-linear", "scratch", "untrained-linear"]
    assert all(row["num_labels"] == 4 and row["num_draws"] == 2 for row in rows)
    assert [one["arm"] for one in found] == ["simclr-linear", "untrained-linear", "simclr-linear"]
    assert "encoder: test_efficientnet" in page
    assert "One pre-training seed" in page
    assert "kontrast study --recipe" in page


@pytest.fixture
def copy(done, tmp_path):
    """That study in a folder of its own."""
    return shutil.copytree(done, tmp_path / "first")


def test_running_a_finished_study_again_trains_nothing(done, images, training, scoring, kontrast):
    before = {p: p.stat().st_mtime_ns for kind in ("cells", "runs") for p in (done / kind).rglob("*") if p.is_file()}
    assert kontrast("study", images, *training, *FAST, *scoring, "--out", done) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_changed_setting_is_refused_by_its_name_without_naming_a_flag_that_does_not_exist(
    done, images, training, scoring, refused
):
    said = refused("study", images, *training, *FAST, *scoring, "--k", 3, "--out", done)
    assert "k was 20" in said
    assert "another --out" in said


def test_a_study_is_not_continued_on_changed_labels(draw_folder, training, scoring, kontrast, refused, tmp_path):
    folder, out = draw_folder(tmp_path / "images", count=12), tmp_path / "study"
    words = ["study", folder, *training, *FAST, *scoring, "--draws", 1, "--out", out]
    assert kontrast(*words) == 0
    shutil.move(folder / "dark/00.png", folder / "light/99.png")
    assert "images, labels or the split have changed" in refused(*words)


def test_a_refused_study_does_not_take_the_folder(images, training, scoring, refused, tmp_path):
    words = ["study", images, *training, *FAST, *scoring, "--out", tmp_path / "study"]
    assert "did you mean natural?" in refused(*words, "--policy", "natual")
    assert "near names: " in refused(*words, "--encoder", "test_efficientnets")
    assert "at most those of the rarest class" in refused(*words, "--per-class", 99)
    assert "there is no file" in refused(*words, "--init", tmp_path / "none.safetensors")
    assert "--k is 0" in refused(*words, "--k", 0)
    assert not (tmp_path / "study").exists()


def test_a_folder_that_holds_something_else_is_refused_without_naming_resume(
    images, training, scoring, refused, tmp_path
):
    (tmp_path / "notes.txt").write_text("mine")
    said = refused("study", images, *training, *scoring, "--out", tmp_path)
    assert "holds something, so name another" in said


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_ends_as_an_unbroken_study(
    images, training, scoring, kontrast, interrupted, tmp_path
):
    out, whole = tmp_path / "broken", tmp_path / "whole"
    words = ["study", images, *training, *scoring, "--seeds", 2, "--draws", 3, "--finetune-steps", 20]
    code, said = interrupted(
        [*words, "--out", out], when=lambda: len(list(out.glob("cells/scratch/*/*.npz"))) >= 2, send=signal.SIGINT
    )
    assert code == 130, said
    assert "Traceback" not in said
    last = " ".join(said[said.index("kontrast: stopped") :].split())
    assert last.startswith(f"kontrast: stopped; {out} keeps 2 finished encoders and ")
    assert last.endswith("the same command goes on from there")
    finished = [*out.glob("cells/*/*/*.npz"), *out.glob("runs/*/*/encoder.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert kontrast(*words, "--out", out) == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished}
    assert len(list(out.glob("cells/*/*/*.npz"))) == 3 * 2 * 3 > len(list(before))
    assert kontrast(*words, "--out", whole) == 0
    assert content(out) == content(whole)


def test_a_table_of_ones_own_images_with_groups_is_studied_group_by_group(
    images, training, scoring, kontrast, tmp_path
):
    names = sorted(images.rglob("*.png"))
    rows = [(path, path.parent.name, f"patient {int(path.stem) // 3}") for path in names]
    table = write_table(tmp_path / "mine.csv", rows, ["path", "label", "group"])
    out = tmp_path / "study"
    assert kontrast("study", table, *training, *FAST, *scoring, "--out", out) == 0
    page = (out / "report.html").read_text()
    assert "none in both" in page
    assert all(row["scores"]["accuracy"]["num_groups"] > 1 for row in content(out)[0])


def test_a_single_test_group_or_image_is_refused_before_anything_trains(images, training, scoring, refused, tmp_path):
    names = sorted(images.rglob("*.png"))
    tested = [*names[:4], *names[-4:]]
    rows = [(p, p.parent.name, *(("test", "tested") if p in tested else ("train", p.stem))) for p in names]
    groups = write_table(tmp_path / "groups.csv", rows, ["path", "label", "split", "group"])
    rows = [(p, p.parent.name, "test" if p == names[0] else "train") for p in names]
    single = write_table(tmp_path / "images.csv", rows, ["path", "label", "split"])
    words = [*training, *FAST, *scoring, "--out", tmp_path / "study"]
    said = refused("study", groups, *words)
    assert f"at least two labelled test groups; {groups} has 1, so label more groups, or change the column" in said
    said = refused("study", single, *words)
    assert f"at least two labelled test images; {single} has 1, so label more images, or change the column" in said
    assert not (tmp_path / "study").exists()


def test_given_weights_become_baselines_of_an_npz_study(run, training, scoring, kontrast, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = (rng.integers(0, 100, (40, 16, 16)) + 120 * labels[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", images=pixels, labels=labels)
    out = tmp_path / "study"
    words = ["study", tmp_path / "mine.npz", *training, *FAST, *scoring, "--init", run]
    assert kontrast(*words, "--protocols", "linear", "knn", "--out", out) == 0
    rows, _ = content(out)
    assert [row["arm"] for row in rows if row["arm"].startswith("given")] == [
        "given-finetune",
        "given-linear",
        "given-knn",
    ]
    assert "Given weights, no contrastive stage, linear probe" in (out / "report.html").read_text()


def test_arms_may_begin_with_other_weights_and_norms(run, images, training, scoring, kontrast, tmp_path):
    out = tmp_path / "study"
    methods = ["simclr", "simclr:init=none", "simclr:norm=group,init=none"]
    words = ["study", images, *training, *FAST, *scoring, "--init", run, "--methods", *methods]
    assert kontrast(*words, "--out", out) == 0
    runs = {path.parent.name: path for path in out.glob("runs/*/seed-0")}
    told = {name: yaml.safe_load((path / "config.yaml").read_text()) for name, path in runs.items()}
    assert {name: (one["init"] == str(run), one["norm"]) for name, one in told.items()} == {
        "simclr": (True, "own"),
        "simclr_init_none": (False, "own"),
        "simclr_norm_group_init_none": (False, "group"),
    }
    norms = {name: json.loads((path / "encoder.json").read_text())["norm"] for name, path in runs.items()}
    assert norms == {"simclr": None, "simclr_init_none": None, "simclr_norm_group_init_none": "group"}
    page = (out / "report.html").read_text()
    assert "SimCLR (norm=group, init=none)" in page
    assert "have weights or norms of their own" in page


def test_a_split_by_image_says_what_it_cuts_and_one_by_group_cuts_nothing(
    images, training, scoring, kontrast, caplog, tmp_path
):
    rows = [
        (path, path.parent.name, f"{path.parent.name}-{int(path.stem) // 4}") for path in sorted(images.rglob("*.png"))
    ]
    table = write_table(tmp_path / "mine.csv", rows, ["path", "label", "group"])
    for flag, expected in (("--ignore-groups", True), ("--no-ignore-groups", False)):
        caplog.clear()
        out = tmp_path / flag
        words = ["study", table, flag, *training, *FAST, *scoring, "--draws", 1]
        assert kontrast(*words, "--out", out) == 0
        page = (out / "report.html").read_text()
        said = re.search(r"(\d+) of (\d+) test images share a group with training images", caplog.text)
        assert bool(said) == ("in both, as --ignore-groups asks" in page) == expected
        if expected:
            known = replace(data.open(table), may_cut_groups=True)
            train, test = hold_out(known)
            assert said.groups() == (
                str(sum(g in set(known.groups[train]) for g in known.groups[test])),
                str(len(test)),
            )


def test_a_hostile_file_name_stays_text(draw_folder, training, scoring, kontrast, tmp_path):
    folder = draw_folder(tmp_path / "images", count=12)
    (folder / "dark/<img src=x onerror=alert(1)>.png").write_bytes(b"no image")
    words = ["study", folder, *training, *FAST, *scoring, "--draws", 1, "--max-unreadable", 0.5]
    assert kontrast(*words, "--out", tmp_path / "study") == 0
    page = (tmp_path / "study/report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page


def test_a_class_with_a_single_training_label_is_studied_without_a_recommendation(
    images, training, scoring, kontrast, tmp_path
):
    dark, light = (sorted((images / kind).glob("*.png")) for kind in ("dark", "light"))
    rows = [(path, path.parent.name, "train") for path in [*dark[:20], light[0]]]
    rows += [(path, path.parent.name, "test") for path in [*dark[20:], *light[20:]]]
    table = write_table(tmp_path / "mine.csv", rows, ["path", "label", "split"])
    out = tmp_path / "study"
    assert kontrast("study", table, *training, *FAST, *scoring, "--per-class", 1, "--out", out) == 0
    assert all(row["validation"] is None for row in content(out)[0])
    assert "No recommendation: there are too few labels for a validation part" in (out / "report.html").read_text()


class LabelReader(Supervised):
    """A method that reads labels, and notes which label it saw of which image (Anon., 2026)."""

    seen: set = set()  # noqa: RUF012

    def forward(self, batch):
        self.seen.update(zip(batch.index.tolist(), batch.label.tolist(), strict=True))
        return super().forward(batch)


def drawn_labels(out):
    cells = {path.relative_to(out): read_answers(path) for path in sorted(out.glob("cells/**/*.npz"))}
    return cells, np.unique(np.concatenate([cell.labelled for cell in cells.values()]))


def test_no_cell_ever_sees_a_label_outside_its_draw(images, training, scoring, kontrast, tmp_path, monkeypatch):
    """Labels outside all draws are corrupted; no prediction of a test image changes by a bit.

    Classes alternate along the table, and both labels of a neighbouring pair are swapped: each class keeps its number
    and order, so the draws stay the same ones.
    """
    monkeypatch.setitem(METHODS, "reader", LabelReader)
    pairs = list(zip(*(sorted((images / kind).glob("*.png")) for kind in ("dark", "light")), strict=True))
    train, test = pairs[:20], pairs[20:]
    for number, path in enumerate([path for pair in pairs for path in pair]):
        shutil.copy(path, tmp_path / f"{number:02d}.png")

    def study(name, swapped):
        labels = [(1, 0) if pair in swapped else (0, 1) for pair in range(len(pairs))]
        flat = [label for pair in labels for label in pair]
        sides = ["train"] * 2 * len(train) + ["test"] * 2 * len(test)
        rows = [
            (f"{i:02d}.png", f"class {label}", part) for i, (label, part) in enumerate(zip(flat, sides, strict=True))
        ]
        table = write_table(tmp_path / f"{name}.csv", rows, ["path", "label", "split"])
        LabelReader.seen = set()
        words = ["study", table, *training, *FAST, *scoring, "--methods", "simclr", "reader", "--protocols", "linear"]
        assert kontrast(*words, "knn", "--finetune-steps", 3, "--out", tmp_path / name) == 0
        parts = split(data.open(table))
        held = validation_positions(parts.train, parts.train.labelled)
        return (*drawn_labels(tmp_path / name), np.array(flat), set(LabelReader.seen), held)

    honest, drawn, labels, seen, held = study("honest", set())
    swapped = {pair for pair in range(len(train)) if not {2 * pair, 2 * pair + 1} & set(drawn.tolist())}
    assert len(swapped) >= 10
    corrupted, redrawn, other, seen_of_corrupted, other_held = study("corrupted", swapped)
    assert np.array_equal(drawn, redrawn)
    assert (labels != other).sum() == 2 * len(swapped)
    assert len(set(held) & set(other_held)) >= 3
    assert (labels[held] != other[held]).any(), "labels of the validation part must not matter to the test either"
    assert honest.keys() == corrupted.keys()
    for path, cell in honest.items():
        assert np.array_equal(cell.labelled, corrupted[path].labelled)
        assert np.array_equal(cell.test, corrupted[path].test), path
        mine, theirs = (
            dict(zip(table.tolist(), map(tuple, answers), strict=True))
            for table, answers in ((held, cell.validation), (other_held, corrupted[path].validation))
        )
        assert all(mine[at] == theirs[at] for at in mine.keys() & theirs.keys()), path
    assert seen == seen_of_corrupted
    known = {(index, label) for index, label in seen if label >= 0}
    assert len(known) >= 4
    assert known <= {(int(index), int(labels[index])) for index in drawn}
    assert len({index for index, label in seen if label < 0}) > 10


def test_a_method_that_reads_labels_is_trained_anew_for_every_draw(
    images, training, scoring, kontrast, tmp_path, monkeypatch
):
    monkeypatch.setitem(METHODS, "reader", LabelReader)
    out = tmp_path / "study"
    words = ["study", images, *training, *FAST, *scoring, "--methods", "reader", "simclr", "--out", out]
    assert kontrast(*words) == 0
    assert len(list((out / "runs/reader").iterdir())) == 2
    assert [path.name for path in (out / "runs/simclr").iterdir()] == ["seed-0"]


def test_wrong_numbers_and_methods_are_refused(images, training, refused, tmp_path):
    words = ["study", images, *training, "--out", tmp_path / "study"]
    assert "--seeds is 0" in refused(*words, "--seeds", 0)
    assert "--draws is 0" in refused(*words, "--draws", 0)
    assert "did you mean simclr?" in refused(*words, "--methods", "simcrl")
    assert "--limit is 0, so give 1 or more" in refused(*words, "--limit", 0)
    assert "always in a study, as its baseline" in refused(*words, "--methods", "supervised")
    assert "fraction of the labels lies above 0" in refused(*words, "--fractions", 50)
    assert not (tmp_path / "study").exists()


def test_settings_of_methods_reach_their_runs(images, training, scoring, kontrast, tmp_path):
    out = tmp_path / "study"
    words = ["study", images, *training, *FAST, *scoring, "--draws", 1, "--simclr.temperature", 0.77]
    assert kontrast(*words, "--out", out) == 0
    assert "temperature: 0.77" in (out / "runs/simclr/seed-0/config.yaml").read_text()
    assert kontrast("study", "--recipe", out / "config.yaml", "--out", tmp_path / "again") == 0
    assert content(out) == content(tmp_path / "again")


def test_a_study_from_its_folder_finds_the_same_scores_beside_it(done, kontrast, caplog, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(done, first)
    with caplog.at_level(logging.INFO, logger="kontrast"):
        assert kontrast("study", "--from", f"{first}/") == 0
    again = tmp_path / "first-repeated"
    assert content(again) == content(first)
    assert f"all 12 scores are those of {first}" in caplog.text


def test_a_repeat_on_changed_labels_is_refused_and_takes_no_folder(
    draw_folder, training, scoring, kontrast, refused, tmp_path
):
    images = draw_folder(tmp_path / "images", count=12)
    out, other = tmp_path / "study", tmp_path / "other"
    assert kontrast("study", images, *training, *FAST, *scoring, "--out", out) == 0
    shutil.move(images / "light" / "00.png", images / "dark" / "99.png")
    said = refused("study", "--from", out, "--out", other)
    assert "have changed since" in said
    assert not other.exists() or not any(other.iterdir())


def test_a_repeat_of_a_folder_that_is_no_study_is_refused(refused, tmp_path):
    assert "holds no config.yaml" in refused("study", "--from", tmp_path)
    (tmp_path / "config.yaml").write_text("data: images\n")
    assert "holds study.json" in refused("study", "--from", tmp_path)


@pytest.mark.parametrize("name", ["study.json", "run.json"])
@pytest.mark.parametrize("content", [None, "", "{", "{}"])
def test_a_repeat_of_a_study_with_a_missing_or_damaged_file_is_refused(name, content, copy, refused, tmp_path):
    (copy / name).unlink() if content is None else (copy / name).write_text(content)
    assert name in refused("study", "--from", copy)
    assert not (tmp_path / "first-repeated").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--fractions", "0.2", "0.5"], "fractions is [0.01, 0.1, 1.0] in {} and [0.2, 0.5] here, so leave out --fr"),
        (["--seed", "7"], "seed is 0 in {} and 7 here, so leave out --seed, or start a new study with --recipe {}/con"),
        (["--finetune-steps", "9"], "finetune_steps is 2 in {} and 9 here, so leave out --finetune-steps"),
        (["--simclr.temperature", "0.7"], "simclr.temperature is 0.2 in {} and 0.7 here, so leave out --simclr.temper"),
        (["--recipe", "other.yaml"], "--from {} is a recipe already"),
    ],
)
def test_a_repeat_with_another_setting_is_refused_by_its_name_before_anything_trains(
    typed, said, copy, refused, tmp_path
):
    assert said.replace("{}", str(copy)) in refused("study", "--from", copy, *typed)
    assert not (tmp_path / "first-repeated").exists()


def test_a_repeat_from_python_keeps_the_settings_too(copy, tmp_path):
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    del settings["configs"]
    with pytest.raises(InputError, match="a repeat keeps the settings of its study; k is 20 in"):
        package.study(**{**settings, "k": 3}, repeats=copy, out=tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_repeat_on_another_device_is_one(copy, kontrast, caplog):
    with caplog.at_level(logging.INFO, logger="kontrast"):
        assert kontrast("study", "--from", copy, "--device", "cpu") == 0
    assert f"all 12 scores are those of {copy}" in caplog.text


def test_a_finished_repeat_is_not_passed_off_as_another_one(copy, kontrast, refused, caplog, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(copy, again)
    said = refused("study", "--from", copy, "--out", again)
    assert f"a repeat trains everything anew; {again} is finished already" in said
    assert "is finished already" in refused("study", "--from", copy, "--out", copy)


def test_a_repeat_of_data_that_were_a_python_object_is_refused_in_one_sentence(copy, refused, tmp_path):
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**settings, "data": "TensorDataset"}))
    assert "there is no folder TensorDataset" in refused("study", "--from", copy)
    assert not (tmp_path / "first-repeated").exists()


def lowered(copy, **changed):
    """The study with one score 25 points lower, and other fields."""
    found = json.loads((copy / "study.json").read_text())
    found["rows"][0]["scores"]["accuracy"]["value"] -= 0.25
    (copy / "study.json").write_text(json.dumps({**found, **changed}))


def test_a_repeat_with_other_figures_says_how_many_and_how_far_and_blames_nothing_that_is_the_same(
    copy, kontrast, caplog
):
    lowered(copy)
    with caplog.at_level(logging.INFO, logger="kontrast"):
        assert kontrast("study", "--from", copy) == 0
    assert f"1 of 12 scores differ from those of {copy}, by 25.00 points at most, although settings, ver" in caplog.text


def test_a_repeat_with_other_rows_says_that_nothing_was_compared(copy, kontrast, caplog):
    found = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps({**found, "rows": found["rows"][1:]}))
    with caplog.at_level(logging.INFO, logger="kontrast"):
        assert kontrast("study", "--from", copy) == 0
    assert f"other rows than that of {copy}, so their scores are not compared" in caplog.text
    assert "scores are those of" not in caplog.text


def test_a_repeat_with_other_figures_names_the_versions_that_differ(copy, kontrast, caplog):
    found = json.loads((copy / "study.json").read_text())
    lowered(copy, versions={**found["versions"], "timm": "0.1"})
    with caplog.at_level(logging.INFO, logger="kontrast"):
        assert kontrast("study", "--from", copy) == 0
    assert f"under other circumstances: timm was 0.1 and is {version('timm')}\n" in caplog.text


def test_the_figures_of_the_page_are_those_of_study_json(done):
    html = (done / "report.html").read_text().replace("\u00a0", " ")
    found = json.loads((done / "study.json").read_text())
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    for row in found["rows"]:
        for score in row["scores"].values():
            shown = f"{100 * score['value']:.1f} % [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
            assert shown.replace("[-0.0", "[0.0") in text
    for sentence in (*found["verdict"], found["recommendation"], found["outlook"], *found["health"]):
        assert escape(sentence, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in html
    assert found["closeup"]["title"] == "SimCLR, linear probe"
    assert [row["name"] for row in found["closeup"]["classes"]["rows"]] == ["dark", "light"]
    for count in found["counts"]:
        assert re.search(rf"{count['name']}\D+{count['labelled']}\D+{count['test']}", text)


def test_study_json_is_strict_json(done):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads((done / "study.json").read_text(), parse_constant=refuse)


def test_beside_ebclr_without_norms_simclr_is_trained_with_and_without_them(
    images, training, scoring, kontrast, tmp_path, caplog
):
    words = ["study", images, *training, *FAST, *scoring, "--methods", "simclr", "ebclr", "--out", tmp_path / "out"]
    with caplog.at_level(logging.INFO, "kontrast"):
        assert kontrast(*words) == 0
    assert "not every method can have the batch norm of test_efficientnet" in caplog.text
    norms = {
        path.parent.parent.name: json.loads(path.read_text())["norm"]
        for path in (tmp_path / "out/runs").glob("*/seed-0/encoder.json")
    }
    assert norms == {"simclr": None, "simclr_norm_none": "none", "ebclr_norm_none": "none"}
    told = "the optimiser sgd, learning rate 0.06 and weight decay 0.0005 (EBCLR (norm=none) by adamw, 0.0004, 0)"
    assert told in (tmp_path / "out/report.html").read_text()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out/cells").rglob("*.npz")}
    assert kontrast(*words) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_norms_that_were_chosen_for_the_study_are_not_taken_out(images, training, scoring, refused, tmp_path):
    said = refused(
        "study", images, *training, *FAST, *scoring, "--methods", "ebclr", "--norm", "batch", "--out", tmp_path / "out"
    )
    assert "ebclr needs an encoder without batch norm" in said
    assert not (tmp_path / "out").exists()
