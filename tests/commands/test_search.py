"""What is found is nearest by the cosines of the towers, written whole, and cannot break table, page or terminal."""

import csv
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import kontrast as package
from kontrast import data
from kontrast.cli import _kept
from kontrast.commands.assemble import split
from kontrast.commands.search import Search
from kontrast.nn.towers import load_towers


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cosines(run, opened, query):
    """Those of images with a text or with pixels `(c, h, w)`, by plain numpy."""
    towers = load_towers(run)
    with torch.no_grad():
        image = towers.encode_image(torch.from_numpy(np.array(opened.pixels[opened.rows]))).numpy()
        asked = (
            towers.encode_text([query]) if isinstance(query, str) else towers.encode_image(torch.tensor(query)[None])
        )
    return image @ asked.numpy()[0]


def ordered(values):
    return sorted(range(len(values)), key=lambda i: (-round(float(values[i]), 6), i))


def test_a_text_finds_the_images_of_the_largest_cosines_and_copies_keep_their_order(
    clip_run, pairs, kontrast, capsys, tmp_path
):
    out = tmp_path / "new" / "found.csv"
    assert kontrast("search", clip_run, "a light half", "--data", pairs, "--top", 60, "--out", out) == 0
    opened, rows = data.open(pairs), read(out)
    expected = cosines(clip_run, opened, "a light half")
    assert list(rows[0]) == ["kind", "rank", "cosine", "path", "text"]
    assert [row["path"] for row in rows] == [opened.names[i] for i in ordered(expected)]
    assert [row["text"] for row in rows] == [opened.texts[i][0] for i in ordered(expected)]
    assert [float(row["cosine"]) for row in rows] == pytest.approx(sorted(expected, reverse=True), abs=2e-6)
    assert [int(row["rank"]) for row in rows] == list(range(1, 61))
    assert {row["kind"] for row in rows} == {"image"}
    places = {row["path"]: int(row["rank"]) for row in rows}
    assert all(abs(places[f"copies/{n:02d}.png"] - places[f"dark/{n:02d}.png"]) == 1 for n in range(12))
    assert [path.name for path in out.parent.iterdir()] == ["found.csv"]
    assert rows[0]["path"] in capsys.readouterr().out


def test_an_image_finds_the_texts_and_images_of_the_largest_cosines_itself_among_them(clip_run, pairs, tmp_path):
    asked = pairs.parent / "dark/03.png"
    found = package.search(run=clip_run, image=str(asked), data=str(pairs), top=5, out=str(tmp_path / "found.csv"))
    opened, towers = data.open(pairs), load_towers(clip_run)
    pixels = np.asarray(Image.open(asked))[None]
    images = cosines(clip_run, opened, pixels)
    different = list(dict.fromkeys(text for texts in opened.texts for text in texts))
    with torch.no_grad():
        texts = (towers.encode_text(different) @ towers.encode_image(torch.tensor(pixels)[None])[0]).numpy()
    assert len(different) == 17
    assert [hit.text for hit in found[:5]] == [different[i] for i in ordered(texts)[:5]]
    assert [hit.path for hit in found[5:]] == [opened.names[i] for i in ordered(images)[:5]]
    assert {hit.path for hit in found[5:7]} == {"copies/03.png", "dark/03.png"}
    assert found[5].cosine == found[6].cosine == 1.0
    for hit in found[:5]:
        assert opened.texts[hit.position][0] == hit.text
        assert hit.position == min(i for i, known in enumerate(opened.texts) if hit.text in known)
    assert [(row["kind"], row["text"], row["path"]) for row in read(tmp_path / "found.csv")] == [
        (hit.kind, hit.text, hit.path) for hit in found
    ]


def test_equal_images_of_different_blocks_are_in_the_order_of_the_data(clip_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (521, 16, 16), dtype=np.uint8)
    pixels[[300, 520]] = pixels[7]
    np.savez(tmp_path / "many.npz", images=pixels)
    Image.fromarray(pixels[7]).save(tmp_path / "asked.png")
    found = package.search(run=clip_run, image=tmp_path / "asked.png", data=str(tmp_path / "many.npz"), top=3)
    assert [hit.position for hit in found] == [7, 300, 520]
    assert {hit.kind for hit in found} == {"image"}


