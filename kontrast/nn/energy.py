"""What an energy model leaves beside its encoder: the energy of an image, low where training images are common."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kontrast import losses
from kontrast.errors import InputError
from kontrast.files import whole_file
from kontrast.nn.heads import mlp
from kontrast.nn.norms import LEAK

FILE = "energy.safetensors"
"""Its name in the folder of a run."""


class Energy(nn.Module):
    """Minus `losses.marginal_score` of representations, against embeddings of training images that stay as they are.

    So the energy of an image does not depend on what other images are asked about.
    """

    temperature: Tensor
    key: Tensor

    def __init__(self, project: nn.Sequential, key: Tensor, temperature: float) -> None:
        """Take the head over, `key` `(m, d)`, and what divides squared distances."""
        super().__init__()
        self.project = project
        self.register_buffer("key", key)
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, representation: Tensor) -> Tensor:
        """Representations `(n, width)` to energies `(n,)`, float32."""
        return -losses.marginal_score(self.project(representation), self.key, temperature=self.temperature)


def energy_head(*widths: int) -> nn.Sequential:
    """The head of EBCLR, without norms: width of the representation, hidden, of the embedding."""
    return mlp(*widths, batch_norm=False, leak=LEAK)


def save_energy(energy: Energy, folder: Path) -> None:
    """Write `energy.safetensors`, whole or not at all."""
    with whole_file(folder / FILE) as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in energy.state_dict().items()}, partial)


def load_energy(run: Path) -> Energy:
    """The energy that a run left, in evaluation mode.

    Raises:
        InputError: It left none, or the file is damaged.
    """
    path = run / FILE
    if not path.is_file():
        raise InputError(f"an energy is what runs of ebclr leave in {FILE}; {run} has none, so name such a run")
    try:
        state = load_file(path)
        first, last = state["project.0.weight"], state["project.2.weight"]
        built = Energy(energy_head(first.shape[1], *last.T.shape), torch.empty_like(state["key"]), 1.0)
        built.load_state_dict(state, strict=True)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not the whole of what a run of ebclr leaves, so copy it again: {error}") from error
    return built.eval()
