import os

import pytest

from kontrast.data.folder import list_folder
from kontrast.errors import InputError


def test_subfolders_are_classes_and_names_are_sorted(tmp_path, save):
    for name in ("b/2.png", "a/1.jpg", "b/1.PNG"):
        save(tmp_path / name)
    listing = list_folder(tmp_path)
    assert listing.names == ("a/1.jpg", "b/1.PNG", "b/2.png")
    assert listing.annotations.classes == ("a", "b")
    assert listing.annotations.labels.tolist() == [0, 1, 1]
    assert listing.annotations.parts is None


def test_a_flat_folder_has_no_labels(tmp_path, save):
    save(tmp_path / "1.png")
    assert list_folder(tmp_path).annotations.labels is None


def test_train_and_test_folders_are_the_split_and_the_next_level_the_class(tmp_path, save):
    for name in ("train/cat/1.png", "val/dog/deep/1.png", "test/cat/1.png"):
        save(tmp_path / name)
    known = list_folder(tmp_path).annotations
    assert known.parts.tolist() == ["test", "train", "validation"]
    assert [known.classes[code] for code in known.labels] == ["cat", "cat", "dog"]


def test_a_folder_called_train_beside_others_is_a_class(tmp_path, save):
    for name in ("train/1.png", "plane/1.png"):
        save(tmp_path / name)
    known = list_folder(tmp_path).annotations
    assert known.classes == ("plane", "train")
    assert known.parts is None


def test_hidden_files_and_other_kinds_are_ignored(tmp_path, save):
    for name in ("a/1.png", "a/.2.png", ".git/3.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("x")
    assert list_folder(tmp_path).names == ("a/1.png",)


def test_linked_folders_are_followed_and_a_loop_ends(tmp_path, save):
    save(tmp_path / "elsewhere" / "1.png")
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "elsewhere", root / "cat")
    os.symlink(root, root / "loop")
    assert list_folder(root).names == ("cat/1.png",)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        list_folder(tmp_path / "nowhere")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="holds none"):
        list_folder(tmp_path)
