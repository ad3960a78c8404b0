import pytest
import torch
from torch import nn

from kontrast.nn.heads import mlp


def kinds(head):
    return [type(layer) for layer in head]


def test_hidden_layers_are_normalised_and_rectified_and_the_last_is_bare():
    assert kinds(mlp(4, 8, 6, 2)) == [
        nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear,
    ]  # fmt: skip
    assert kinds(mlp(4, 2)) == [nn.Linear]


def test_without_batch_norm_every_layer_has_a_bias():
    head = mlp(4, 8, 2, batch_norm=False)
    assert kinds(head) == [nn.Linear, nn.ReLU, nn.Linear]
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


def test_a_linear_layer_has_a_bias_exactly_where_no_norm_follows():
    head = mlp(4, 8, 6, 2)
    assert [layer.bias is not None for layer in head if isinstance(layer, nn.Linear)] == [False, False, True]


def test_a_normalised_output_has_mean_0_and_deviation_1_and_nothing_to_learn():
    head = mlp(4, 8, 3, last_norm=True)
    out = head(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) + 3)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(3), rtol=0, atol=1e-2)
    assert list(head[-1].parameters()) == []
    assert head[-2].bias is None


def test_an_mlp_equals_its_layers_written_out():
    head, x = mlp(5, 7, 3).eval(), torch.randn(6, 5)
    first, norm, _, last = head
    norm.running_mean.normal_()
    hidden = (x @ first.weight.T - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    expected = (hidden * norm.weight + norm.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(head(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("widths", [(4, 2), (4, 8, 2), (4, 8, 8, 5)])
def test_an_mlp_maps_the_first_width_to_the_last(widths):
    assert mlp(*widths)(torch.randn(3, 4)).shape == (3, widths[-1])


def test_a_normalised_output_may_learn_a_scale_and_a_shift():
    head = mlp(4, 8, 3, last_norm=True, last_affine=True)
    assert [tuple(p.shape) for p in head[-1].parameters()] == [(3,), (3,)]


def test_a_leak_is_the_slope_of_every_rectifier_below_0():
    head = mlp(4, 8, 8, 2, batch_norm=False, leak=0.2)
    assert kinds(head) == [nn.Linear, nn.LeakyReLU, nn.Linear, nn.LeakyReLU, nn.Linear]
    assert all(layer.negative_slope == 0.2 for layer in head if isinstance(layer, nn.LeakyReLU))
