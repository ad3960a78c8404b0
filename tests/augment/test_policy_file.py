"""A policy as a file gives the same views again, and what is none is refused in one sentence that names it."""

import errno
import os
import re

import pytest
import torch
import yaml

from kontrast import files
from kontrast.augment import policy_file
from kontrast.augment.geometry import Geometry
from kontrast.augment.intensity import Intensity
from kontrast.augment.operations import OPERATIONS, constants, in_use
from kontrast.augment.policies import POLICIES, Policy, natural, xray
from kontrast.errors import InputError

BUILT_IN = sorted(set(POLICIES) - {"randaugment"})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(channels=3):
    return torch.rand(8, channels, 40, 30, generator=seeded())


@pytest.fixture
def written(tmp_path):
    """A file of this text."""

    def written(text, name="policy.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def refused(path, *, size=64, channels=3):
    """The sentence with which a file is refused."""
    with pytest.raises(InputError) as caught:
        policy_file.read(path, size=size, channels=channels)
    text = str(caught.value)
    assert str(path) in text
    return text


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("size", [28, 64, 100, 224])
def test_every_policy_comes_back_as_it_was_bit_for_bit(name, size, tmp_path):
    policy = POLICIES[name](size)
    policy_file.write(policy, tmp_path / "policy.yaml")
    read = policy_file.read(tmp_path / "policy.yaml", size=size, channels=3)
    begun, ended = constants(policy), constants(read)
    assert in_use(ended, 3) == in_use(begun, 3)
    assert all(ended[name] == begun[name] for name in in_use(begun, 3))
    assert read.geometry.padding == policy.geometry.padding
    assert torch.equal(read(noise(), seeded(1)), policy(noise(), seeded(1)))


@pytest.mark.parametrize("size", [31, 48, 97, 224])
def test_no_number_loses_a_bit_on_the_way(size, tmp_path):
    rng = torch.Generator().manual_seed(size)
    for _ in range(50):
        low, high = sorted((3 * torch.rand(2, generator=rng, dtype=torch.float64)).tolist())
        policy = Policy(Geometry(size, rotation=10 * high), Intensity(noise=low / 9, blur=0.3, sigma=(low, high)))
        policy_file.write(policy, tmp_path / "policy.yaml")
        read = policy_file.read(tmp_path / "policy.yaml", size=size, channels=1)
        assert constants(read) == constants(policy)


@pytest.mark.parametrize("value", [1e-3, 1e-4, 1e-5, 1e-7, 2.5e-6, 1e-30])
def test_a_strength_that_is_nearly_nothing_can_be_read_again(value, tmp_path):
    policy_file.write(Policy(Geometry(32), Intensity(noise=value)), tmp_path / "policy.yaml")
    assert policy_file.read(tmp_path / "policy.yaml", size=32, channels=1).intensity.noise == value


def test_the_file_says_what_each_operation_is_and_leaves_out_what_does_nothing(tmp_path):
    policy_file.write(xray(224), tmp_path / "policy.yaml")
    text = (tmp_path / "policy.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {
        "size": 224,
        "padding": "zeros",
        "area": [0.3, 1],
        "aspect": [0.8, 1.25],
        "rotation": 10,
        "probability": 0.8,
        "brightness": 0.3,
        "contrast": 0.3,
        "gamma": 0.3,
        "blur": 0.3,
        "sigma": [0.1, 1.5],
        "noise": 0.02,
    }
    for line in text.splitlines()[1:]:
        assert re.fullmatch(r"\w+: .+  # .+", line), line
    assert all(OPERATIONS[name].what in text for name in in_use(constants(xray(224)), 3))


def test_a_file_of_a_few_lines_is_a_policy_and_what_it_does_not_name_does_nothing(written):
    read = policy_file.read(written("rotation: 20\nflip: 0.5\narea: [0.3, 1]\n"), size=48, channels=3)
    assert read.size == 48
    expected = Policy(Geometry(48, rotation=20.0, flip=0.5, area=(0.3, 1.0)), Intensity())
    assert constants(read) == constants(expected)
    assert type(read) is Policy
    assert torch.equal(read(noise(), seeded()), expected(noise(), seeded()))


def test_only_what_is_in_pixels_scales_with_the_size(written):
    path = written(
        "size: 100\nblur: 0.5\nsigma: [0.2, 1.5]\nrotation: 10\nnoise: 0.1\ncutout: 0.5\ncutout_side: [0.1, 0.3]"
    )
    read = policy_file.read(path, size=50, channels=3)
    assert read.size == 50
    assert read.intensity.sigma == pytest.approx((0.1, 0.75))
    rest = {"rotation": 10.0, "noise": 0.1, "blur": 0.5, "cutout": 0.5, "cutout_side": (0.1, 0.3)}
    assert {name: value for name, value in constants(read).items() if name in rest} == rest


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_padding_survives(padding, written, tmp_path):
    read = policy_file.read(written(f"padding: {padding}\nrotation: 10\n"), size=32, channels=1)
    assert read.geometry.padding == padding
    policy_file.write(read, tmp_path / "again.yaml")
    assert policy_file.read(tmp_path / "again.yaml", size=32, channels=1).geometry.padding == padding


def test_without_padding_or_size_there_are_zeros_outside_and_pixels_are_those_of_the_views(written):
    read = policy_file.read(written("blur: 1\nsigma: [1, 2]\n"), size=77, channels=1)
    assert read.geometry.padding == "zeros"
    assert read.intensity.sigma == (1.0, 2.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rotations: 10", "known operations; .* has 'rotations': did you mean rotation?"),
        ("Flip: 0.5", "has 'Flip': did you mean flip?"),
        ("xyzzy: 1", "has 'xyzzy': choose from area, aspect, .*cutout_side"),
        ("3: 1", "has '3': choose from"),
        ("yes: 1", "has 'True': choose from"),
        ("rotation: 226", r"rotation \(degrees, .*\) is a number in 0..225; .* has 226"),
        ("rotation: -1", "in 0..225; .* has -1"),
        ("flip: 1.01", r"flip \(probability of mirroring left and right\) is a number in 0..1; .* has 1.01"),
        ("brightness: 1.5", "in 0..1; .* has 1.5"),
        ("noise: .nan", "in 0..1; .* has nan"),
        ("noise: .inf", "in 0..1; .* has inf"),
        ("rotation: ten", "is a number in 0..225; .* has 'ten'"),
        ("rotation: true", "is a number in 0..225; .* has True"),
        ("rotation:", "is a number in 0..225; .* has None"),
        ("rotation: [0, 10]", r"is a number in 0..225; .* has \[0, 10\]"),
        ("noise: {a: 1}", "is a number in 0..1; .* has {'a': 1}"),
        ("area: 0.5", r"area \(share of the image area, smallest and largest\) is a pair within .*; .* has 0.5"),
        ("area: [0.5]", r"is a pair within .*; .* has \[0.5\]"),
        ("area: [0.2, 0.5, 1]", r"is a pair within .*; .* has \[0.2, 0.5, 1\]"),
        ("area: [a, b]", r"is a pair within .*; .* has \['a', 'b'\]"),
        ("area: [true, 1]", r"is a pair within .*; .* has \[True, 1\]"),
        ("area: [1, 0.3]", r"the smaller first, the other above 0; .* has \[1, 0.3\]"),
        ("area: [0.5, 1.1]", r"is a pair within .*\.\.1, the smaller first, the other above 0; .* has \[0.5, 1.1\]"),
        ("area: [0, 1]", r"is a pair within 0.0\d+..1, .* has \[0, 1\]"),
        ("area: [.nan, 1]", r"is a pair within .* has \[nan, 1\]"),
        ("aspect: [0, 1]", r"is a pair within 0.1..10, .* has \[0, 1\]"),
        ("sigma: [-1, 2]", r"sigma \(pixels, .*\) is a pair within 0..100, .* has \[-1, 2\]"),
        ("padding: mirror", "padding is one of zeros, border, reflection; .* has 'mirror'"),
        ("padding: [zeros]", r"padding is one of zeros, border, reflection; .* has \['zeros'\]"),
        ("size: 0", "size is the side of the views in pixels, 1 or more; .* has 0"),
        ("size: big", "size is the side of the views in pixels, 1 or more; .* has 'big'"),
        ("size: true", "size is the side of the views in pixels, 1 or more; .* has True"),
        ("size: .nan", "size is the side of the views in pixels, 1 or more; .* has nan"),
        ("size: .inf", "size is the side of the views in pixels, 1 or more; .* has inf"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_the_file_the_rule_and_the_value(line, said, written):
    sentence = refused(written(f"shear: 5\n{line}\n"))
    assert re.search(said, sentence), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("text", ["blur: 0.5\nsigma: [0, 0]\n", "size: 9\nsigma: [0, 0.0]\nblur: 1\n"])
def test_a_blur_without_any_width_is_refused_before_a_view_is_made(text, written):
    assert "sigma" in refused(written(text))


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation.colour])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_colour_is_refused_where_there_is_none(name, channels, written):
    path = written(f"{name}: 0.2\n")
    sentence = refused(path, channels=channels)
    assert f"{name} changes colour, so it needs images of three channels; these have {channels}" in sentence
    assert "--channels 3" in sentence
    assert getattr(policy_file.read(path, size=32, channels=3).intensity, name) == 0.2


@pytest.mark.parametrize(
    "text", ["a: b: c\n", "[1, 2\n", "flip: 'x\n", "\tflip: 1\n", "flip: \x07\n", "!!python/object:os.x {}\n"]
)
def test_what_is_no_yaml_is_refused(text, written):
    assert "a policy is YAML, one `operation: strength` a line" in refused(written(text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "policy.yaml").write_bytes(b"rotation: 10 \xff\xfe\n")
    assert "a policy is YAML" in refused(tmp_path / "policy.yaml")


def test_a_file_nested_beyond_all_measure_is_refused(written):
    assert "a policy is YAML" in refused(written("[" * 5000))


@pytest.mark.parametrize(
    ("text", "kind"), [("- flip\n- area\n", "list"), ("natural\n", "str"), ("", "NoneType"), ("3", "int")]
)
def test_what_is_yaml_of_another_kind_is_refused(text, kind, written):
    assert f"holds a {kind} instead" in refused(written(text))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "gone.yaml", tmp_path):
        assert "--policy names a policy or a YAML file of one; there is no file" in refused(path)


@pytest.mark.parametrize("way", ["fsync", "replace"])
def test_an_interrupted_write_keeps_what_was_there(way, tmp_path, monkeypatch):
    path = tmp_path / "policy.yaml"
    policy_file.write(xray(64), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, way, full)
    with pytest.raises(OSError, match="No space left"):
        policy_file.write(natural(64), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["policy.yaml"]
    policy_file.write(natural(64), path)
    assert path.read_bytes() != before


def test_what_was_written_by_a_hand_made_policy_is_the_same_file_each_time(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        policy_file.write(natural(224), tmp_path / name)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()
