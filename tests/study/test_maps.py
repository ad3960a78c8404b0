"""Every image of an atlas stands where it belongs, in the look of its class."""

from dataclasses import replace

from kontrast.study import maps
from kontrast.study.looks import symbol


def test_every_image_stands_where_its_projection_says_upwards_and_inside(full):
    pca, umap = maps.maps(full.atlas)
    side, edge = maps.SIDE, maps.EDGE
    for i, mark in enumerate(pca.marks):
        assert (mark.x, mark.y) == (f"{edge + (side - 2 * edge) * i / 8:.1f}", f"{side / 2:.1f}")
    assert [float(mark.y) for mark in umap.marks] == sorted((float(mark.y) for mark in umap.marks), reverse=True)
    assert (umap.marks[0].y, umap.marks[-1].y) == (f"{side - edge:.1f}", f"{edge:.1f}")


def test_every_mark_has_the_look_the_class_and_the_name_of_its_image(full):
    for i, mark in enumerate(maps.maps(full.atlas)[0].marks):
        assert mark.symbol == symbol(i % 3)
        assert mark.title == f"{full.atlas.classes[i % 3]}\ntest/{i:04d}.png"


def test_the_label_counts_the_images_of_each_class(full):
    label = maps.maps(full.atlas)[1].label
    assert label == (
        "UMAP map of 9 test images by the representations of SimCLR, seed 0: 3 healthy, 3 pneumonia, 3 effusion."
    )


def test_the_key_holds_the_classes_that_are_on_the_map_only(full):
    some = replace(full.atlas, codes=(2,) * 9)
    assert [(entry.code, entry.name) for entry in maps.key(some)] == [(2, "effusion")]


def test_images_of_no_single_class_have_one_look_and_no_key(full):
    multi = replace(full.atlas, codes=(-1,) * 9)
    assert maps.key(multi) == []
    assert {mark.symbol for mark in maps.maps(multi)[0].marks} == {symbol(-1)}
    assert [mark.title for mark in maps.maps(multi)[0].marks] == list(multi.names)
