"""Lines of Python that load what was written, for the model card; they are run by the tests."""

from __future__ import annotations

from collections.abc import Sequence

from kontrast.nn.classifier import WEIGHTS, Classifier
from kontrast.nn.encoders import Encoder, EncoderSpec, rebuild_lines


def classifier_lines(found: Classifier) -> list[str]:
    """Lines that load a classifier in its own folder, with timm alone."""
    outcome = "sigmoid()" if found.spec.multilabel else "softmax(dim=1)"
    return [
        "# In one go, from the command line: kontrast predict THIS_FOLDER images/ --out predictions.csv",
        *rebuild_lines(found.encoder, "encoder.safetensors"),
        *_normalisation_lines(found.encoder.spec),
        f"head = load_file({WEIGHTS!r})",
        "logits = lambda image: net((image - mean) / std) @ head['weight'].T + head['bias']  # images in 0..1",
        f"probabilities = lambda image: (logits(image) / {found.spec.temperature!r}).{outcome}",
    ]


def encoder_lines(found: Encoder, file: str) -> list[str]:
    """Lines that load an encoder from a file with timm alone, and say what to feed it."""
    return [
        *rebuild_lines(found, file),
        *_normalisation_lines(found.spec),
        "representation = lambda image: net((image - mean) / std)  # images in 0..1",
    ]


def _normalisation_lines(spec: EncoderSpec) -> list[str]:
    values = (("mean", spec.mean), ("std", spec.std))
    return [f"{name} = torch.tensor({list(value)}).view(1, -1, 1, 1)" for name, value in values]


def onnx_lines(spec: EncoderSpec, file: str, outputs: Sequence[str]) -> list[str]:
    """Lines that run an ONNX file of these outputs."""
    return [
        "import numpy, onnxruntime",
        f"session = onnxruntime.InferenceSession({file!r}, providers=['CPUExecutionProvider'])",
        f"image = numpy.zeros((1, {spec.channels}, {spec.size}, {spec.size}), numpy.float32)  # yours, in 0..1",
        f"{', '.join(outputs)}{',' * (len(outputs) == 1)} = session.run(None, {{'image': image}})",
        "about = session.get_modelmeta().custom_metadata_map  # classes, normalisation, version",
    ]
