"""What images are, told from their paths alone."""

import pytest

from deepsvdd_jax.datasets.layout import (
    DEFECT_NAMES,
    Layout,
    all_normal,
    choose,
    images_to_score,
    understand,
)

TILES = (
    *("defects/blowhole/1.jpg", "defects/crack/2.jpg", "good/3.jpg", "good/4.jpg"),
    *("masks/blowhole/1.png", "masks/crack/2.png"),
)
MVTEC = (
    *("train/good/000.png", "train/good/001.png", "test/good/000.png"),
    *("test/crack/000.png", "test/hole/000.png"),
    *("ground_truth/crack/000_mask.png", "ground_truth/hole/000_mask.png"),
)


def left_out(layout: Layout) -> list[str]:
    return [item.path for item in layout.left_out]


@pytest.mark.parametrize("good", ["good", "Good", "normal", "OK"])
def test_a_folder_of_normals_beside_others_is_what_is_trained_on(good: str) -> None:
    layout = understand([f"{good}/a.png", "crack/b.png", "Mask/b.png", f"{good}/sub/c.png"], "d")
    assert layout.normals == (f"{good}/a.png", f"{good}/sub/c.png")
    assert layout.defects == {"crack": ("crack/b.png",)}
    assert layout.masks == {"crack/b.png": ("Mask/b.png",)}
    assert not layout.left_out and not layout.has_parts


@pytest.mark.parametrize("above", ["", "tiles/", "a/b/"])
def test_defects_have_kinds_and_masks(above: str) -> None:
    layout = understand([above + path for path in TILES], "d")
    assert layout.normal == "good" and layout.classes == ("blowhole", "crack", "good")
    assert layout.normals == (f"{above}good/3.jpg", f"{above}good/4.jpg")
    assert layout.defects == {
        "blowhole": (f"{above}defects/blowhole/1.jpg",),
        "crack": (f"{above}defects/crack/2.jpg",),
    }
    assert layout.masks == {
        f"{above}defects/blowhole/1.jpg": (f"{above}masks/blowhole/1.png",),
        f"{above}defects/crack/2.jpg": (f"{above}masks/crack/2.png",),
    }


@pytest.mark.parametrize("above", ["", "bottle/"])
def test_the_layout_of_mvtec(above: str) -> None:
    layout = understand([above + path for path in (*MVTEC, "license.png")], "d")
    if above:
        assert left_out(layout) == ["bottle/license.png"]
    assert layout.normals == tuple(above + path for path in MVTEC[:2])
    assert layout.test_normals == (f"{above}test/good/000.png",)
    assert set(layout.defects) == {"crack", "hole"} and layout.has_parts
    assert layout.masks == {
        f"{above}test/{kind}/000.png": (f"{above}ground_truth/{kind}/000_mask.png",)
        for kind in ("crack", "hole")
    }


def test_several_masks_of_an_image_and_masks_without_one() -> None:
    paths = ("train/good/0.png", "validation/good/0.png", "test/logical/007.png")
    masks = ("ground_truth/logical/007/000.png", "ground_truth/logical/007/001.png")
    layout = understand((*paths, *masks, "ground_truth/logical/008/000.png"), "d")
    assert layout.masks == {"test/logical/007.png": masks}
    assert left_out(layout) == ["validation/good/0.png", "ground_truth/logical/008/000.png"]


def test_masks_beside_their_images_are_told_by_their_names() -> None:
    layout = understand(["part_1.png", "part_1_GT.png", "part_2.png", "light_mask.png"], "d")
    # Nothing is called light.
    assert layout.normals == ("light_mask.png", "part_1.png", "part_2.png")
    assert layout.masks == {"part_1.png": ("part_1_GT.png",)}


def test_a_mask_that_fits_normals_too_is_a_defects() -> None:
    layout = understand(["good/1.png", "bent/1.png", "masks/1.png"], "d")
    assert layout.masks == {"bent/1.png": ("masks/1.png",)}
    layout = understand(["good/1.png", "bent/1.png", "torn/1.png", "masks/1.png"], "d")
    assert not layout.masks and left_out(layout) == ["masks/1.png"]


def test_images_whose_folders_say_nothing_are_all_normal_if_asked() -> None:
    assert understand(["a.png", "b.png"], "d").normals == ("a.png", "b.png")
    assert understand(["monday/a.png"], "d").normals == ("monday/a.png",)
    layout = understand(["monday/a.png", "tuesday/b.png", "c.png"], "d")
    assert layout.normal is None and layout.normals == ()
    assert all_normal(layout, "d").normals == ("c.png", "monday/a.png", "tuesday/b.png")


@pytest.mark.parametrize("name", [*DEFECT_NAMES, "Defects", "test"])
def test_defects_without_a_folder_of_normals_are_not_taken_for_normal(name: str, refuses) -> None:
    for others in ("monday/a.png", "a.png"):
        layout = understand([others, f"{name}/b.png"], "d")
        refuses(["d: ", f"holds {name}/", "good", "--normal_class"], all_normal, layout, "d")
    layout = understand(["monday/a.png", f"{name}/b.png"], "d")
    assert choose(layout, "monday", "d").normals == ("monday/a.png",)


