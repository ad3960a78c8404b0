"""Losses of images and texts where texts of a batch are equal: definitions in plain loops, value and gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from kontrast import losses

TEXT_ID = torch.tensor([7, -3, 7, 5, -3, 7, 9, 11])
"""One text three times, one twice, three once."""


def pairs(n=8, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


def clip_by_definition(image, text, text_id, duplicates, temperature):
    """Every query, every key, one at a time."""
    image, text, total = F.normalize(image, dim=1), F.normalize(text, dim=1), 0
    for query, key in ((image, text), (text, image)):
        for j in range(len(query)):
            exps = [(query[j] @ key[k] / temperature).exp() for k in range(len(key))]
            equal = [k for k in range(len(key)) if text_id[k] == text_id[j]]
            positives = equal if duplicates == "multi_positive" else [j]
            among = [exps[k] for k in range(len(key)) if duplicates != "mask" or k == j or k not in equal]
            total += sum(-(exps[k] / sum(among)).log() for k in positives) / len(positives)
    return total / (2 * len(image))


def in_modal_by_definition(image, text, text_id, normalization):
    image, text, total, kept = F.normalize(image, dim=1), F.normalize(text, dim=1), 0, 0
    for j in range(len(image)):
        for k in range(len(image)):
            if j != k and text_id[j] != text_id[k]:
                total, kept = total + (image[j] @ image[k] - text[j] @ text[k]) ** 2, kept + 1
    return total / (kept if normalization == "pairs" else len(image))


def same_gradients(found, expected, leaves):
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, leaves, retain_graph=True) for value in (found, expected)))


@pytest.fixture(params=[2**22, 5], ids=["whole", "in blocks"])
def block(request, monkeypatch):
    monkeypatch.setattr(losses, "SIMILARITIES", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("duplicates", ["ignore", "mask", "multi_positive"])
@pytest.mark.parametrize("num_blocks", [1, 2, 4])
def test_clip_equals_its_definition_whatever_equal_texts_are_to_each_other(duplicates, num_blocks):
    image, text = pairs()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    blocks = zip(image.chunk(num_blocks), text.chunk(num_blocks), strict=True)
    found = sum(
        losses.clip(
            i, t, temperature=temperature, columns=(image, text), offset=8 // num_blocks * number,
            duplicates=duplicates, text_id=TEXT_ID,
        )
        for number, (i, t) in enumerate(blocks)
    ) / num_blocks  # fmt: skip
    expected = clip_by_definition(image, text, TEXT_ID, duplicates, temperature)
    same_gradients(found, expected, (image, text, temperature))


@pytest.mark.parametrize("width", [3, 20], ids=["more pairs than numbers", "fewer pairs than numbers"])
@pytest.mark.parametrize("normalization", ["pairs", "rows"])
@pytest.mark.parametrize("num_blocks", [1, 2, 4])
def test_the_in_modal_term_without_equal_texts_equals_its_definition(width, normalization, num_blocks):
    image, text = pairs(d=width)
    blocks = zip(image.chunk(num_blocks), text.chunk(num_blocks), strict=True)
    found = sum(
        losses.cyclic_in_modal(
            i, t, columns=(image, text), offset=8 // num_blocks * number, normalization=normalization, text_id=TEXT_ID
        )
        for number, (i, t) in enumerate(blocks)
    ) / num_blocks  # fmt: skip
    same_gradients(found, in_modal_by_definition(image, text, TEXT_ID, normalization), (image, text))


def test_a_block_without_equal_texts_pays_nothing_for_those_of_another():
    """Rows 4 to 7 share a text; the first block's sum is over all its pairs, by plain loops, and stays above 0."""
    image, text = pairs()
    image = torch.cat([text[:4] + 0.001 * image[:4], image[4:]]).detach()
    found = losses.cyclic_in_modal(
        image[:4], text[:4], columns=(image, text), normalization="rows", text_id=torch.tensor([0, 1, 2, 3, 4, 4, 4, 4])
    )
    i, t = (torch.nn.functional.normalize(side, dim=1) for side in (image, text))
    expected = sum((i[j] @ i[k] - t[j] @ t[k]) ** 2 for j in range(4) for k in range(8)) / 4
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_two_of_three_pairs_with_one_text_are_as_by_hand():
    """Cosines of images and texts: 1 on the diagonal, 0 beside it. At temperature 1, negatives give 1, positives e."""
    unit, text_id = torch.eye(3), torch.tensor([4, 4, 0])
    masked = losses.clip(unit, unit, temperature=1, duplicates="mask", text_id=text_id)
    first, last = math.log((math.e + 1) / math.e), math.log((math.e + 2) / math.e)
    assert float(masked) == pytest.approx((2 * first + last) / 3, abs=1e-6)
    several = losses.clip(unit, unit, temperature=1, duplicates="multi_positive", text_id=text_id)
    assert float(several) == pytest.approx((2 * (math.log(math.e + 2) - 0.5) + last) / 3, abs=1e-6)
    images, texts = torch.eye(3), torch.tensor([[1.0, 0, 0], [1, 0, 0], [0.6, 0.8, 0]])
    # Ordered pairs whose texts differ: (0, 2) and (1, 2), both ways; images 0 apart, texts 0.6.
    found = losses.cyclic_in_modal(images, texts, text_id=text_id)
    assert float(found) == pytest.approx(0.36, abs=1e-6)


@pytest.mark.parametrize("duplicates", ["mask", "multi_positive"])
def test_where_no_text_occurs_twice_nothing_changes(duplicates):
    image, text = (each.detach().float() for each in pairs())
    plain = losses.clip(image, text, temperature=0.1)
    found = losses.clip(image, text, temperature=0.1, duplicates=duplicates, text_id=torch.arange(8))
    assert torch.equal(found, plain) if duplicates == "mask" else torch.allclose(found, plain, rtol=1e-5)
    torch.testing.assert_close(
        losses.cyclic_in_modal(image, text, text_id=torch.arange(8)), losses.cyclic_in_modal(image, text)
    )


@pytest.mark.parametrize("duplicates", ["mask", "multi_positive"])
def test_where_all_texts_are_one_the_losses_are_finite_and_mask_has_nothing_to_learn_from(duplicates):
    image, text = pairs()
    same = torch.zeros(8, dtype=torch.int64)
    loss = losses.clip(image, text, temperature=0.1, duplicates=duplicates, text_id=same)
    loss = loss + losses.cyclic_in_modal(image, text, text_id=same)
    loss.backward()
    assert loss.isfinite()
    assert image.grad.isfinite().all()
    if duplicates == "mask":
        assert loss.item() == pytest.approx(0, abs=1e-9)
        assert float(image.grad.abs().max()) < 1e-9


@pytest.mark.parametrize("text_id", [None, torch.zeros(3, dtype=torch.int64)])
def test_equal_texts_must_be_known_for_each_pair(text_id):
    image, text = pairs()
    with pytest.raises(ValueError, match=r"one text_id for each of the 8 columns; got (none|shape \(3,\))"):
        losses.clip(image, text, temperature=0.1, duplicates="mask", text_id=text_id)
    if text_id is not None:
        with pytest.raises(ValueError, match=r"got shape \(3,\)"):
            losses.cyclic_in_modal(image, text, text_id=text_id)
