"""A chain climbs within its bounds, and the buffer keeps exact books."""

import io

import pytest
import torch
from torch import nn

from kontrast import gradient
from kontrast.nn.sampling import OLD, ReplayBuffer, langevin

HERE = torch.device("cpu")


def chain(score, image, *, noise=0.0, steps=10, step_size=0.05, clamp=1.0):
    return langevin(score, image, torch.full((len(image),), noise), steps=steps, step_size=step_size, clamp=clamp)


def pulled(x):
    """A score whose gradient is 2 * (3 - x) in each element."""
    return -(x - 3).square().flatten(1).sum(1)


def images(n=4, seed=0):
    return torch.rand(n, 1, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_chain_is_clamped_ascent_with_noise_step_by_step():
    """Against a plain loop over elements, with the gradient by hand and the same draws."""
    x, sigma = images(2), [0.05, 0.01]
    torch.manual_seed(3)
    found = langevin(pulled, x, torch.tensor(sigma), steps=3, step_size=0.1, clamp=1.5)
    torch.manual_seed(3)
    draws = [torch.randn_like(x) for _ in range(3)]
    expected = x.clone()
    for i in range(2):
        for place in range(25):
            value = float(x[i].flatten()[place])
            for draw in draws:
                slope = max(-1.5, min(1.5, 2 * (3 - value)))
                value += 0.1 * slope + sigma[i] * float(draw[i].flatten()[place])
            expected[i, 0, place // 5, place % 5] = value
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clamp", [0.5, 1.0])
def test_without_noise_the_score_rises_and_no_element_moves_further_than_its_steps(clamp):
    x = images()
    found = chain(pulled, x, clamp=clamp)
    assert (pulled(found) > pulled(x)).all()
    moved = (found - x).abs()
    assert moved.max() <= 10 * 0.05 * clamp + 1e-6
    assert moved.max() == pytest.approx(10 * 0.05 * clamp), "the gradient is far above the clamp here"


def test_no_parameter_gets_a_gradient_and_the_end_is_detached_also_under_no_grad():
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    x = images()
    kept = x.clone()
    found = chain(lambda image: net(image)[:, 0], x, noise=0.01)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(x, kept)
    assert not x.requires_grad
    with torch.no_grad():
        assert not torch.equal(chain(lambda image: net(image)[:, 0], x), x)


def test_a_chain_keeps_the_precision_of_autocast_but_for_float16():
    seen = []
    layer = nn.Linear(25, 3)

    def score(x):
        seen.append(layer(x.flatten(1)).dtype)
        return layer(x.flatten(1)).float().sum(1)

    for dtype, wanted in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        seen.clear()
        with torch.autocast("cpu", dtype=dtype):
            assert chain(score, images(), steps=2).isfinite().all()
        assert seen == [wanted] * 2
    seen.clear()
    chain(score, images(), steps=1)
    assert seen == [torch.float32]


def test_frozen_parameters_pass_gradients_on_and_learn_again_afterwards():
    net, fixed = nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False)
    x = torch.randn(4, 3, requires_grad=True)
    with gradient.frozen(net, fixed):
        net(x).sum().backward()
        assert not any(p.requires_grad for p in net.parameters())
    assert x.grad is not None
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(p.requires_grad for p in fixed.parameters())
    with pytest.raises(KeyError), gradient.frozen(net):
        raise KeyError
    assert all(p.requires_grad for p in net.parameters())


def filled(n=20, dtype=torch.float32):
    buffer = ReplayBuffer(dtype)
    buffer.fill([images(n)], n)
    return buffer


def nothing_new(_):
    raise AssertionError("no chain begins anew")


def test_a_buffer_is_filled_with_as_many_images_as_it_holds_all_of_them_old():
    buffer = ReplayBuffer()
    asked = []

    def batches():
        for seed in range(9):
            asked.append(seed)
            yield images(4, seed)

    buffer.fill(batches(), 10)
    assert asked == [0, 1, 2]
    assert torch.equal(buffer.images, torch.cat([images(4, seed) for seed in range(3)])[:10])
    assert buffer.ages.tolist() == [OLD] * 10
    buffer.fill([images(3)], 10)
    assert len(buffer) == 3


def test_only_drawn_chains_change_renewed_ones_are_one_visit_old_and_the_others_one_older():
    buffer = filled()
    buffer.ages = torch.arange(20)
    before, ages = buffer.images.clone(), buffer.ages.clone()
    torch.manual_seed(0)
    drawn = buffer.draw(8, 0.5, lambda num: torch.full((num, 1, 5, 5), 7.0), HERE)
    slots = drawn.slot.tolist()
    assert len(set(slots)) == 8
    is_new = [bool((image == 7).all()) for image in drawn.image]
    assert 0 < sum(is_new) < 8
    assert torch.equal(buffer.images, before), "nothing is written by drawing"
    assert torch.equal(buffer.ages, ages)
    buffer.write(drawn, drawn.image + 1)
    for slot in range(20):
        if slot not in slots:
            assert torch.equal(buffer.images[slot], before[slot])
            assert buffer.ages[slot] == slot
            continue
        row = slots.index(slot)
        assert drawn.age[row] == (0 if is_new[row] else slot)
        assert buffer.ages[slot] == (1 if is_new[row] else slot + 1)
        assert torch.equal(buffer.images[slot], (torch.full_like(before[slot], 7) if is_new[row] else before[slot]) + 1)


@pytest.mark.parametrize("renewal", [0.2, 0.4, 0.6])
def test_the_share_that_begins_anew_is_the_probability_asked_for(renewal):
    """Within four standard deviations of the binomial; drawn with replacement 0.2 of 128 would be 0.18."""
    buffer = filled(128)
    torch.manual_seed(1)
    new = sum(int((buffer.draw(128, renewal, lambda num: images(num), HERE).age == 0).sum()) for _ in range(40))
    bound = 4 * (40 * 128 * renewal * (1 - renewal)) ** 0.5
    assert abs(new - 40 * 128 * renewal) < bound


def test_every_chain_is_drawn_at_most_once_and_no_more_than_there_are():
    buffer = filled(20)
    drawn = buffer.draw(50, 0.0, nothing_new, HERE)
    assert sorted(drawn.slot.tolist()) == list(range(20))
    assert buffer.draw(3, 0.0, nothing_new, HERE).image.shape == (3, 1, 5, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_buffer_goes_through_a_file_and_on_as_it_was_without_sharing_memory(dtype):
    buffer, file = filled(dtype=dtype), io.BytesIO()
    buffer.ages = torch.arange(20)
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    first, second = ReplayBuffer(dtype), ReplayBuffer(dtype)
    first.load_state_dict(state, strict=True)
    second.load_state_dict(state, strict=True)
    assert torch.equal(first.images, buffer.images)
    assert first.images.dtype == dtype
    assert torch.equal(first.ages, buffer.ages)
    drawn = first.draw(20, 0.0, nothing_new, HERE)
    assert drawn.image.dtype == torch.float32
    first.write(drawn, drawn.image * 0)
    assert torch.equal(second.images, buffer.images)
    assert torch.equal(second.ages, buffer.ages)


def test_the_oldest_are_those_of_most_visits():
    buffer = filled(6)
    buffer.ages = torch.tensor([3, 9, 1, 9, 5, 0])
    assert torch.equal(buffer.oldest(3), buffer.images[[1, 3, 4]])
    assert len(buffer.oldest(99)) == 6
