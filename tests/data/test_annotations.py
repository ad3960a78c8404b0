import numpy as np
import pytest

from kontrast.data.annotations import Annotations, alias_codes, class_codes, group_codes, part_names, surest
from kontrast.errors import InputError


def test_integer_classes_sort_by_value_and_others_by_letter():
    assert class_codes(["10", "9", "-1", "9"])[1] == ("-1", "9", "10")
    assert class_codes(["10", "9", "b"])[1] == ("10", "9", "b")


def test_an_empty_label_is_minus_one_and_no_class():
    codes, classes = class_codes(["dog", "", "cat"])
    assert codes.tolist() == [1, -1, 0]
    assert classes == ("cat", "dog")


def test_labels_that_are_all_empty_are_no_labels():
    assert class_codes(["", ""]) == (None, ())


def test_an_image_without_a_group_is_a_group_of_its_own():
    codes, names = group_codes(["p1", "", "p1", "", "1"])
    assert codes[0] == codes[2]
    assert len(set(codes.tolist())) == 4
    assert codes.min() >= 0
    assert [names[code] for code in codes] == ["p1", "", "p1", "", "1"]
    assert group_codes(["", ""]) == (None, ())


def test_aliases_are_numbered_as_they_occur_so_that_codes_do_not_depend_on_the_key():
    codes, names = alias_codes(["group-b", "", "group-a", "group-b", ""])
    assert codes.tolist() == [0, 1, 2, 0, 3]
    assert names == ("group-b", "", "group-a", "")
    assert alias_codes(["", ""]) == (None, ())


def test_several_images_of_one_file_share_what_is_known_of_it():
    known = Annotations(labels=np.array([4, 5]), classes=("a",) * 6, groups=np.array([1, 0]), parts=None)
    taken = known.take(np.array([1, 1, 0]))
    assert taken.labels.tolist() == [5, 5, 4]
    assert taken.groups.tolist() == [0, 0, 1]
    assert taken.parts is None


def test_parts_have_one_name_whatever_they_are_called():
    assert part_names(["Train", "val", "VALID", "test", ""], origin="x").tolist() == [
        "train", "validation", "validation", "test", "",
    ]  # fmt: skip


def test_an_unknown_part_is_refused_by_name():
    with pytest.raises(InputError, match=r"t\.csv has 'holdout'"):
        part_names(["train", "holdout"], origin="t.csv")


def test_what_is_known_of_one_image_of_a_study_is_known_of_all():
    keys = [("patient 1", "study a"), ("study a",), ("study b",), ("patient 2", "study c"), ("study c",), ()]
    assert surest(keys) == ["patient 1", "patient 1", "study b", "patient 2", "patient 2", ""]


def test_a_study_of_two_patients_decides_nothing():
    assert surest([("p1", "s"), ("p2", "s"), ("s",)]) == ["p1", "p2", "s"]


def test_a_table_that_names_some_is_followed_through_the_patient_to_the_study():
    keys = [("lesion", "patient", "study 1"), ("patient", "study 2"), ("study 2",), ("other", "study 3")]
    assert surest(keys) == ["lesion", "lesion", "lesion", "other"]


def test_contradictory_keys_end():
    assert len(surest([("a", "b"), ("b", "a"), ("a",), ("b",)])) == 4
