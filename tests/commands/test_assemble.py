"""Parts are put together from options, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kontrast.commands.assemble import (
    DataOptions,
    EncoderOptions,
    build_encoder,
    claim_folder,
    data_name,
    kept,
    named,
    open_data,
    require_texts,
    split,
    texts_settled,
)
from kontrast.errors import InputError


def test_a_near_name_is_suggested_and_else_all_names_are_given():
    assert named("simclr", ["simclr", "byol"], "method") == "simclr"
    with pytest.raises(InputError, match=r"there is no method 'simcrl': did you mean simclr\?"):
        named("simcrl", ["simclr", "byol"], "method")
    with pytest.raises(InputError, match="choose one of byol, simclr"):
        named("zzz", ["simclr", "byol"], "method")


@pytest.mark.parametrize("limit", [10, 20, 47])
def test_a_limit_keeps_the_shares_of_the_classes_and_always_the_same_images(images, limit):
    found, again = (open_data(DataOptions(data=str(images), limit=limit)) for _ in range(2))
    assert len(found) == limit
    assert found.names == again.names
    counts = np.bincount(found.labels)
    assert abs(counts[0] - counts[1]) <= 1


def test_a_limit_keeps_the_shares_of_training_and_test(digits):
    found = open_data(DataOptions(data=digits, limit=500))
    assert abs((found.parts == "test").sum() - 100) <= 1
    assert np.bincount(found.labels).min() >= 48


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(limit, images):
    with pytest.raises(InputError, match=f"--limit is {limit}, so give 1 or more"):
        open_data(DataOptions(data=str(images), limit=limit))


def test_images_without_labels_all_train(draw_folder, tmp_path):
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=5)
    parts = split(open_data(DataOptions(data=str(flat))))
    assert len(parts.train) == 5
    assert parts.test is None


def test_no_image_is_on_both_sides_of_the_split(images):
    parts = split(open_data(DataOptions(data=str(images))))
    assert not set(parts.train.names) & set(parts.test.names)
    assert len(parts.train) + len(parts.test) == 48


def test_labelled_positions_leave_out_images_without_a_label(images):
    data = open_data(DataOptions(data=str(images)))
    some = np.where(np.arange(48) % 3 == 0, -1, data.labels)
    assert data.with_labels(some, data.classes).labelled.tolist() == [i for i in range(48) if i % 3]
    table = np.full((48, 2), np.nan)
    table[[4, 9], 1] = 0
    assert data.with_labels(table, ("a", "b")).labelled.tolist() == [4, 9]
    assert len(data.with_labels(None, ()).labelled) == 0


def test_an_encoder_normalises_by_the_training_images_and_its_seed_decides_its_weights(images):
    train = split(open_data(DataOptions(data=str(images)))).train
    options = EncoderOptions(encoder="test_efficientnet", stem="standard")
    first, again, other = (build_encoder(options, train, 16, seed=seed) for seed in (0, 0, 1))
    values = train.pixels[train.rows].astype(np.float64) / 255
    assert first.spec.mean[0] == pytest.approx(values.mean())
    assert first.spec.std[0] == pytest.approx(values.std())
    weights = [next(one.parameters()) for one in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_folder_is_claimed_once_and_given_back_to_the_same_settings_only(tmp_path):
    out = tmp_path / "deep" / "run"
    claim_folder(out, {"a": 1, "b": (1.5, 2)}, resume=False)
    assert yaml.safe_load((out / "config.yaml").read_text()) == {"a": 1, "b": [1.5, 2]}
    claim_folder(out, {"a": 1, "b": (1.5, 2)}, resume=True)
    with pytest.raises(InputError, match="add --resume or name another"):
        claim_folder(out, {"a": 1, "b": (1.5, 2)}, resume=False)
    with pytest.raises(InputError, match=r"a was 1 in .* and is 2 now"):
        claim_folder(out, {"a": 2, "b": (1.5, 2)}, resume=True)
    with pytest.raises(InputError, match=r"c was None in .* and is 0 now"):
        claim_folder(out, {"a": 1, "b": (1.5, 2), "c": 0}, resume=True)


def test_what_a_kill_left_of_a_claim_does_not_block_the_folder(tmp_path):
    (tmp_path / ".config.yaml.partial").write_text("epo")
    claim_folder(tmp_path, {"a": 1}, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_file_or_a_folder_of_other_things_is_never_claimed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        for resume in (False, True):
            with pytest.raises(InputError, match="must be a new or empty folder"):
                claim_folder(out, {"a": 1}, resume=resume)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_data_are_named_without_addresses_in_memory(digits):
    assert data_name(Path("images")) == "images"
    assert data_name(digits) == "sample:digits-5k"
    assert data_name([torch.zeros(1, 4, 4)]) == "list"


def test_a_trained_classifier_is_not_called_unfinished(untrained, tmp_path):
    untrained(tmp_path, classes=("a", "b"))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/epoch_00012.pt").touch()
    assert "keeps the classifier, which can be used" in kept(tmp_path, can_resume=False)


def test_what_is_kept_is_said_in_the_words_of_the_command(tmp_path):
    assert kept(tmp_path, can_resume=True) == "nothing was finished yet, so nothing is kept"
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/epoch_00012.pt").touch()
    assert "keeps the checkpoint of epoch 12; go on with --resume" in kept(tmp_path, can_resume=True)
    assert "--resume" not in kept(tmp_path, can_resume=False)


# Texts


def test_pairs_of_which_any_two_differ_pass(digits):
    few = digits.take(np.arange(3))
    require_texts(few.with_texts([("a",), ("a",), ("b",)]), "clip")
    require_texts(few.with_texts([("a",), ("a", "b"), ("a",)]), "clip")


def test_images_without_texts_are_refused_with_both_ways_to_give_them(digits):
    with pytest.raises(
        InputError, match=r"clip needs a text of each image; sample:digits-5k has none that is read, .*\.txt"
    ):
        require_texts(digits, "clip")


@pytest.mark.parametrize("texts", [[("a cat",)] * 3, [("a cat", "one"), ("one", "a cat"), ("a cat", "one")]])
def test_texts_that_are_all_equal_are_refused_with_the_reason(digits, texts):
    with pytest.raises(InputError, match=r"all 3 images of .* have 'a cat', .*nothing to contrast"):
        require_texts(digits.take(np.arange(3)).with_texts(texts), "clip")


def test_a_long_text_is_quoted_in_part(digits):
    with pytest.raises(InputError, match=r"have 'x{57}\.\.\.',"):
        require_texts(digits.take(np.arange(2)).with_texts([("x" * 500,)] * 2), "clip")


def test_columns_and_delimiter_are_options(images, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text(f"file|what\n{images}/dark/00.png|one\n{images}/light/00.png|two\n{images}/dark/00.png|three\n")
    found = open_data(
        DataOptions(data=str(table), image_column="file", text_column="what", delimiter="|", texts="read")
    )
    assert found.texts == (("one", "three"), ("two",))


def test_a_method_that_reads_no_texts_is_not_disturbed_by_those_that_lack(images, tmp_path):
    names = sorted(str(path) for path in images.rglob("*.png"))
    table = tmp_path / "half.csv"
    table.write_text("\n".join(["path,text", *(f"{name},{'words' if n % 2 else ''}" for n, name in enumerate(names))]))
    assert len(open_data(texts_settled(DataOptions(data=str(table)), are_used=False))) == len(names)
    with pytest.raises(InputError, match=r"24 of 48 pairs of .* lack one"):
        open_data(texts_settled(DataOptions(data=str(table)), are_used=True))
    kept = texts_settled(DataOptions(data=str(table), texts="ignore"), are_used=True)
    assert open_data(kept).texts is None
