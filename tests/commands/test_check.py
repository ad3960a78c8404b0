"""`data check`: what is planted is found, the exit code says so, and page and JSON name nothing else."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kontrast.cli import main
from kontrast.commands.check import check


@pytest.fixture(scope="module")
def clean(tmp_path_factory, digits):
    """120 different digits in two classes, with a table of labels, patients and split."""
    root = tmp_path_factory.mktemp("clean") / "set"
    root.mkdir()
    lines = ["path,label,group,split"]
    for number, at in enumerate(np.flatnonzero(digits.labels < 2)[::8][:120]):
        Image.fromarray(digits.pixels[digits.rows[at], 0]).save(root / f"{number:03d}.png")
        patient = number // 2
        lines.append(f"{number:03d}.png,{digits.labels[at]},p{patient},{'test' if patient % 5 == 0 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def planted(clean, tmp_path):
    """The same with one of everything that can be wrong."""
    root = tmp_path / "planted"
    shutil.copytree(clean, root)
    lines = (root / "labels.csv").read_text().splitlines()
    lines[4] = lines[4].replace("train", "test")  # 003.png, of a patient whose other image trains
    shutil.copy(root / "020.png", root / "exact.png")
    file = io.BytesIO()
    Image.open(root / "030.png").save(file, "JPEG", quality=80)
    Image.open(file).save(root / "near.png")
    shutil.copy(root / "044.png", root / "conflict.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(root / "black.png")
    (root / "broken.png").write_bytes(b"no picture at all")
    shutil.copy(root / "005.png", root / "<img src=x onerror=alert(1)>&'.png")
    other = "1" if lines[45].split(",")[1] == "0" else "0"
    lines += ["exact.png,0,new1,train", "near.png,1,new2,train", f"conflict.png,{other},p22,train"]
    lines += ["black.png,0,new4,train", "<img src=x onerror=alert(1)>&'.png,0,p2,train"]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def checked(root, out, *words):
    code = main(["data", "check", str(root), "--labels", str(root / "labels.csv"), "--out", str(out), *words])
    return code, json.loads((out / "check.json").read_text()), (out / "report.html").read_text()


def test_a_clean_set_has_nothing_to_act_on(clean, tmp_path):
    code, found, html = checked(clean, tmp_path / "out")
    assert code == 0
    assert not found["leak"]
    assert [each["kind"] for each in found["findings"] if each["grade"] != "note"] == []
    assert "No leak found among 120 images." in html
    assert found["parts"] == {"test": 24, "train": 96}


def test_everything_planted_is_found(planted, tmp_path):
    code, found, html = checked(planted, tmp_path / "out", "--max-unreadable", "0.1")
    assert code == 1
    assert found["leak"]
    of = {each["kind"]: each for each in found["findings"]}
    images = {kind: [sorted(item["images"]) for item in each["items"]] for kind, each in of.items()}
    assert images["cut-groups"] == [["002.png", "003.png"]]
    assert images["exact-across"] == [["020.png", "exact.png"]]
    assert images["near-across"] == [["030.png", "near.png"]]
    assert ["044.png", "conflict.png"] in images["exact-within"]
    assert images["label-conflicts"] == [["044.png", "conflict.png"]]
    assert images["constant"] == [["black.png"]]
    assert [item["name"] for item in of["unreadable"]["items"]] == ["broken.png"]
    assert [each["grade"] for each in found["findings"]] == sorted(
        (each["grade"] for each in found["findings"]), key=["leak", "problem", "note"].index
    )
    assert of["cut-groups"]["items"][0]["name"].startswith("group-")
    assert "new1" not in html + json.dumps(found), "groups have aliases"


def test_names_are_shown_as_text_and_the_page_loads_nothing(planted, tmp_path):
    _, _, html = checked(planted, tmp_path / "out", "--max-unreadable", "0.1")
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#39;.png" in html
    assert "<script" not in html
    assert set(re.findall(r'(?:src|href)="([a-z]+:|#)', html)) <= {"data:", "#"}
    assert not re.search(r"https?://", html)


def test_thumbnails_can_be_left_out(planted, tmp_path):
    _, _, html = checked(planted, tmp_path / "out", "--max-unreadable", "0.1", "--no-thumbnails")
    assert "<img" not in html
    assert "data:image" not in html
    assert "exact.png" in html


def test_no_names_but_aliases_appear_where_those_are_asked_for(planted, tmp_path, capsys):
    capsys.readouterr()
    _, found, html = checked(planted, tmp_path / "out", "--max-unreadable", "0.1", "--alias-paths")
    shown = capsys.readouterr().out
    for text in (html, json.dumps(found), shown):
        assert not re.search(r"\b(exact|near|conflict|black|broken|\d{3})\.png", text)


def test_without_a_folder_only_the_terminal_is_written(planted, kontrast, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    before = sorted(tmp_path.iterdir())
    words = ("data", "check", planted, "--labels", planted / "labels.csv", "--max-unreadable", "0.1")
    assert kontrast(*words) == 1
    shown = capsys.readouterr().out
    assert "There is a leak: groups cut by the split; exact copies across the split; near-dup" in shown
    assert "exact.png" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert sorted(tmp_path.iterdir()) == before


def test_another_split_can_be_tried(clean, kontrast, tmp_path):
    table = tmp_path / "split.csv"
    rows = [
        f"{path.name},{'test' if number % 2 else 'train'}" for number, path in enumerate(sorted(clean.glob("*.png")))
    ]
    table.write_text("\n".join(["path,split", *rows]) + "\n")
    words = ("data", "check", clean, "--labels", clean / "labels.csv", "--split", table, "--out", tmp_path / "out")
    assert kontrast(*words) == 1
    found = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [each["kind"] for each in found["findings"] if each["grade"] == "leak"] == ["cut-groups"]
    assert len(found["findings"][0]["items"]) == 60
    assert found["split"] == "that of split.csv"


def test_another_split_can_be_tried_under_aliases(clean, kontrast, tmp_path):
    table = tmp_path / "split.csv"
    rows = [f"{path.name},{'test' if at % 2 else 'train'}" for at, path in enumerate(sorted(clean.glob("*.png")))]
    table.write_text("\n".join(["path,split", *rows]) + "\n")
    words = ("data", "check", clean, "--labels", clean / "labels.csv", "--split", table, "--alias-paths")
    assert kontrast(*words, "--out", tmp_path / "out") == 1
    written = (tmp_path / "out" / "check.json").read_text() + (tmp_path / "out" / "report.html").read_text()
    assert rows[0].partition(",")[0] not in written
    assert len(json.loads((tmp_path / "out" / "check.json").read_text())["findings"][0]["items"]) == 60


def test_the_split_of_a_volume_is_that_of_its_slices(tmp_path, kontrast):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        volume = rng.integers(1, 900, (24, 24, 5)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
    (tmp_path / "split.csv").write_text("path,split\na.nii.gz,train\nb.nii.gz,test\n")
    words = ("data", "check", tmp_path, "--split", tmp_path / "split.csv")
    assert kontrast(*words, "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "check.json").read_text())["parts"] == {"test": 5, "train": 5}
    (tmp_path / "split.csv").write_text("path,split\na.nii.gz#z0,train\na.nii.gz,test\nb.nii.gz,test\n")
    assert kontrast(*words, "--out", tmp_path / "cut") == 1


def test_bad_input_is_refused_in_one_sentence(clean, refused, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    assert "name another" in refused("data", "check", clean, "--out", taken)
    table = tmp_path / "split.csv"
    table.write_text("path,part\n000.png,test\n")
    assert "column `split`" in refused("data", "check", clean, "--split", table)
    table.write_text("path,split\nelsewhere.png,test\n")
    assert "'elsewhere.png'" in refused("data", "check", clean, "--split", table)
    assert "nowhere" in refused("data", "check", tmp_path / "nowhere")


def test_images_without_labels_have_no_split_to_leak_through(images, tmp_path, kontrast):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(Path(images).rglob("*.png"))):
        shutil.copy(path, flat / f"{number}.png")
    assert kontrast("data", "check", flat, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "check.json").read_text())
    assert found["split"].startswith("none")
    assert found["classes"] == {}


def test_an_encoder_doubts_labels(run, images, kontrast, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(images, root)
    shutil.move(root / "dark" / "03.png", root / "light" / "wrong.png")
    assert kontrast("data", "check", root, "--run", run, "--out", tmp_path / "out") in (0, 1)
    found = {each["kind"]: each for each in json.loads((tmp_path / "out" / "check.json").read_text())["findings"]}
    assert [item["images"] for item in found["doubtful-labels"]["items"]] == [["light/wrong.png"]]
    assert "labelled light" in found["doubtful-labels"]["items"][0]["note"]


def test_the_call_from_python_returns_what_was_found(clean, tmp_path):
    found = check(data=str(clean), labels=clean / "labels.csv")
    assert not found.has_leak
    assert len(found.parts) == len(found.data) == 120


# Pairs of image and text


@pytest.fixture
def pairs(images, tmp_path):
    """A table of 48 pairs; two images of the test part are copies of one that trains, and say what no page may run."""
    root = tmp_path / "pairs"
    shutil.copytree(images, root)
    shutil.copy(root / "dark" / "00.png", root / "dark" / "copy.png")
    lines = ["image,text,label,split"]
    for path in sorted(root.rglob("*.png")):
        part = "test" if path.stem in ("copy", "23") else "train"
        lines.append(f"{path.relative_to(root)},<script>alert('{path.stem}')</script>,{path.parent.name},{part}")
    lines += ["dark/copy.png,also said,,", "gone.png,x,,", "dark/00.png,,,"]
    (root / "pairs.csv").write_text("\n".join(lines) + "\n")
    return root / "pairs.csv"


def test_texts_are_counted_and_shown_beside_their_images_as_text(pairs, tmp_path):
    out = tmp_path / "out"
    assert main(["data", "check", str(pairs), "--max-unreadable", "0.1", "--out", str(out)]) == 1
    found, html = json.loads((out / "check.json").read_text()), (out / "report.html").read_text()
    assert found["facts"]["Texts"] == "50, 26 of them different; 48 images share one with another image"
    assert "<script" not in html
    assert "<q>&lt;script&gt;alert(&#39;copy&#39;)&lt;/script&gt;</q>" in html
    unread = next(each for each in found["findings"] if each["kind"] == "unreadable")
    assert {(item["name"], item["note"]) for item in unread["items"]} == {
        ("gone.png", "line 52: no such file"), ("dark/00.png", "line 53: no text"),
    }  # fmt: skip


def test_texts_stay_off_the_page_with_the_images(pairs, tmp_path):
    out = tmp_path / "out"
    assert main(["data", "check", str(pairs), "--max-unreadable", "0.1", "--out", str(out), "--no-thumbnails"]) == 1
    assert "alert(" not in (out / "report.html").read_text()


def test_the_images_of_pairs_can_be_previewed(pairs, tmp_path):
    out = tmp_path / "sheet.png"
    words = [
        "data",
        "preview",
        str(pairs),
        "--max-unreadable",
        "0.1",
        "--texts",
        "read",
        "--policy",
        "digits",
        "--images",
        "2",
    ]
    assert main([*words, "--views", "2", "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 300
    assert main(["data", "preview", str(pairs), "--out", str(tmp_path / "other.png")]) == 2
