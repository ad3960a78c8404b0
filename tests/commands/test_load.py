"""Loading an encoder."""

import pytest
import torch

import kontrast as package
from kontrast.errors import InputError


def test_an_encoder_is_loaded_in_evaluation_mode_by_path_or_text(run):
    image = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    one, other = package.load(run=run), package.load(run=str(run))
    assert not one.training
    with torch.no_grad():
        assert torch.equal(one(image), other(image))
        assert torch.allclose(one(image), one(image.float() / 255), atol=1e-6)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="give a finished run"):
        package.load(run=tmp_path)
