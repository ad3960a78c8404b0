"""Zero-shot classes, their file, consistency, and shares with intervals, against definitions in plain loops."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kontrast.errors import InputError
from kontrast.evaluate.classes import Classes, read_classes
from kontrast.evaluate.consistency import consistency, neighbour_label
from kontrast.evaluate.intervals import estimate
from kontrast.evaluate.shares import share
from kontrast.evaluate.zeroshot import class_embeddings, coarse, cosines, fine, in_top, zero_shot, zero_shot_findings


def vectors(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def written(tmp_path, content):
    path = tmp_path / "classes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_names_stand_literally_where_the_braces_are_and_nothing_else_is_formatted(tmp_path):
    content = {"classes": ["cat", "{0.__class__}"], "templates": ["a {} and {}.", "{} {x!r} %s"]}
    classes = read_classes(written(tmp_path, content))
    assert classes.prompts(0) == ["a cat and cat.", "cat {x!r} %s"]
    assert classes.prompts(1) == ["a {0.__class__} and {0.__class__}.", "{0.__class__} {x!r} %s"]


def test_without_templates_a_class_is_its_name_and_superclasses_keep_their_order(tmp_path):
    classes = read_classes(written(tmp_path, {"classes": ["b", "a", "c"], "superclasses": {"y": [2, 0], "x": [1]}}))
    assert classes == Classes(names=("b", "a", "c"), superclasses={"y": (2, 0), "x": (1,)})
    assert classes.prompts(2) == ["c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("__import__('os')", "is none"),
        ("[" * 100_000, "is none"),
        ("[]", "has list"),
        ({}, "has nothing"),
        ({"classes": ["a"], "template": []}, "classes, template"),
        ({"classes": []}, "classes are names"),
        ({"classes": ["a", ""]}, "classes are names"),
        ({"classes": "ab"}, "classes are names"),
        ({"classes": ["a", "a"]}, "'a' twice"),
        ({"classes": ["a"], "templates": ["a photo"]}, "has 'a photo', so put it in"),
        ({"classes": ["a", "b"], "superclasses": {"x": [0]}}, "numbers 0..1"),
        ({"classes": ["a", "b"], "superclasses": {"x": [0, 2]}}, "numbers 0..1"),
        ({"classes": ["a", "b"], "superclasses": {"x": [0, True]}}, "numbers 0..1"),
        ({"classes": ["a", "b"], "superclasses": {"x": [0, 1], "y": []}}, "numbers 0..1"),
        ({"classes": ["a", "b"], "superclasses": [0]}, "numbers 0..1"),
    ],
    ids=str,
)
def test_a_file_that_breaks_a_rule_is_refused_in_one_sentence(content, said, tmp_path):
    with pytest.raises(InputError, match=said):
        read_classes(written(tmp_path, content))


def test_a_missing_file_and_one_in_another_encoding_are_refused(tmp_path):
    with pytest.raises(InputError, match="classes are a JSON file"):
        read_classes(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes('{"classes": ["é"]}'.encode("latin-1"))
    with pytest.raises(InputError, match="classes are a JSON file"):
        read_classes(tmp_path / "latin.json")


def test_labels_are_classes_by_name_by_what_stands_for_them_or_by_number(tmp_path):
    spoken = read_classes(written(tmp_path, {"classes": {"NORMAL": "a healthy chest", "PNEUMONIA": "pneumonia"}}))
    assert spoken.names == ("a healthy chest", "pneumonia")
    assert spoken.numbers(["PNEUMONIA", "NORMAL"], "chests") == (1, 0)
    assert spoken.numbers(["1", "0"], "chests") == (1, 0)
    named = Classes(names=("cat", "dog", "2"))
    assert named.numbers(["dog", "cat"], "pets") == (1, 0)
    assert named.numbers(["2", "cat"], "pets") == (2, 0), "a name wins over a number"
    with pytest.raises(InputError, match="pets has 'bird', and the classes are cat, dog, 2"):
        named.numbers(["bird", "cat"], "pets")


def test_a_file_of_classes_may_begin_with_a_byte_order_mark_and_must_hold_texts(tmp_path):
    path = tmp_path / "classes.json"
    path.write_bytes(b'\xef\xbb\xbf{"classes": ["cat", "dog"]}')
    assert read_classes(path).names == ("cat", "dog")
    with pytest.raises(InputError, match="classes are names, each once"):
        read_classes(written(tmp_path, '{"classes": ["cat", "half a pair \\ud83d"]}'))


def test_denials_of_a_class_are_no_name_unless_the_file_says_otherwise(tmp_path):
    assert Classes(names=("mass",)).denials(0) == ["no mass"]
    found = read_classes(written(tmp_path, {"classes": ["mass"], "absent": ["without {}", "{} is absent"]}))
    assert found.denials(0) == ["without mass", "mass is absent"]


def test_a_finding_is_as_probable_as_the_softmax_of_its_presence_and_absence():
    image, present, absent = vectors(6), vectors(3, seed=1), vectors(3, seed=2)
    found = zero_shot_findings(image, present, absent, temperature=0.2)
    for i in range(6):
        for j in range(3):
            pair = [F.cosine_similarity(image[i], side[j], dim=0).item() / 0.2 for side in (present, absent)]
            assert found[i, j] == pytest.approx(np.exp(pair[0]) / np.exp(pair).sum(), rel=1e-4)


def test_a_class_is_the_mean_of_its_sentences_each_at_length_1_and_again_at_length_1():
    table = {"a cat.": [3.0, 0.0], "one cat": [0.0, 0.5], "a dog.": [0.0, -2.0], "one dog": [1.0, 0.0]}
    classes = Classes(names=("cat", "dog"), templates=("a {}.", "one {}"))
    found = class_embeddings(classes, lambda texts: torch.tensor([table[text] for text in texts]))
    root = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[root, root], [root, -root]]))


def test_probabilities_are_the_softmax_of_cosines_over_the_temperature():
    image, text = vectors(6), 3 * vectors(4, seed=1)
    expected = torch.stack([F.cosine_similarity(row[None], text) for row in image])
    torch.testing.assert_close(cosines(image, text), expected)
    found = zero_shot(image, text, temperature=0.1)
    np.testing.assert_allclose(found, (expected / 0.1).softmax(1).numpy(), rtol=1e-4)
    with pytest.raises(ValueError, match=r"got \(6, 5\) and \(4, 3\)"):
        cosines(image, text[:, :3])
    with pytest.raises(ValueError, match="above 0; got 0"):
        zero_shot(image, text, temperature=0)


def test_an_image_is_in_the_top_k_if_fewer_than_k_others_score_as_much():
    scores = torch.randint(0, 4, (200, 6), generator=torch.Generator().manual_seed(0)).float()
    label = torch.arange(200) % 6
    for k in (1, 3, 6):
        expected = [sum(scores[i, c] >= scores[i, label[i]] for c in range(6) if c != label[i]) < k for i in range(200)]
        assert in_top(scores, label, k).tolist() == expected
    assert not in_top(torch.ones(3, 4), torch.tensor([0, 1, 3]), 3).any()


def test_fine_asks_among_the_classes_of_the_true_superclass_and_coarse_for_the_superclass_of_the_best():
    superclasses = {"animal": (0, 2), "thing": (1, 3)}
    scores = torch.tensor([[0.5, 0.9, 0.4, 0.1], [0.5, 0.9, 0.6, 0.1], [0.1, 0.2, 0.0, 0.3], [0.7, 0.7, 0.2, 0.1]])
    label = torch.tensor([0, 0, 1, 0])
    assert fine(scores, label, superclasses).tolist() == [True, False, False, True]
    assert coarse(scores, label, superclasses).tolist() == [False, False, True, False]


def test_where_labels_tie_the_farthest_neighbour_is_dropped_until_one_leads():
    rows = np.array([[1, 2, 2, 1, 3], [0, 1, 2, 3, 4], [5, 5, 1, 1, 1], [2, 1, 1, 2, 1], [3, 4, 4, 3, 0]])
    assert neighbour_label(rows).tolist() == [2, 0, 1, 1, 4]


def test_the_neighbours_label_equals_its_definition_in_plain_loops():
    rows = np.random.default_rng(0).integers(0, 4, (300, 7))
    for k in (1, 2, 7):
        expected = []
        for row in rows[:, :k].tolist():
            near = list(row)
            while len(most := Counter(near).most_common(2)) > 1 and most[0][1] == most[1][1]:
                near.pop()
            expected.append(most[0][0])
        assert neighbour_label(rows[:, :k]).tolist() == expected


def test_consistency_compares_with_the_nearest_training_images_by_cosine():
    bank, labels = torch.tensor([[1.0, 0], [9, 1], [0, 1], [0, 2], [-1, 0]]), np.array([0, 1, 2, 2, 3])
    image = torch.tensor([[2.0, 0], [0, 1], [-1, 0.1]])
    assert consistency(image, np.array([0, 2, 3]), bank, labels, k=1).tolist() == [True, True, True]
    assert consistency(image, np.array([0, 2, 2]), bank, labels, k=3).tolist() == [True, True, True]
    assert consistency(image, np.array([1, 0, 3]), bank, labels, k=3).tolist() == [False, False, False]
    for k, predicted in ((0, [0, 1, 2]), (6, [0, 1, 2]), (1, [0, 1])):
        with pytest.raises(ValueError, match="one label an image"):
            consistency(image, np.array(predicted), bank, labels, k=k)


def test_a_share_is_the_accuracy_of_two_classes_and_its_interval_is_of_groups_where_given():
    right = np.random.default_rng(0).random(80) < 0.7
    found = share(right)
    expected = estimate(np.ones(80, int), np.stack([~right, right], 1).astype(float)[None, None], "accuracy")
    assert found == expected
    assert found.value == pytest.approx(right.mean())
    assert share(right, groups=np.arange(80) // 4).num_groups == 20
