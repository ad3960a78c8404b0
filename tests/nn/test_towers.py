"""What a run of clip leaves beside its encoder, and what becomes of it when it is not whole."""

import json

import pytest
import torch
from torch import nn

from kontrast.errors import InputError
from kontrast.nn.bert import Bert, BertSpec
from kontrast.nn.encoders import encoder, save_encoder
from kontrast.nn.text import TextSpec, TextTower, text_tower
from kontrast.nn.tokenizer import Tokenizer
from kontrast.nn.towers import Towers, load_towers, projections, save_towers

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "heart"]
SMALL = BertSpec(
    vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=10,
)  # fmt: skip
TEXTS = ["a heart", "two lungs"] * 2


def made(text=None, width=8):
    torch.manual_seed(0)
    text = text or text_tower(TEXTS, TextSpec(width=16, layers=1, heads=2, context=9, vocabulary=260))
    image = encoder("test_resnet", channels=1, size=28, stem="standard")
    return Towers(image, text, *projections(image.width, text.width, width), temperature=0.05).eval()


def saved(folder, towers):
    save_encoder(towers.encoder, folder)
    save_towers(towers, folder)
    return folder


def test_towers_embed_at_length_1_and_again_the_same_when_they_are_loaded(tmp_path):
    towers, image = made(), torch.rand(3, 1, 28, 28)
    again = load_towers(saved(tmp_path, towers))
    for found, expected in (
        (again.encode_image(image), towers.encode_image(image)),
        (again.encode_text(TEXTS), towers.encode_text(TEXTS)),
        (again.temperature, torch.tensor(0.05)),
    ):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(towers.encode_text(TEXTS).norm(dim=1), torch.ones(4))
    assert again.encode_image(image).shape == (3, 8)


def test_a_bert_is_kept_with_its_own_sizes(tmp_path):
    torch.manual_seed(0)
    subwords = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    towers = made(TextTower(Tokenizer(subwords, start=2, end=3, context=10), Bert(SMALL)))
    again = load_towers(saved(tmp_path, towers))
    torch.testing.assert_close(again.encode_text(["heart", "the"]), towers.encode_text(["heart", "the"]))


def test_a_run_without_towers_and_one_that_lost_a_part_of_them_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no towers\.safetensors, so name such a run"):
        load_towers(tmp_path)
    saved(tmp_path, made())
    described = json.loads((tmp_path / "towers.json").read_text())
    for changed in (
        {},
        [],
        described | {"text": described["text"] | {"kind": "unknown"}},
        described | {"text": described["text"] | {"width": 32}},
        described | {"text": described["text"] | {"more": 1}},
        described | {"tokenizer": {"start": 1}},
    ):
        (tmp_path / "towers.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="not the whole of what a run of clip leaves"):
            load_towers(tmp_path)
    (tmp_path / "towers.json").write_text(json.dumps(described))
    content = (tmp_path / "towers.safetensors").read_bytes()
    (tmp_path / "towers.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not the whole of what a run of clip leaves"):
        load_towers(tmp_path)


def test_towers_of_one_width_need_no_projection_and_others_do():
    assert all(isinstance(part, nn.Identity) for part in projections(32, 32, 0))
    image, text = projections(32, 16, 8)
    assert (image.weight.shape, text.weight.shape) == ((8, 32), (8, 16))
    with pytest.raises(InputError, match="image tower has 32 and the text tower 16, so give --width"):
        projections(32, 16, 0)
