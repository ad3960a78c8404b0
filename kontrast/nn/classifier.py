"""A trained classifier at rest: an encoder, a linear head, and what its numbers mean."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kontrast.errors import InputError
from kontrast.files import whole_file
from kontrast.nn.encoders import Encoder, load_encoder

WEIGHTS, DESCRIPTION = "classifier.safetensors", "classifier.json"


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """What the outputs of a classifier mean: the content of `classifier.json`."""

    classes: tuple[str, ...]
    """One for each output, in that order."""
    multilabel: bool = False
    """Whether an image may belong to several classes, so that each has a sigmoid of its own."""
    temperature: float = 1.0
    """Divides the logits."""
    calibration: str = ""
    """How the temperature came about, in a sentence."""


class Classifier(nn.Module):
    """From images to representations and calibrated probabilities."""

    def __init__(self, encoder: Encoder, head: nn.Linear, spec: ClassifierSpec) -> None:
        super().__init__()
        self.encoder, self.head, self.spec = encoder, head, spec

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(n, c, h, w)` to representations `(n, width)` and probabilities `(n, classes)`, both float32."""
        representation = self.encoder(image)
        logits = self.head(representation) / self.spec.temperature
        return representation, logits.sigmoid() if self.spec.multilabel else logits.softmax(dim=1)


def is_classifier(run: Path) -> bool:
    """Whether the folder holds a finished classifier."""
    return (run / DESCRIPTION).is_file() and (run / WEIGHTS).is_file()


def save_classifier(head: nn.Linear, spec: ClassifierSpec, folder: Path) -> None:
    """Write `classifier.safetensors` and then `classifier.json`, each atomically, beside the encoder in its folder."""
    with whole_file(folder / DESCRIPTION) as text, whole_file(folder / WEIGHTS) as partial:
        save_file({k: v.detach().contiguous().cpu() for k, v in head.state_dict().items()}, partial)
        text.write_text(json.dumps(asdict(spec), indent=2) + "\n", encoding="utf-8")


def load_classifier(run: Path) -> Classifier:
    """Load the classifier of a folder that `kontrast finetune classification` wrote, in evaluation mode.

    Raises:
        InputError: The folder is not one, or its files do not belong together.
    """
    if not is_classifier(run):
        raise InputError(
            f"a classifier is a folder with {DESCRIPTION} and {WEIGHTS}; {run} is none, so make one with "
            "kontrast finetune classification RUN --out FOLDER and give that folder"
        )
    spec, encoder = _read_spec(run / DESCRIPTION), load_encoder(run)
    head = nn.Linear(encoder.width, len(spec.classes))
    try:
        head.load_state_dict(load_file(run / WEIGHTS), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{run / WEIGHTS} does not hold the {len(spec.classes)} classes of its .json: {error}"
        ) from error
    return Classifier(encoder, head, spec).eval()


def _read_spec(file: Path) -> ClassifierSpec:
    try:
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        spec = ClassifierSpec(**{k: known[k] for k in ClassifierSpec.__dataclass_fields__})
        temperature, classes = float(spec.temperature), tuple(map(str, spec.classes))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} does not describe a classifier ({error!r}), so fine-tune again") from error
    if not 0 < temperature < math.inf:
        raise InputError(f"a temperature is above 0 and finite; {file} has {temperature}, so fine-tune again")
    return ClassifierSpec(
        classes=classes, multilabel=bool(spec.multilabel), temperature=temperature, calibration=str(spec.calibration)
    )