def test_without_data_the_runs_own_test_images_are_searched_and_no_others(clip_run, pairs):
    found = package.search(run=clip_run, query="a dark field", top=1000)
    assert sorted(hit.path for hit in found) == sorted(split(data.open(pairs)).test.names)


def test_a_smaller_image_is_asked_about_as_it_lies_among_the_data(clip_run, draw_folder, tmp_path):
    folder = draw_folder(tmp_path / "set", kinds=(".",), count=5)
    shutil.copy(folder / "00.png", tmp_path / "large.png")
    Image.fromarray(np.full((9, 12), 200, np.uint8)).save(folder / "small.png")
    found = package.search(run=clip_run, image=folder / "small.png", data=str(folder), top=1)
    assert (found[0].path, found[0].cosine) == ("small.png", 1.0)


def test_a_colour_picture_is_asked_about_in_the_channels_of_the_encoder(clip_run, pairs, tmp_path):
    Image.open(pairs.parent / "light/05.png").convert("RGB").save(tmp_path / "colour.png")
    found = package.search(run=clip_run, image=tmp_path / "colour.png", data=str(pairs), top=1)
    assert (found[-1].path, found[-1].cosine) == ("light/05.png", 1.0)


def test_a_parquet_file_holds_the_same_as_the_csv_and_the_page_needs_nothing_else(clip_run, pairs, tmp_path):
    outs = [tmp_path / name for name in ("found.csv", "found.parquet", "found.html")]
    package.search(run=clip_run, image=pairs.parent / "light/05.png", data=str(pairs), top=4, out=outs)
    rows, html = read(outs[0]), outs[2].read_text()
    table = parquet.read_table(outs[1]).to_pylist()
    assert [{key: str(value) for key, value in row.items()} for row in table] == rows
    assert len(rows) == 8
    assert html.count('<img src="data:image/webp;base64,') == 1 + 4
    assert not re.search(r"<script|<link|(src|href)=\"(?!data:|#)|url\(|@import", html)
    assert all(row["path"] in html and row["text"] in html for row in rows)
    assert "Texts and images nearest to 05.png" in html
    assert "4 of 60 images and 4 of 17 different texts" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(out.name for out in outs)


def test_names_and_texts_cannot_break_table_page_or_terminal(clip_run, draw_folder, kontrast, capsys, tmp_path):
    folder = draw_folder(tmp_path / "set", kinds=(".",), count=3)
    evil = "=1+1<script>alert(1)</script>"
    (folder / "00.png").rename(folder / "=cmd|x!A1<b>[red]\x1b[31m.png")
    for number, name in enumerate(["=cmd|x!A1<b>[red]\x1b[31m", "01", "02"]):
        (folder / f"{name}.txt").write_text([evil, "[bold]b[/bold]", "\x1b]0;owned\x07"][number])
    words = ["--data", folder, "--out", tmp_path / "f.csv", tmp_path / "f.html"]
    assert kontrast("search", clip_run, "<script>alert(2)</script>", *words) == 0
    shown, html = capsys.readouterr().out, (tmp_path / "f.html").read_text()
    rows = {row["path"]: row["text"] for row in read(tmp_path / "f.csv")}
    assert rows["./=cmd|x!A1<b>[red]\x1b[31m.png"] == f"'{evil}"
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;alert(2)" in html
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]b[/bold]" in shown


