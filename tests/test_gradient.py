import pytest
import torch
from torch import nn

from kontrast.gradient import frozen, move_average, scale_gradient


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.0, 2.5])
def test_the_value_stays_and_its_gradient_is_multiplied(factor):
    x = torch.randn(5, requires_grad=True)
    scaled = scale_gradient(x, factor)
    assert torch.equal(scaled, x)
    scaled.square().sum().backward()
    torch.testing.assert_close(x.grad, factor * 2 * x.detach())


def test_at_factor_1_numerical_and_analytical_gradients_agree_to_second_order():
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scale_gradient(x, 1.0).sin(), x)
    assert torch.autograd.gradgradcheck(lambda x: scale_gradient(x, 1.0).sin(), x)


def test_a_reversed_gradient_leaves_the_other_path_of_a_sum_alone():
    x = torch.tensor(3.0, requires_grad=True)
    (x**2 + scale_gradient(x, -1) ** 2).backward()
    assert x.grad == 0


def test_a_frozen_module_learns_nothing_yet_passes_gradients_to_its_input():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    with frozen(layer):
        layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0).expand(4, 3))
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_what_was_frozen_before_stays_so_also_after_an_exception():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(layer):
        _ = 1 / 0
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_teacher_moves_by_the_formula_and_copies_running_statistics(momentum):
    student = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    teacher = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    student(torch.randn(16, 4) + 5)
    old = [p.detach().double() for p in teacher.parameters()]
    move_average(teacher, student, momentum)
    for before, after, learnt in zip(old, teacher.parameters(), student.parameters(), strict=True):
        expected = momentum * before + (1 - momentum) * learnt.detach().double()
        torch.testing.assert_close(after.detach().double(), expected, rtol=1e-6, atol=1e-7)
        assert after is not learnt
    for name, buffer in teacher.named_buffers():
        assert torch.equal(buffer, student.get_buffer(name)), name
    assert int(teacher[1].num_batches_tracked) == 1


def test_moving_the_average_leaves_the_student_and_the_graph_alone():
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    before = student.weight.detach().clone()
    move_average(teacher, student, 0.5)
    assert torch.equal(student.weight, before)
    assert teacher.weight.is_leaf
