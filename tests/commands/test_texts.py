"""Texts of methods that read them: the tower, the control with shuffled texts, and what is refused."""

from itertools import product

import numpy as np
import pytest
from torch import nn

from kontrast.augment import policies
from kontrast.commands.assemble import build_method
from kontrast.commands.texts import TextOptions, build_text_tower, shuffled_texts
from kontrast.errors import InputError
from kontrast.methods import CLIP
from kontrast.nn.encoders import Encoder, EncoderSpec


class Net(nn.Module):
    num_features = 4


def built(data, **options):
    encoder = Encoder(Net(), EncoderSpec(name="resnet18"))
    return build_method("clip", None, encoder, policies.digits(28), data, texts=TextOptions(**options))


@pytest.fixture
def described(digits):
    return digits.take(np.arange(6)).with_texts([[f"text {i}", f"word {i}"] for i in range(6)])


def test_clip_gets_a_text_tower_that_knows_the_words_of_the_data(digits):
    method = built(digits.take(np.arange(3)).with_texts([["zebra zebra"], ["zebra", "lion"], ["lion"]]))
    assert isinstance(method, CLIP)
    assert method.text.tokens(["zebra"]).length == 3


def test_sizes_of_the_text_tower_are_those_asked_for(described):
    tower = built(described, text_width=24, text_layers=3, text_heads=2, vocabulary=260, context=9).text
    assert (tower.network.spec.width, tower.network.spec.layers, tower.network.spec.heads) == (24, 3, 2)
    assert (tower.tokenizer.context, tower.tokenizer.num_tokens) == (9, 260)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (None, "has none that is read, so name a table"),
        ([["same"], ["same", "same"], ["same"]], "so texts must differ; all 3"),
    ],
)
def test_clip_without_texts_or_with_one_text_for_all_is_refused(texts, said, digits):
    with pytest.raises(InputError, match=said):
        built(digits.take(np.arange(3)).with_texts(texts))


@pytest.mark.parametrize(
    ("texts", "context"),
    [(["ABC", "abc", "Abc"], 77), (["one two three four", "one two three five", "one two three"], 5)],
)
def test_texts_that_are_one_to_the_tower_are_refused(texts, context, digits):
    with pytest.raises(InputError, match="are one to it, by lower case or their first"):
        built(digits.take(np.arange(3)).with_texts([[text] for text in texts]), context=context, vocabulary=258)


def test_texts_some_of_which_are_one_to_the_tower_are_counted(digits, caplog):
    built(digits.take(np.arange(3)).with_texts([["Heart"], ["heart"], ["lung"]]))
    assert "3 different texts are 2 to the text tower" in caplog.text


@pytest.mark.parametrize("context", [0, 2, -5])
def test_a_context_without_room_for_a_text_is_refused(context, described):
    with pytest.raises(InputError, match="context"):
        built(described, context=context)


def test_an_augmentation_that_mirrors_is_named_where_texts_may_say_left(described, caplog):
    build_method("clip", None, Encoder(Net(), EncoderSpec(name="resnet18")), policies.captioned(28), described)
    assert "mirrors" not in caplog.text
    build_method("clip", None, Encoder(Net(), EncoderSpec(name="resnet18")), policies.natural(28), described)
    assert "--policy captioned, xray" in caplog.text


def test_a_text_tower_that_is_no_folder_is_refused(described, tmp_path):
    with pytest.raises(InputError, match="--text-tower is own, sample:minilm or the folder"):
        build_text_tower(TextOptions(text_tower=str(tmp_path / "nothing")), described)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_texts_are_the_same_texts_and_none_stays_with_its_group(seed, digits):
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    pairs = [[f"{name} {style}"] for name, style in product("abcd", "xy")]
    data = digits.take(np.arange(8)).with_texts(pairs)
    data = shuffled_texts(type(data)(**{**vars(data), "groups": groups}), seed=seed)
    assert sorted(data.texts) == sorted(map(tuple, pairs))
    names = [text[0][0] for text in data.texts]
    assert all(name != "abcd"[group] for name, group in zip(names, groups, strict=True))
    assert all(names[i] == names[i + 1] for i in range(0, 8, 2)), "a group keeps together"


def test_without_groups_each_image_gets_the_text_of_another(described):
    shuffled = shuffled_texts(described, seed=0)
    assert sorted(shuffled.texts) == sorted(described.texts)
    assert all(one != other for one, other in zip(shuffled.texts, described.texts, strict=True))


def test_texts_of_one_group_cannot_be_shuffled(described):
    one = type(described)(**{**vars(described), "groups": np.zeros(6, dtype=np.int64)})
    with pytest.raises(InputError, match="has one, so leave --shuffle-texts out"):
        shuffled_texts(one, seed=0)