def test_aliases_hide_the_names_of_images_and_of_the_one_asked_about(clip_run, pairs, kontrast, capsys, tmp_path):
    asked = shutil.copy(pairs.parent / "light/05.png", tmp_path / "smith.png")
    outs = [tmp_path / "f.csv", tmp_path / "f.html"]
    assert kontrast("search", clip_run, "--image", asked, "--data", pairs, "--alias-paths", "--out", *outs) == 0
    said = "".join([capsys.readouterr().out, *(out.read_text() for out in outs)])
    assert said.count("image-") >= 3 * 40
    assert not re.search(r"smith|(dark|light|copies)/\d\d\.png", said)
    assert not (tmp_path / ".kontrast-key").exists()
    found = package.search(run=clip_run, query="dark", alias_paths=True, top=3)
    assert all(hit.path.startswith("image-") for hit in found)


def test_a_run_that_knew_its_images_by_aliases_knows_others_so_as_well(clip_run, pairs, tmp_path):
    run = shutil.copytree(clip_run, tmp_path / "run")
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("alias_paths: false", "alias_paths: true"))
    for searched in ({}, {"data": str(pairs)}):
        assert all(hit.path.startswith("image-") for hit in package.search(run=run, query="dark", **searched))


def test_a_text_that_the_context_cuts_is_said_on_the_terminal_and_on_the_page(clip_run, pairs, caplog, tmp_path):
    package.search(run=clip_run, query="view " + "z" * 60, data=str(pairs), top=1, out=[tmp_path / "f.html"])
    assert "of the text searched by, only the first 14 tokens are read" in caplog.text
    assert "so its end was left out" in (tmp_path / "f.html").read_text()
    caplog.clear()
    package.search(run=clip_run, query="view", data=str(pairs), top=1, out=[tmp_path / "g.html"])
    assert "tokens" not in caplog.text
    assert "so its end was left out" not in (tmp_path / "g.html").read_text()


def test_where_one_file_cannot_be_written_none_is(clip_run, pairs, refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert package.search(run=clip_run, query="dark", data=str(pairs), top=1)
    with pytest.raises(package.InputError, match="Parquet needs pyarrow"):
        package.search(
            run=clip_run,
            query="dark",
            data=str(pairs),
            out=[tmp_path / "f.csv", tmp_path / "f.html", tmp_path / "f.parquet"],
        )
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_refused_and_nothing_that_is_there_is_touched(
    clip_run, run, pairs, images, refused, draw_folder, tmp_path
):
    words = ["--data", pairs]
    assert "runs of clip leave in towers.safetensors" in refused("search", run, "dark", "--data", images)
    assert "got neither" in refused("search", clip_run, *words)
    assert "got both" in refused("search", clip_run, "dark", "--image", images / "dark/00.png", *words)
    assert "has a word or more; got '  '" in refused("search", clip_run, "  ", *words)
    assert "has a word or more; got ''" in refused("search", clip_run, "", *words)
    assert "--top is 0" in refused("search", clip_run, "dark", *words, "--top", 0)
    assert "none.png is not there" in refused("search", clip_run, "--image", tmp_path / "none.png", *words)
    assert "is none that is read" in refused("search", clip_run, "--image", pairs, *words)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "1 of 1 are (broken.png" in refused("search", clip_run, "--image", tmp_path / "broken.png", *words)
    assert "got --limit" in refused("search", clip_run, "dark", "--limit", 3)
    colour = draw_folder(tmp_path / "colour", channels=3, count=3)
    assert "use --channels 1" in refused("search", clip_run, "dark", "--data", colour)
    assert "--out must end in .csv, .parquet, .html" in refused("search", clip_run, "dark", "--out", tmp_path / "f.txt")
    twice = ["--out", tmp_path / "f.csv", tmp_path / "f.csv"]
    assert "every file of --out is another one" in refused("search", clip_run, "dark", *words, *twice)
    (tmp_path / "f.html").write_text("mine")
    outs = ["--out", tmp_path / "f.csv", tmp_path / "f.html"]
    assert "results of a search never overwrite" in refused("search", clip_run, "dark", *words, *outs)
    assert (tmp_path / "f.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.png", "colour", "f.html"]


def test_an_interrupted_search_says_that_nothing_was_written(tmp_path):
    assert _kept(Search(run=tmp_path, query="dark", out=(tmp_path / "f.csv",))) == "nothing was written yet"
