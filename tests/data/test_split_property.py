"""Whatever the groups, classes and labels are, no split that Kontrast makes cuts a group, as the audit sees it too."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.data import hold_out, validation_part
from kontrast.data.audit.findings import cut_groups
from kontrast.data.audit.leaks import leaks
from kontrast.data.images import ImageSet
from kontrast.errors import InputError


@st.composite
def image_sets(draw):
    """Up to 60 images of up to 12 groups and 4 classes; some have no label, some sets no groups that repeat."""
    count = draw(st.integers(2, 60))
    groups = draw(st.lists(st.integers(0, draw(st.integers(0, 11))), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(-1, draw(st.integers(0, 3))), min_size=count, max_size=count))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return ImageSet(
        name="made",
        pixels=rng.integers(0, 256, (count, 1, 32, 32), dtype=np.uint8),
        rows=np.arange(count),
        names=tuple(map(str, range(count))),
        labels=np.array(labels),
        classes=("a", "b", "c", "d"),
        groups=np.array(groups),
        parts=None,
        skipped=(),
        fingerprint="made",
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(image_sets(), st.floats(0.05, 0.6), st.integers(0, 9))
def test_no_group_is_on_both_sides(images, share, seed):
    try:
        train, test = hold_out(images, share=share, seed=seed)
    except InputError:
        return  # some class has no second group
    assert not set(images.groups[train].tolist()) & set(images.groups[test].tolist())
    parts = np.full(len(images), "", dtype="<U5")
    parts[train], parts[test] = "train", "test"
    assert cut_groups(images, parts) is None
    assert not leaks(images.take(train), images.take(test))
    fitted = images.take(train)
    labelled = fitted.take(np.flatnonzero(fitted.labels >= 0))
    halves = validation_part(labelled.labels, groups=labelled.groups, seed=seed)
    if halves is not None:
        assert not set(labelled.groups[halves[0]].tolist()) & set(labelled.groups[halves[1]].tolist())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(image_sets())
def test_a_split_through_a_group_is_always_seen(images):
    parts = np.full(len(images), "train", dtype="<U5")
    parts[0] = "test"
    alone = (images.groups == images.groups[0]).sum() == 1
    assert (cut_groups(images, parts) is None) == alone
    assert leaks(images.take(np.arange(1, len(images))), images.take(np.array([0]))).groups == (not alone)
