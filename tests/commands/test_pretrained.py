"""Where pre-trained weights come from: a hub that answers on this machine, its client's cache, or a sample."""

import hashlib
import logging
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kontrast.commands import pretrained
from kontrast.commands.assemble import DataOptions, EncoderOptions, build_encoder, open_data
from kontrast.commands.pretrained import called, weights_of
from kontrast.data.samples import SAMPLES
from kontrast.errors import InputError
from kontrast.nn.import_timm import import_timm

import_timm()
from huggingface_hub import constants

LITE0 = "tf_efficientnet_lite0"
FILE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch, tmp_path):
    """The hub is out of reach, its cache empty, and nothing is remembered."""
    pretrained._pretrained.cache_clear()
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9" + FILE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield
    pretrained._pretrained.cache_clear()


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that has every file, as far as the question goes; and what it was asked."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{server.server_port}{FILE}")
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def sample(cache, monkeypatch):
    """A sample of random weights under the file's own names, pinned and in the cache."""
    net = import_timm().create_model(LITE0)
    layers = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    state = {}
    for name, value in net.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        if layer in layers:
            state[f"{layers[layer]}.{leaf}"] = value
    (pack,) = SAMPLES["efficientnet-lite0"].packs
    folder = cache / "samples" / "efficientnet-lite0"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / pack.files[0].member
    torch.save(state, path)
    file = replace(pack.files[0], digest=hashlib.sha256(path.read_bytes()).hexdigest())
    known = replace(SAMPLES["efficientnet-lite0"], packs=(replace(pack, files=(file,)),))
    monkeypatch.setitem(SAMPLES, "efficientnet-lite0", known)
    yield path, state
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


def test_timms_own_weights_are_used_where_its_hub_answers_and_it_is_asked_once(hub, caplog):
    with caplog.at_level(logging.INFO, "kontrast"):
        assert weights_of(LITE0, "pretrained") == weights_of(f"{LITE0}.in1k", "pretrained") == "pretrained"
    assert hub == ["/timm/tf_efficientnet_lite0.in1k/resolve/main/model.safetensors"]
    assert [r.getMessage() for r in caplog.records] == [
        "pre-trained weights of tf_efficientnet_lite0: timm's own, of its hub"
    ]


def test_weights_in_the_cache_of_the_hub_are_timms_own_without_a_network(tmp_path):
    folder = tmp_path / "hub" / "models--timm--tf_efficientnet_lite0.in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    save_file({"a": torch.ones(1)}, folder / "snapshots" / "abc" / "model.safetensors")
    assert weights_of(LITE0, "pretrained") == "pretrained"


def test_without_a_hub_the_sample_is_used_and_an_encoder_begins_with_it(sample, caplog, draw_folder, tmp_path):
    path, state = sample
    train = open_data(DataOptions(data=str(draw_folder(tmp_path / "images"))))
    with caplog.at_level(logging.INFO, "kontrast"):
        built = build_encoder(EncoderOptions(encoder=LITE0, init="pretrained"), train, 64, seed=0)
    said = next(r.getMessage() for r in caplog.records if "pre-trained weights" in r.getMessage())
    assert said == (
        f"pre-trained weights of {LITE0}: {path} of sample efficientnet-lite0, since timm's hub is out of reach"
    )
    assert torch.equal(built.net.conv_head.weight, state["_conv_head.weight"])
    assert np.allclose((built.spec.mean, built.spec.std), [[127 / 255], [128 / 255]])


def test_a_client_that_is_told_to_stay_off_the_network_does_not_ask(hub, sample, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_of(LITE0, "pretrained") == str(sample[0])
    assert not hub


def test_a_sample_that_is_not_the_one_pinned_is_refused(sample):
    path, _ = sample
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="must have SHA-256"):
        weights_of(LITE0, "pretrained")


@pytest.mark.parametrize(
    ("architecture", "init"), [("resnet18", "pretrained"), (LITE0, "none"), (LITE0, "runs/a"), (LITE0, "x.npz")]
)
def test_all_else_stays_what_it_is(architecture, init):
    assert weights_of(architecture, init) == init


@pytest.mark.parametrize(
    ("architecture", "init", "title"),
    [
        (LITE0, "pretrained", "ImageNet weights"),
        ("resnetv2_50x1_bit.goog_in21k", "pretrained", "ImageNet weights"),
        ("vit_base_patch16_clip_224.openai", "pretrained", "Given weights"),
        (LITE0, "weights.npz", "Given weights"),
    ],
)
def test_weights_are_called_imagenets_where_timm_says_that_they_are(architecture, init, title):
    assert called(architecture, init) == title
