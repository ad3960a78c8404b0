"""What only a GPU can show; skipped where there is none."""

import numpy as np
import pytest
import torch

from kontrast import Fit, Loader, SimCLR, encoder, features, fit, losses
from kontrast.augment.policies import POLICIES
from kontrast.data import loader as loading
from kontrast.evaluate.knn import knn_predict

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def on_gpu(seed=0):
    return torch.Generator("cuda").manual_seed(seed)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_a_seed_fixes_the_views_on_the_gpu_whatever_the_type_of_the_image(name, dtype, top):
    stored = torch.randint(0, top + 1, (8, 3, 72, 72)).to(dtype).cuda()
    policy = POLICIES[name](64)
    view = policy(stored, on_gpu(1))
    assert torch.equal(view, policy(stored, on_gpu(1)))
    assert not torch.equal(view, policy(stored, on_gpu(2)))
    floats = (stored.cpu().double() / top).float().cuda()
    torch.testing.assert_close(view, policy(floats, on_gpu(1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["natural", "xray"])
def test_a_warp_and_a_tone_do_the_same_on_both_devices(name):
    image, policy = torch.rand(8, 3, 72, 72), POLICIES[name](64)
    warp, tone = policy.draw(image, torch.Generator().manual_seed(0))
    tone = type(tone)(**{**vars(tone), "noise": None})
    there = [type(p)(**{k: v.cuda() if torch.is_tensor(v) else v for k, v in vars(p).items()}) for p in (warp, tone)]
    found = policy.render(image.cuda(), *there).cpu()
    torch.testing.assert_close(found, policy.render(image, warp, tone), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["natural", "xray"])
def test_a_compiled_policy_gives_the_same_views(name):
    image, policy = torch.rand(8, 3, 72, 72).cuda(), POLICIES[name](64)
    compiled = torch.compile(policy)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = policy(image)
        torch.manual_seed(seed)
        torch.testing.assert_close(compiled(image), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("share", [0.25, 0.0], ids=["resident", "streamed"])
def test_batches_on_the_gpu_are_those_of_the_processor(digits, share, monkeypatch):
    monkeypatch.setattr(loading, "RESIDENT_SHARE", share)
    some = digits.take(np.arange(500))
    pairs = zip(Loader(some, 64).epoch(3, "cuda"), Loader(some, 64).epoch(3), strict=True)
    for there, here in pairs:
        assert there.image.is_cuda
        assert torch.equal(there.image.cpu(), here.image)
        assert torch.equal(there.label.cpu(), here.label)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_simclr_learns_on_the_gpu_and_goes_on_from_its_checkpoint(digits, precision, tmp_path):
    def train(epochs, *, resume=False):
        torch.manual_seed(0)
        method = SimCLR(encoder("resnet10t", channels=1, size=28, stem="standard"), POLICIES["digits"](28))
        config = Fit(epochs=epochs, precision=precision, device="cuda")
        return fit(method, Loader(some, 128), config, out=tmp_path, resume=resume, show=False)

    some = digits.take(np.arange(1024))
    rows = train(4)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert len(train(4, resume=True)) == 4


def test_features_and_neighbours_are_those_of_the_processor(digits):
    built, some = encoder("resnet10t", channels=1, size=28, stem="standard"), digits.take(np.arange(300))
    here = features(built, some)
    there = features(built.cuda(), some)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-2 * np.abs(here).max())
    votes = [
        knn_predict(torch.from_numpy(here[:200]).to(device), some.labels[:200], here[200:], num_classes=10)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*votes, atol=1e-4)


def test_a_large_contrast_has_the_value_and_gradient_of_the_processor():
    a, b = (torch.randn(3000, 64, requires_grad=True) for _ in range(2))
    x, y = (t.detach().cuda().requires_grad_() for t in (a, b))
    here, there = losses.nt_xent(a, b, temperature=0.2), losses.nt_xent(x, y, temperature=0.2)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=0)
    here.backward()
    there.backward()
    torch.testing.assert_close(x.grad.cpu(), a.grad, rtol=1e-3, atol=1e-7)