def test_defects_alone_are_not_taken_for_normal(refuses) -> None:
    refuses(["defects/"], all_normal, understand(["defects/a.png"], "d"), "d")


def test_the_normal_class_can_be_chosen_by_name_or_number(refuses) -> None:
    layout = understand(["cat/1.png", "dog/2.png", "dog/3.png"], "d")
    for name in ("dog", "1"):
        chosen = choose(layout, name, "d")
        assert chosen.normals == ("dog/2.png", "dog/3.png")
        assert chosen.defects == {"cat": ("cat/1.png",)}
    refuses(["'bird'", "0 (cat), 1 (dog)"], choose, layout, "bird", "d")
    tiles = choose(understand(TILES, "d"), "crack", "d")
    assert tiles.normals == ("defects/crack/2.jpg",) and set(tiles.defects) == {"blowhole", "good"}
    parts = understand(["train/cat/1.png", "train/dog/1.png", "test/ant/1.png"], "d")
    assert choose(parts, "cat", "d").known_defects == {"dog": ("train/dog/1.png",)}
    refuses(["'ant'", "no training images"], choose, parts, "ant", "d")


def test_an_image_in_no_class_is_left_out_by_name() -> None:
    layout = understand(["overview.png", *TILES], "d")
    assert left_out(layout) == ["overview.png"]
    assert "overview.png" in images_to_score(layout)[0]


def test_defects_in_train_beside_good_are_known_and_not_normal() -> None:
    layout = understand(["train/good/1.png", "train/bad/2.png", "test/bad/3.png"], "d")
    assert layout.normals == ("train/good/1.png",)
    assert layout.known_defects == {"bad": ("train/bad/2.png",)}
    assert layout.defects == {"bad": ("test/bad/3.png",)}


@pytest.mark.parametrize(("train", "test"), [("ok", "ok"), ("parts", "good"), ("OK", "normal")])
def test_the_normals_of_train_and_test_are_one_class(train: str, test: str) -> None:
    layout = understand([f"train/{train}/1.png", f"test/{test}/2.png", "test/ko/3.png"], "d")
    assert layout.test_normals == (f"test/{test}/2.png",)
    assert layout.classes == tuple(sorted(("ko", train)))


def test_good_and_test_without_train() -> None:
    layout = understand(["good/1.png", "test/good/2.png", "test/bent/3.png"], "d")
    assert layout.normals == ("good/1.png",) and layout.test_normals == ("test/good/2.png",)
    assert layout.defects == {"bent": ("test/bent/3.png",)}


def test_good_within_other_folders() -> None:
    layout = understand(["a/good/1.png", "a/bad/2.png", "b/good/3.png", "b/defects/tear/4.png"], "")
    assert layout.normals == ("a/good/1.png", "b/good/3.png")
    assert layout.defects == {"bad": ("a/bad/2.png",), "tear": ("b/defects/tear/4.png",)}


def test_refusals(refuses) -> None:
    refuses(["d: ", "masks (masks/1.png", "no images"], understand, ["masks/1.png"], "d")
    categories = [f"{name}/{path}" for name in ("bottle", "cable") for path in MVTEC]
    refuses(["d: ", "2 data sets", "bottle, cable"], understand, categories, "d")
    # A class of pictures of trains is none.
    assert understand(["cars/train/1.png", "cars/bus/1.png", "art/a.png"], "d").classes


def test_the_test_part_is_what_is_scored() -> None:
    paths, rest = images_to_score(understand(MVTEC, "d"))
    assert paths == tuple(sorted(MVTEC[2:5]))
    assert {item.path for item in rest} == set(MVTEC[:2])
    assert images_to_score(understand(TILES, "d"))[0] == TILES[:4]
    assert images_to_score(understand(["train/a.png", "train/b.png"], "d"))[0]


def test_nothing_is_lost() -> None:
    paths = [
        *(f"{part}/{name}/{i}.png" for part in ("train", "test", "val") for name in ("good", "bad")
          for i in range(2)),
        *("1.png", "train/2.png", "test/3.png", "masks/bad/1.png", "ground_truth/x.png"),
    ]  # fmt: skip
    for some in (paths, paths[2:], paths[4:], paths[8:], paths[12:]):
        layout = understand(some, "d")
        used = [*layout.train.values(), *layout.test.values(), *layout.masks.values()]
        found = [*(path for group in used for path in group), *left_out(layout)]
        assert sorted(found) == sorted(some)
        scored, rest = images_to_score(layout)
        masks = [path for group in layout.masks.values() for path in group]
        assert sorted([*scored, *masks, *(item.path for item in rest)]) == sorted(some)
