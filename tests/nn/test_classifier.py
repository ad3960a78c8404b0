"""A classifier comes back from its folder as it was."""

import json

import pytest
import torch
from torch import nn

from kontrast.errors import InputError
from kontrast.nn.classifier import Classifier, ClassifierSpec, is_classifier, load_classifier, save_classifier
from kontrast.nn.encoders import encoder, save_encoder


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    built = encoder("test_resnet", channels=1, size=16, stem="standard")
    spec = ClassifierSpec(classes=("b", "a\n<i>", "\udcff"), temperature=0.7, calibration="By hand.")
    model = Classifier(built, nn.Linear(built.width, 3), spec).eval()
    save_encoder(built, tmp_path)
    save_classifier(model.head, spec, tmp_path)
    return model, tmp_path


def test_a_loaded_classifier_answers_as_the_saved_one_and_knows_its_classes(saved):
    model, folder = saved
    image, found = torch.rand(2, 1, 16, 16), load_classifier(folder)
    assert found.spec == model.spec
    assert not found.training
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(found(image), model(image), strict=True))
    assert not [path for path in folder.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("multilabel", [False, True])
def test_probabilities_are_those_of_logits_over_the_temperature(saved, multilabel):
    model, _ = saved
    model.spec = ClassifierSpec(classes=("a", "b", "c"), multilabel=multilabel, temperature=2.5)
    with torch.no_grad():
        representation, found = model(torch.rand(4, 1, 16, 16))
        powers = ((representation @ model.head.weight.T + model.head.bias) / 2.5).exp()
    expected = powers / (1 + powers) if multilabel else powers / powers.sum(1, keepdim=True)
    assert torch.allclose(found, expected, atol=1e-6)


def test_an_encoder_alone_is_no_classifier(tmp_path):
    save_encoder(encoder("test_resnet", channels=1, size=16, stem="standard"), tmp_path)
    assert not is_classifier(tmp_path)
    with pytest.raises(InputError, match="kontrast finetune classification"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 0}, "above 0 and finite"),
        ({"temperature": float("nan")}, "above 0 and finite"),
        ({"temperature": "hot"}, "does not describe a classifier"),
        ({"classes": ["only"]}, "does not hold the 1 classes"),
        ({"classes": None}, "does not describe a classifier"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change, said, saved):
    _, folder = saved
    file = folder / "classifier.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("classifier.json", b"{", "does not describe"),
        ("classifier.json", b"[]", "does not describe"),
        ("classifier.json", b"{}", "does not describe"),
        ("classifier.safetensors", b"damaged", "does not hold"),
    ],
)
def test_a_damaged_file_is_refused(name, content, said, saved):
    _, folder = saved
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_classifier(folder)
