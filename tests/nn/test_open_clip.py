"""Towers of open_clip beside open_clip itself: embeddings, tokens, weights, and what is refused."""

import html
import json
import logging
import pickle
import socket
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from kontrast.errors import InputError
from kontrast.nn.encoders import encoder, load_encoder, rebuild_lines, save_encoder
from kontrast.nn.open_clip import clip_tokenizer
from kontrast.nn.towers import load_towers, open_clip_towers, save_towers

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["A photo of a cat.", "Chest X-ray: 3 mm nodule, left lower lobe; no effusion. " * 9, "", "naïve &amp; 2nd ☃"]


def original(open_clip, name, file):
    """open_clip's own model with weights that are not those of its beginning, which it leaves in `file`."""
    torch.manual_seed(1)
    model = open_clip.create_model(name)
    model.visual.train()
    for _ in range(3):
        model.visual(torch.randn(8, 3, *np.broadcast_to(model.visual.image_size, 2)))  # for running statistics
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.logit_scale.fill_(3.3)
    if file.suffix == ".safetensors":
        save_file(model.state_dict(), file)
    else:  # a checkpoint of open_clip's training
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 0.1}}, file)
    return model.eval()


def pictures(size):
    return torch.randint(0, 256, (3, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@torch.no_grad()
def embedded(open_clip, model, name, images, texts):
    """What open_clip makes of images and texts by its own transformation and tokenizer."""
    transform = open_clip.image_transform(model.visual.image_size, is_train=False)
    shown = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    return (
        model.encode_image(shown, normalize=True),
        model.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True),
    )


def agree(open_clip, name, folder, file):
    """Towers of a file, and of the folder that they leave, embed as open_clip does; the image side stands first."""
    expected = embedded(open_clip, original(open_clip, name, file), name, pictures(_side(open_clip, name)), TEXTS)
    towers = open_clip_towers(name, weights=str(file)).eval()
    save_encoder(towers.encoder, folder)
    save_towers(towers, folder)
    file.unlink()
    for each in (towers, load_towers(folder)):
        assert float(each.temperature) == pytest.approx(np.exp(-3.3))
        with torch.no_grad():
            torch.testing.assert_close(each.encode_image(pictures(each.encoder.spec.size)), expected[0])
            torch.testing.assert_close(each.encode_text(TEXTS), expected[1])


def _side(open_clip, name):
    return open_clip.get_model_config(name)["vision_cfg"]["image_size"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet", "tiny-both-ways"])
def test_towers_embed_as_open_clip_does_with_weights_of_a_file_and_from_their_own_folder(
    open_clip, name, suffix, tmp_path
):
    agree(open_clip, name, tmp_path, tmp_path / f"weights{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-S-32-alt", "RN50"])
def test_models_as_they_are_published_embed_as_open_clip_does(open_clip, name, tmp_path):
    agree(open_clip, name, tmp_path, tmp_path / "weights.pt")


def test_embeddings_differ_from_image_to_image_and_from_text_to_text(open_clip):
    towers = open_clip_towers("tiny-vit").eval()
    for found in (towers.encode_image(pictures(32)), towers.encode_text(TEXTS)):
        assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_grey_images_are_seen_as_colour_images_of_three_equal_channels(open_clip, tmp_path):
    torch.manual_seed(0)
    grey = open_clip_towers("tiny-vit", channels=1).eval()
    torch.manual_seed(0)
    colour = open_clip_towers("tiny-vit", channels=3).eval()
    image = pictures(32)[:, :1]
    torch.testing.assert_close(grey.encode_image(image), colour.encode_image(image.expand(-1, 3, -1, -1)))
    save_encoder(grey.encoder, tmp_path)
    again = load_encoder(tmp_path)
    assert again.spec == grey.encoder.spec
    torch.testing.assert_close(again.eval()(image), grey.encoder(image))
    with pytest.raises(InputError, match="1 or 3 channels; these images have 2"):
        open_clip_towers("tiny-vit", channels=2)


def test_the_lines_beside_an_encoder_rebuild_it_with_open_clip_alone(open_clip, tmp_path, monkeypatch):
    built = open_clip_towers("tiny-vit", size=48).encoder.eval()
    save_encoder(built, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec("\n".join(rebuild_lines(built, "encoder.safetensors")), found)
    image = torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(found["net"]((image - built.mean) / built.std), built(image))


def test_the_image_tower_alone_is_an_encoder_of_fixed_size_for_any_method(open_clip):
    built = encoder("open_clip:tiny-vit", channels=1, size=32, mean=(0.3,), std=(0.2,))
    assert built(torch.rand(2, 1, 32, 32)).shape == (2, built.width) == (2, 24)
    assert built.has_fixed_size
    with pytest.raises(InputError, match="use clip with --towers open_clip:tiny-vit"):
        encoder("open_clip:tiny-vit", init="pretrained")
    with pytest.raises(InputError, match="told to timm; open_clip:tiny-vit takes none, so leave depth out"):
        encoder("open_clip:tiny-vit", size=32, options={"depth": 2})


def test_positions_are_interpolated_to_another_size_as_open_clip_does(open_clip, tmp_path):
    original(open_clip, "tiny-vit", tmp_path / "weights.pt")
    model = open_clip.create_model("tiny-vit", str(tmp_path / "weights.pt"), force_image_size=64).eval()
    expected, _ = embedded(open_clip, model, "tiny-vit", pictures(64), TEXTS)
    towers = open_clip_towers("tiny-vit", weights=str(tmp_path / "weights.pt"), size=64).eval()
    torch.testing.assert_close(towers.encode_image(pictures(64)), expected)
    for name, step in (("tiny-vit", 16), ("tiny-resnet", 32)):
        with pytest.raises(InputError, match=f"a multiple of {step} px; got 40, so use (32|64) px"):
            open_clip_towers(name, size=40)


def test_a_context_cuts_texts_before_their_end_and_has_room_for_one(open_clip):
    towers = open_clip_towers("tiny-vit", context=8).eval()
    tokens = towers.text.tokens(["one two three four five six seven eight", "one"])
    assert tokens.ids.shape == (2, 8)
    assert tokens.ids[0, -1] == 49407
    assert tokens.is_cut.tolist() == [True, False]
    assert towers.encode_text(["one"]).shape == (1, 24)
    with pytest.raises(InputError, match="got 2 tokens"):
        open_clip_towers("tiny-vit", context=2)


def test_a_shorter_context_leaves_what_the_weights_make_of_a_short_text_as_it_is(open_clip, tmp_path):
    original(open_clip, "tiny-vit", tmp_path / "weights.pt")
    found = []
    for context in (8, 77):
        towers = open_clip_towers("tiny-vit", weights=str(tmp_path / "weights.pt"), context=context).eval()
        save_encoder(towers.encoder, tmp_path)
        save_towers(towers, tmp_path)
        again = load_towers(tmp_path)
        assert again.text.tokens(TEXTS).length.max() == context
        found.append(again.encode_text(["a cat"]))
    torch.testing.assert_close(*found)


HARD = [
    "It's we'LL they'd I'M 'S 's' ''s", "1234 3.14 1,000 x2y3 ²³ ½ Ⅷ ①", "tabs\tand\nlines\r\n  and   more ",
    "&lt;b&gt; &amp;amp; &#233; &eacute;&nbsp;x", "naïve café Ångström İstanbul ΣΊΣΥΦΟΣ straße ﬁne",
    "👩‍⚕️🇩🇪 ☃ → ≤ ±", "MRI/CT:T2-weighted_(axial)...!!!", "\u200bzero\u00a0width\u3000space", "schÃ¶n", "x̂ é ñ",
    "word" * 60, "a b " * 60, "", " ", "日本語のテキスト", "мама мыла раму", "नमस्ते", "שלום",
    "左肺 opacity, 3 mm", "α\u0345β",
]  # fmt: skip


@pytest.fixture(scope="module")
def same_tokens(open_clip):
    """Whether texts become the same numbers here and there."""
    ours, theirs = clip_tokenizer(context=77), open_clip.SimpleTokenizer()

    def same_tokens(texts):
        found = ours(texts).ids
        return torch.equal(torch.nn.functional.pad(found, (0, 77 - found.shape[1])), theirs(texts))

    return same_tokens


def test_tokens_are_those_of_open_clip(same_tokens):
    assert same_tokens([*HARD, *map(html.escape, HARD), *map(str.upper, HARD)])


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(max_codepoint=0x2FF) | st.sampled_from(list("'&;,. \n’–0Aſ")), max_size=60))
def test_tokens_of_any_latin_text_are_those_of_open_clip(same_tokens, text):
    assert same_tokens([text])


