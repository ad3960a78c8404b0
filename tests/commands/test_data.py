"""The sample data sets, listed and fetched, and the contact sheet of views."""

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
    assert "5,000 images of 28 px, use it as sample:digits-5k" in shown
    assert sample.licence in shown
    assert " ".join(sample.caveat.split()) in " ".join(shown.split())


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
