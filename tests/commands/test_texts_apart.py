"""A method of texts asks for texts, and for more than one."""

import numpy as np
import pytest
from torch import nn

from kontrast.augment import policies
from kontrast.commands.assemble import build_method
from kontrast.errors import InputError
from kontrast.methods import CLIP
from kontrast.nn.encoders import Encoder, EncoderSpec


class Net(nn.Module):
    num_features = 4


def built(data):
    return build_method("clip", None, Encoder(Net(), EncoderSpec(name="resnet18")), policies.digits(28), data)


def test_clip_gets_a_text_tower_that_knows_the_words_of_the_data(digits):
    method = built(digits.take(np.arange(3)).with_texts([["zebra zebra"], ["zebra", "lion"], ["lion"]]))
    assert isinstance(method, CLIP)
    assert method.text.tokens(["zebra"]).length == 3


@pytest.mark.parametrize(
    ("texts", "said"),
    [(None, "has none, so give a table with a column text"), ([["same"], ["same", "same"], ["same"]], "all 4 of")],
)
def test_clip_without_texts_or_with_one_text_for_all_is_refused(texts, said, digits):
    with pytest.raises(InputError, match=said):
        built(digits.take(np.arange(3)).with_texts(texts))
