"""What two towers make of unseen images: scores are those recomputed by hand from the files that the run left."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import kontrast as package
from kontrast import data
from kontrast.commands.assemble import split
from kontrast.commands.run import check_same_split
from kontrast.data.tabular import Columns
from kontrast.errors import InputError
from kontrast.evaluate.corruptions import Corruption
from kontrast.evaluate.features import apply
from kontrast.nn.towers import load_towers

NUMBERS = ("one", "two", "three")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, draw_folder):
    """48 images with two texts each, the first of which names the class, two images a group."""
    root = draw_folder(tmp_path_factory.mktemp("pairs"))
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    with (root / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "text", "label", "group"])
        for number, name in enumerate(names):
            kind = name.split("/")[0]
            table.writerow([name, f"{kind} {NUMBERS[number % 3]}", kind, number // 2])
            table.writerow([name, f"left half, {kind}", kind, number // 2])
    return root / "pairs.csv"


@pytest.fixture(scope="module")
def matched(tmp_path_factory, pairs, training):
    """A finished run of clip."""
    from kontrast.cli import main

    out = tmp_path_factory.mktemp("runs") / "clip"
    words = ["pretrain", "clip", "--data", str(pairs), *training, "--policy", "captioned", "--width", "16"]
    assert main([*words, "--text-width", "16", "--text-layers", "1", "--text-heads", "2", "--out", str(out)]) == 0
    return out


def embedded(run, images, texts, change=None):
    towers = load_towers(run)
    path = [part for part in (change, towers.encoder, towers.project_image) if part is not None]
    image = torch.nn.functional.normalize(torch.from_numpy(apply(torch.nn.Sequential(*path), towers.encoder, images)))
    with torch.no_grad():
        return image.numpy(), towers.encode_text(texts).numpy()


def written(run, name):
    return json.loads((run / f"evaluations/{name}.json").read_text())


def test_zero_shot_by_class_names_is_the_share_of_test_images_nearest_to_their_own(matched, pairs, kontrast):
    assert kontrast("evaluate", "zeroshot", matched) == 0
    test = split(data.open(pairs)).test
    image, text = embedded(matched, test, ["dark", "light"])
    assert test.classes == ("dark", "light")
    found = written(matched, "zeroshot")
    assert found["top_1"]["value"] == pytest.approx(np.mean((image @ text.T).argmax(1) == test.labels))
    assert found["top_1"]["low"] <= found["top_1"]["value"] <= found["top_1"]["high"]
    assert (found["classes"], found["chance"], found["test_images"]) == (2, 0.5, len(test))
    assert found["top_1"]["num_groups"] == found["balanced_accuracy"]["num_groups"] == len(test) / 2
    assert found["label_alignment"] == pytest.approx((image * text[test.labels]).sum(1).mean(), abs=1e-6)


def test_a_file_of_classes_gives_the_sentences_that_stand_for_each_label(matched, pairs, tmp_path, kontrast):
    file = tmp_path / "mine.json"
    file.write_text(
        json.dumps(
            {"classes": {"light": "light", "dark": "not light"}, "templates": ["{} one", "a {}"]}
        )
    )  # fmt: skip
    assert kontrast("evaluate", "zeroshot", matched, "--classes", file) == 0
    test = split(data.open(pairs)).test
    image, text = embedded(matched, test, ["not light one", "a not light", "light one", "a light"])
    means = np.stack([text[:2].mean(0), text[2:].mean(0)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    answers = (image @ means.T).argmax(1)
    found = written(matched, "zeroshot-mine")
    assert found["top_1"]["value"] == pytest.approx(np.mean(answers == test.labels))
    assert found["label_alignment"] == pytest.approx((image * means[test.labels]).sum(1).mean(), abs=1e-6)


def test_the_first_texts_of_images_can_be_the_classes(matched, pairs, kontrast):
    assert kontrast("evaluate", "zeroshot", matched, "--classes", "texts") == 0
    test = split(data.open(pairs)).test
    names = sorted({known[0] for known in test.texts})
    image, text = embedded(matched, test, names)
    right = [names[row.argmax()] == known[0] for row, known in zip(image @ text.T, test.texts, strict=True)]
    found = written(matched, "zeroshot-texts")
    assert found["top_1"]["value"] == pytest.approx(np.mean(right))
    assert found["classes"] == len(names)


@pytest.mark.parametrize("merged", [False, True])
def test_retrieval_counts_what_is_as_near_as_the_best_right_answer_or_nearer(merged, matched, pairs, kontrast):
    assert kontrast("evaluate", "retrieval", matched, *["--merge-texts"] * merged) == 0
    test = split(data.open(pairs)).test
    texts = [text for known in test.texts for text in known]
    image, text = embedded(matched, test, texts)
    of = np.repeat(np.arange(len(test)), 2)
    cosine = (image @ text.T).astype(np.float64)
    has = np.array(
        [[texts[j] in test.texts[i] if merged else of[j] == i for j in range(len(texts))] for i in range(len(test))]
    )
    ranks = {
        "image_to_text": [1 + sum(row[~own] >= row[own].max() - 1e-6) for row, own in zip(cosine, has, strict=True)],
        "text_to_image": [
            1 + sum(row[~own] >= row[own].max() - 1e-6) for row, own in zip(cosine.T, has.T, strict=True)
        ],
    }
    found = written(matched, "retrieval-merged" if merged else "retrieval")
    for direction, rank in ranks.items():
        assert found[direction]["mean_rank"] == pytest.approx(np.mean(rank)), direction
        assert found[direction]["recall"]["5"]["value"] == pytest.approx(np.mean(np.array(rank) <= 5))
        assert found[direction]["recall"]["5"]["num_groups"] == len(test) / 2
    assert found["alignment"] == pytest.approx(2 - 2 * (image * text[::2]).sum(1).mean(), abs=1e-5)


def test_a_corruption_changes_the_test_images_and_stands_beside_the_clean_score(matched, pairs, kontrast):
    assert kontrast("evaluate", "zeroshot", matched, "--corrupt", "contrast") == 0
    test = split(data.open(pairs)).test
    image, text = embedded(matched, test, ["dark", "light"], Corruption("contrast"))
    found = written(matched, "zeroshot-contrast")
    assert found["top_1"]["value"] == pytest.approx(np.mean((image @ text.T).argmax(1) == test.labels))
    assert found["label_alignment"] == pytest.approx((image * text[test.labels]).sum(1).mean(), abs=1e-6)
    clean, _ = embedded(matched, test, ["dark"])
    assert np.abs(clean - image).max() > 1e-3


def test_consistency_compares_the_class_of_the_texts_with_that_of_training_neighbours(matched, pairs, kontrast):
    assert kontrast("evaluate", "consistency", matched) == 0
    parts = split(data.open(pairs))
    image, text = embedded(matched, parts.test, ["dark", "light"])
    bank, _ = embedded(matched, parts.train, ["dark"])
    near = parts.train.labels[(image @ bank.T).argsort(1)[:, ::-1][:, :5]]
    found, said = written(matched, "consistency"), (image @ text.T).argmax(1)
    for k in (1, 3, 5):  # odd, so that one of two classes leads
        agrees = (near[:, :k].mean(1) > 0.5) == said
        assert found[f"k_{k}"]["value"] == pytest.approx(np.mean(agrees))
    assert found["k_1"]["num_groups"] == len(parts.test) / 2


def test_consistency_believes_the_labels_of_training_images_alone(matched, pairs, tmp_path):
    """The same images twice: labels of the training part are turned around, those of the test part are not."""
    names = sorted(path for path in pairs.parent.rglob("*.png"))
    shares = {}
    for turned in (False, True):
        rows = ["path,label,split"]
        for number, name in enumerate(names):
            kind = name.parent.name
            part = "test" if number % (3 if kind == "dark" else 6) == 0 else "train"  # so that no share is one half
            other = {"dark": "light", "light": "dark"}[kind]
            rows.append(f"{name},{other if turned and part == 'train' else kind},{part}")
        (tmp_path / f"{turned}.csv").write_text("\n".join(rows))
        found = package.evaluate(run=matched, protocol="consistency", data=str(tmp_path / f"{turned}.csv"))
        shares[turned] = found["k_1"].value
    assert shares[True] == pytest.approx(1 - shares[False])


def test_classes_in_another_order_than_the_labels_give_the_same_consistency(matched, pairs, tmp_path, kontrast):
    (tmp_path / "turned.json").write_text('{"classes": ["light", "dark"]}')
    for words in ([], ["--classes", tmp_path / "turned.json"]):
        assert kontrast("evaluate", "consistency", matched, *words) == 0
    found = [written(matched, name) for name in ("consistency", "consistency-turned")]
    assert found[0]["k_5"] == found[1]["k_5"]


def test_pairs_without_labels_have_a_test_part_and_say_how_zero_shot_can_ask_them(matched, pairs, tmp_path, capsys):
    rows = [line.split(",")[:2] for line in pairs.read_text().splitlines() if "left" not in line]
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(f"{pairs.parent / name if name != 'image' else name},{text}" for name, text in rows))
    found = package.evaluate(run=matched, protocol="retrieval", data=str(bare))
    assert found["test_images"] == 10
    from kontrast.cli import main

    assert main(["evaluate", "zeroshot", str(matched), "--data", str(bare)]) == 2
    assert "with --labels, or ask by the texts of the images, --classes texts" in capsys.readouterr().err


def test_another_table_is_read_by_the_columns_of_the_run_unless_others_are_named(pairs, training, tmp_path, kontrast):
    names = sorted(pairs.parent.rglob("*.png"))
    table = tmp_path / "told.csv"
    rows = [f"{name},wrong {n % 7},{name.parent.name} {n % 5}" for n, name in enumerate(names)]
    table.write_text("\n".join(["image,text,findings", *rows]))
    (tmp_path / "second.csv").write_text(table.read_text())
    words = ["pretrain", "clip", table, "--text-column", "findings", *training, "--width", "8", "--text-width", "8"]
    assert kontrast(*words, "--epochs", "1", "--out", tmp_path / "run") == 0
    run, other = tmp_path / "run", str(tmp_path / "second.csv")
    assert package.evaluate(run=run, protocol="zeroshot", classes="texts", data=other)["classes"] <= 10
    named = package.evaluate(run=run, protocol="retrieval", data=other, text_column="text", merge_texts=True)
    by_run = package.evaluate(run=run, protocol="retrieval", data=other, merge_texts=True)
    assert named["image_to_text"] != by_run["image_to_text"]
    asked = split(data.open(other, columns=Columns(text="findings"))).test
    found = package.evaluate(run=run, protocol="zeroshot", classes="texts", data=other)
    assert found["classes"] == len({known[0] for known in asked.texts})


def test_texts_are_embedded_alike_in_batches_of_any_size(matched):
    from kontrast.evaluate.embeddings import text_embeddings

    towers, texts = load_towers(matched), ["dark", "a light left half", "one two three", "x", "left"]
    with torch.no_grad():
        expected = towers.encode_text(texts)
    for size in (1, 2, 7):
        torch.testing.assert_close(text_embeddings(towers, texts, batch_size=size), expected)


def test_the_text_tower_of_the_run_has_the_sizes_asked_for(matched):
    spec = load_towers(matched).text.network.spec
    assert (spec.width, spec.layers, spec.heads) == (16, 1, 2)


def test_findings_that_may_be_present_together_are_asked_for_presence_against_absence(matched, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 2)).astype(float)
    images = rng.integers(0, 120, (40, 16, 16)) + 100 * labels[:, :1, None]
    file, classes = tmp_path / "findings.npz", tmp_path / "classes.json"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    classes.write_text('{"classes": ["light", "left half"], "absent": ["without {}", "no {}"]}')
    found = package.evaluate(run=matched, protocol="zeroshot", data=str(file), classes=str(classes))
    test = split(data.open(file)).test
    words = ["light", "left half", "without light", "no light", "without left half", "no left half"]
    image, text = embedded(matched, test, words)
    absent = text[2:].reshape(2, 2, -1).mean(1)
    margin = image @ text[:2].T - image @ (absent / np.linalg.norm(absent, axis=1, keepdims=True)).T
    expected = [roc_auc_score(test.labels[:, i], margin[:, i]) for i in range(2)]
    assert found["auroc"].value == pytest.approx(np.mean(expected), abs=1e-6)
    assert (found["classes"], found["chance"]) == (2, 0.5)
    classes.write_text(
        '{"classes": {"0": "light", "1": "left half", "2": "nobody labelled this"}, "absent": ["without {}", "no {}"]}'
    )
    more = package.evaluate(run=matched, protocol="zeroshot", data=str(file), classes=str(classes))
    assert more["auroc"] == found["auroc"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zeroshot", "--classes", "missing.json"], "classes are a JSON file"),
        (["zeroshot", "--classes", "{tmp}/other.json"], "every label of the images is a class"),
        (["consistency", "--classes", "texts"], "compares with the labels of training images"),
        (["consistency", "--data", "{tmp}/bare.csv"], "none of {tmp}/bare.csv has one"),
        (["retrieval", "--classes", "texts"], "retrieval asks by texts and knows no classes"),
        (["zeroshot", "--merge-texts"], "only retrieval merges texts"),
        (["linear", "--corrupt", "blur"], "linear reads none"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_sentence(words, said, matched, pairs, tmp_path, kontrast, capsys):
    names = sorted(pairs.parent.rglob("*.png"))
    rows = [
        f"{name},{name.parent.name if n % 4 == 0 else ''},{'train' if n % 4 else 'test'}"
        for n, name in enumerate(names)
    ]
    (tmp_path / "bare.csv").write_text("\n".join(["path,label,split", *rows]))
    (tmp_path / "other.json").write_text('{"classes": ["cat", "dog"]}')
    assert kontrast("evaluate", words[0], matched, *(word.replace("{tmp}", str(tmp_path)) for word in words[1:])) == 2
    error = capsys.readouterr().err
    assert said.replace("{tmp}", str(tmp_path)) in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("changed", "flag"), [({"limit": 1000}, "--limit"), ({"ignore_groups": True}, "--ignore-groups")]
)
def test_another_style_is_no_test_of_a_run_whose_split_was_another(changed, flag):
    settings = {"data": "sample:emoji/google", "limit": None, "ignore_groups": False}
    check_same_split(settings, "sample:emoji/twitter")
    check_same_split(settings | changed, "sample:emoji/google")
    with pytest.raises(InputError, match=flag):
        check_same_split(settings | changed, "sample:emoji/twitter")


def test_a_run_without_towers_is_refused(run, kontrast, capsys):
    assert kontrast("evaluate", "zeroshot", run) == 2
    assert "towers are what runs of clip leave" in capsys.readouterr().err


def test_a_run_on_shuffled_texts_is_another_run(pairs, training, tmp_path, kontrast):
    words = ["pretrain", "clip", pairs, *training, "--width", "8", "--text-width", "8", "--text-layers", "1"]
    for name, more in (("a", []), ("b", ["--shuffle-texts"])):
        assert kontrast(*words, *more, "--epochs", "1", "--out", tmp_path / name) == 0
    losses = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])["loss"] for name in "ab"]
    assert losses[0] != losses[1]