def test_a_text_that_spells_a_mark_does_not_end_there(open_clip):
    tokens = clip_tokenizer(context=77)(["no <end_of_text> of <start_of_text>"])
    inside = tokens.ids[0, 1 : tokens.length[0] - 1]
    assert inside.max() < 49406
    assert 49407 in open_clip.SimpleTokenizer().encode("<end_of_text>")


def test_subwords_of_a_run_are_a_file_of_the_package_tokenizers(open_clip, tmp_path):
    save_towers(open_clip_towers("tiny-vit"), tmp_path)
    subwords = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert subwords.encode("a photo of a cat").ids == open_clip.SimpleTokenizer().encode("a photo of a cat")
    assert json.loads((tmp_path / "towers.json").read_text())["tokenizer"]["clean"] == "clip"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-16-SigLIP", "has hf_tokenizer_name, tokenizer_kwargs, init_logit_bias, so name another"),
        ("roberta-ViT-B-32", "has hf_model_name, hf_tokenizer_name, so"),
        ("coca_ViT-B-32", "has multimodal_cfg, so"),
        ("ViT-B32", "'ViT-B32' is none, near names: ViT-B-32"),
    ],
)
def test_models_that_read_texts_in_another_way_and_unknown_ones_are_refused(open_clip, name, said):
    with pytest.raises(InputError, match=said):
        open_clip_towers(name)


