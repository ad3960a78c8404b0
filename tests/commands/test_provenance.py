"""What tells one set of annotations from another."""

import numpy as np

from kontrast.commands.provenance import provenance


def test_texts_and_whose_they_are_are_part_of_what_a_resumed_run_must_find_unchanged(digits):
    few = digits.take(np.arange(2))
    told = [None, [("a",), ("b",)], [("b",), ("a",)], [("a", "b"), ("c",)], [("a",), ("b", "c")]]
    prints = [provenance(few.with_texts(texts))["annotations"] for texts in told]
    assert len(set(prints)) == len(told)
    assert prints[0] == provenance(few)["annotations"]
    assert prints[1] == provenance(few.with_texts([["a"], ["b"]]))["annotations"]
