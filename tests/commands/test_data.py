"""The sample data sets, listed and fetched, and the contact sheet of views."""

import hashlib
from dataclasses import replace

import numpy as np
from PIL import Image

from kontrast.commands.data import CELL, GAP
from kontrast.data.samples import SAMPLES


def test_every_sample_is_listed_with_its_licence(kontrast, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert kontrast("data", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown and sample.licence in shown for name, sample in SAMPLES.items())


def test_a_fetched_sample_says_what_it_is_and_what_it_must_not_be_used_to_claim(kontrast, capsys, monkeypatch, digits):
    monkeypatch.setenv("COLUMNS", "1000")
    assert kontrast("data", "get", "digits-5k") == 0
    shown = capsys.readouterr().out
    sample = SAMPLES["digits-5k"]
    assert "5,000 images of 28 px in 10 classes, use it as sample:digits-5k" in shown
    assert sample.licence in shown
    assert " ".join(sample.caveat.split()) in " ".join(shown.split())


def test_the_list_is_grouped_by_kind_and_readable_at_80_columns(kontrast, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert kontrast("data", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [line.split("  ")[0].rstrip() for line in lines]
    kinds = list(dict.fromkeys(sample.kind for sample in SAMPLES.values()))
    assert [line for line in starts if line in kinds] == kinds
    assert set(SAMPLES) <= set(starts)
    assert any("MedMNIST+" in line for line in lines)


def test_weights_are_fetched_and_their_place_is_shown(kontrast, capsys, monkeypatch, cache):
    monkeypatch.setenv("COLUMNS", "80")
    sample = SAMPLES["efficientnet-lite0"]
    (pack,) = sample.packs
    content = b"not really weights"
    file = replace(pack.files[0], digest=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(SAMPLES, "efficientnet-lite0", replace(sample, packs=(replace(pack, files=(file,)),)))
    folder = cache / "samples" / "efficientnet-lite0"
    folder.mkdir(parents=True)
    (folder / file.member).write_bytes(content)
    assert kontrast("data", "get", "efficientnet-lite0") == 0
    shown = capsys.readouterr().out
    assert f"Files: 1 in {folder}" in shown
    assert file.member in shown
    assert f"Licence: {sample.licence}" in shown
    assert "sample:efficientnet-lite0" not in shown


def test_a_sample_of_volumes_is_no_data_to_train_on(refused, tmp_path):
    said = refused("pretrain", "simclr", "sample:colin27", "--out", str(tmp_path / "a"))
    assert "holds volumes" in said
    assert "kontrast data get colin27" in said


def test_an_unknown_sample_is_refused(refused):
    assert "digits-5k" in refused("data", "get", "digits5k")


def test_a_preview_shows_images_beside_their_views_and_the_same_ones_for_the_same_seed(kontrast, images, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        how = ("--policy", "xray", "--images", "3", "--views", "4", "--seed", seed)
        assert kontrast("data", "preview", str(images), *how, "--out", str(tmp_path / f"{name}.png")) == 0
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in "abc")
    assert np.array_equal(a, b)
    first = slice(0, GAP + CELL + 1)
    assert np.array_equal(a[:, first], c[:, first])
    assert not np.array_equal(a, c)
    assert a.shape[1] > 5 * CELL
    assert a.shape[0] > 3 * CELL


def test_a_preview_overwrites_nothing_and_names_the_policies(refused, images, tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    assert "name another --out" in refused("data", "preview", str(images), "--out", str(taken))
    assert taken.read_bytes() == b"mine"
    free = str(tmp_path / "free.png")
    assert "histology" in refused("data", "preview", str(images), "--policy", "teeth", "--out", free)
    assert "1 or more" in refused("data", "preview", str(images), "--views", "0", "--out", free)
