import pytest
import torch

from kontrast.batch import Batch, as_float


def test_a_batch_moves_whole_and_integers_stay_integers():
    batch = Batch(
        image=torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8),
        label=torch.tensor([0, -1, 2]),
        text=("a", "b", "c"),
    )
    moved = batch.to("meta")
    assert (len(moved), moved.image.device.type, moved.label.device.type) == (3, "meta", "meta")
    assert (moved.image.dtype, moved.label.dtype, moved.index) == (torch.uint8, torch.int64, None)
    assert moved.text == ("a", "b", "c")


def test_a_batch_cannot_be_changed():
    batch = Batch(image=torch.zeros(1, 1, 2, 2))
    with pytest.raises(AttributeError):
        batch.label = torch.zeros(1)


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_become_their_share_of_the_largest_value(dtype, top):
    values = [0, 1, top // 3, top]
    found = as_float(torch.tensor(values, dtype=dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([v / top for v in values]), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_floats_keep_their_values_and_gain_bits_where_they_have_few(dtype, expected):
    found = as_float(torch.tensor([0.0, 0.25, 1.0], dtype=dtype))
    assert found.dtype == expected
    assert found.tolist() == [0.0, 0.25, 1.0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.bool])
def test_a_type_without_a_known_range_is_refused_by_name(dtype):
    with pytest.raises(TypeError, match=f"got {dtype}"):
        as_float(torch.zeros(2, dtype=dtype))