class Code:
    def __reduce__(self):
        return (print, ("this code has run",))


def test_weights_that_are_none_or_of_another_model_are_refused_and_code_in_them_does_not_run(
    open_clip, tmp_path, capsys
):
    original(open_clip, "tiny-resnet", tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:5000])
    torch.save({"visual.proj": torch.ones(2, 2)}, tmp_path / "part.bin")
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"state_dict": Code()}))
    torch.save(Code(), tmp_path / "code.pth")
    for name in ("other.safetensors", "damaged.safetensors", "part.bin", "code.pt", "code.pth"):
        with pytest.raises(InputError, match=r"could not build tiny-vit for 32 px .* a whole file of its weights"):
            open_clip_towers("tiny-vit", weights=str(tmp_path / name))
    assert "this code has run" not in capsys.readouterr().out


@pytest.mark.parametrize("weights", ["pretrained", "nowhere.pt", "laion"])
def test_weights_that_are_neither_a_file_nor_a_tag_are_refused_with_the_tags(open_clip, weights):
    with pytest.raises(InputError, match=f"one of its tags .*laion2b_s34b_b79k.*; {weights} is neither"):
        open_clip_towers("ViT-B-32", weights=weights)


def test_a_tag_whose_weights_were_trained_with_another_activation_is_refused(open_clip):
    with pytest.raises(InputError, match="openai and ViT-B-32 differ there, so use open_clip:ViT-B-32-quickgelu"):
        open_clip_towers("ViT-B-32", weights="openai")
    assert "openai" in open_clip.list_pretrained_tags_by_model("ViT-B-32-quickgelu")


def test_only_a_tag_asks_the_network(open_clip, monkeypatch):
    asked = []

    def connect(*what):
        asked.append(what)
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    open_clip_towers("tiny-vit")
    assert not asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or it would ask again for a minute
    with pytest.raises(InputError, match=r"with laion2b_s34b_b79k .* so give --init a whole file of its weights"):
        open_clip_towers("ViT-B-32", weights="laion2b_s34b_b79k")


@pytest.mark.slow
def test_images_are_normalised_as_the_tags_of_a_model_agree(open_clip):
    assert open_clip_towers("tiny-vit").encoder.spec.mean == open_clip.OPENAI_DATASET_MEAN
    built = open_clip_towers("MobileCLIP2-S0").encoder.spec
    assert (built.mean, built.std, built.size) == ((0.0,) * 3, (1.0,) * 3, 256)


def test_open_clip_neither_warns_nor_leaves_a_handler_on_the_root_logger(open_clip, monkeypatch, capfd):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_clip_towers("tiny-vit")
    assert root.handlers == root.filters == []
    assert capfd.readouterr() == ("", "")
