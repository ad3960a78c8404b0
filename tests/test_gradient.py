import pytest
import torch
from torch import nn

from kontrast.gradient import detached_call, move_average, scale_gradient


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


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 2)).double()


def test_a_detached_module_learns_nothing_yet_passes_its_gradient_to_what_it_is_given():
    module, x = network(nn.Tanh()), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    found = detached_call(module, x)
    assert torch.equal(found, module(x))
    found.square().sum().backward()
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    first, last = module[0].weight.detach(), module[2].weight.detach()
    hidden = (x.detach() @ first.T + module[0].bias.detach()).tanh()
    answer = hidden @ last.T + module[2].bias.detach()
    expected = (2 * answer @ last * (1 - hidden**2)) @ first
    torch.testing.assert_close(x.grad, expected)


def test_beside_a_detached_call_the_module_learns_from_its_own_call_alone():
    module, x, other = network(nn.Tanh()), torch.randn(5, 3).double(), torch.randn(7, 3).double()
    wanted = torch.autograd.grad(module(x).exp().sum(), list(module.parameters()))
    given = other.clone().requires_grad_()
    (module(x).exp().sum() + detached_call(module, given).square().sum()).backward()
    assert given.grad.abs().min() > 0
    for parameter, expected in zip(module.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-12, atol=0)


def test_a_detached_call_normalises_by_its_own_values_and_moves_no_statistic():
    module, x = network(nn.BatchNorm1d(4)), torch.randn(6, 3).double() * 3 + 2
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    found = detached_call(module, x)
    assert all(torch.equal(buffer, kept[name]) for name, buffer in module.named_buffers())
    hidden = module[0](x)
    expected = module[2]((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, module(x))
    assert int(module[1].num_batches_tracked) == 1
    assert not torch.equal(module[1].running_mean, kept["1.running_mean"])


def test_in_evaluation_a_detached_call_normalises_by_the_running_statistics():
    module, x = network(nn.BatchNorm1d(4)), torch.randn(6, 3).double()
    module(x * 5 + 1)
    module.eval()
    assert torch.equal(detached_call(module, x), module(x))
    assert not torch.allclose(detached_call(module, x), detached_call(module.train(), x))


def test_hooks_hear_of_a_detached_call_and_the_module_is_its_own_again_afterwards():
    module, heard = network(nn.BatchNorm1d(4)), []
    module.register_forward_pre_hook(lambda _, arguments: heard.append(len(arguments[0])))
    before = [*module.parameters(), *module.buffers()]
    detached_call(module, torch.randn(6, 3).double())
    with pytest.raises(RuntimeError, match="shapes"):
        detached_call(module, torch.randn(6, 9).double())
    assert heard == [6, 6]
    after = [*module.parameters(), *module.buffers()]
    assert all(one is other for one, other in zip(before, after, strict=True))


def test_two_layers_of_one_weight_are_both_detached():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    module, x = nn.Sequential(first, second), torch.randn(4, 3, requires_grad=True)
    detached_call(module, x).sum().backward()
    assert first.weight.grad is None
    expected = (first.weight @ first.weight).detach().sum(0).expand(4, 3)
    torch.testing.assert_close(x.grad, expected)


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
