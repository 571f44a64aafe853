import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load
from deepsvdd_jax.datasets.gtsrb import Annotation, crop_sign, parse_gtsrb_annotations

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def ppm(array):
    height, width, _ = array.shape
    return b"P6 %d %d 255\n" % (width, height) + array.tobytes()


def framed(color, box, size=(20, 30)):
    """An image of rows x columns that is white but for the box of columns and rows, inclusive."""
    image = np.full((*size, 3), 255, np.uint8)
    x1, y1, x2, y2 = box
    image[y1 : y2 + 1, x1 : x2 + 1] = color
    return ppm(image)


@pytest.fixture
def files():
    train = "GTSRB/Final_Training/Images/"
    return {
        train + "00003/00000_00000.ppm": framed((10, 20, 30), (4, 5, 24, 12)),
        train + "00003/00000_00001.ppm": framed((11, 21, 31), (1, 2, 10, 17)),
        train + "00003/GT-00003.csv": (
            HEADER + "00000_00000.ppm;30;20;4;5;24;12;3\n00000_00001.ppm;30;20;1;2;10;17;3\n"
        ).encode(),
        train + "00014/00000_00000.ppm": framed((12, 22, 32), (0, 0, 29, 19)),
        train + "00014/GT-00014.csv": (HEADER + "00000_00000.ppm;30;20;0;0;29;19;14\n").encode(),
        "GTSRB/Final_Test/Images/00000.ppm": framed((13, 23, 33), (6, 6, 6, 6)),
        "GTSRB/Final_Test/Images/GT-final_test.csv": (
            HEADER + "00000.ppm;30;20;6;6;6;6;14\n"
        ).encode(),
        "GTSRB/Readme.txt": b"not data",
    }


def write_folder(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def check(dataset, size):
    assert dataset.x_train.shape == (3, *size, 3) and dataset.x_train.dtype == np.uint8
    for image, color in zip(dataset.x_train, (10, 11, 12), strict=True):
        assert (image == (color, color + 10, color + 20)).all()
    assert (dataset.x_test == (13, 23, 33)).all()
    np.testing.assert_array_equal(dataset.y_train, [3, 3, 14])
    np.testing.assert_array_equal(dataset.y_test, [14])
    assert dataset.train_names == (
        "00003/00000_00000.ppm",
        "00003/00000_00001.ppm",
        "00014/00000_00000.ppm",
    )
    assert dataset.test_names == ("00000.ppm",)
    assert len(dataset.class_names) == 43 and dataset.class_names[14] == "stop"


@pytest.mark.parametrize("place", ["a.tar.gz", "gtsrb/b.tar", ".", "gtsrb"])
def test_archive_and_folder_give_exactly_the_annotated_boxes(tmp_path, files, place):
    if ".tar" in place:
        write_tar(tmp_path / place, files)
    else:
        write_folder(tmp_path / place, files)
    check(load(DataConfig("gtsrb", str(tmp_path))), (32, 32))
    check(load(DataConfig("gtsrb", str(tmp_path), image_size=(8, 12))), (8, 12))


def test_training_and_test_archives_may_be_separate(tmp_path, files):
    for word in ("Training", "Test"):
        part = {name: data for name, data in files.items() if f"Final_{word}" in name}
        write_tar(tmp_path / f"{word}.tar.gz", part)
    check(load(DataConfig("gtsrb", str(tmp_path))), (32, 32))


def test_the_box_is_scaled_where_the_image_was_shrunk():
    image = np.arange(10 * 10).reshape(10, 10, 1)
    annotation = Annotation("a.ppm", (20, 40), (4, 8, 15, 31), 0)
    np.testing.assert_array_equal(crop_sign(image, annotation), image[2:8, 2:8])
    tiny = Annotation("a.ppm", (100, 100), (99, 99, 99, 99), 0)
    np.testing.assert_array_equal(crop_sign(image, tiny), image[9:, 9:])


def test_missing_images_and_tables_are_named(tmp_path, files, refuses):
    name = "GTSRB/Final_Training/Images/00003/00000_00001.ppm"
    write_tar(tmp_path / "a.tar", {key: data for key, data in files.items() if key != name})
    refuses(["00003/00000_00001.ppm", "missing"], load, DataConfig("gtsrb", str(tmp_path)))
    write_tar(tmp_path / "a.tar", {key: data for key, data in files.items() if "Test" not in key})
    refuses(["Final_Test"], load, DataConfig("gtsrb", str(tmp_path)))


def test_a_damaged_image_is_named(tmp_path, files, refuses):
    name = "GTSRB/Final_Training/Images/00003/00000_00001.ppm"
    write_folder(tmp_path, files | {name: files[name][:100]})
    refuses(["00003/00000_00001.ppm", "damaged"], load, DataConfig("gtsrb", str(tmp_path)))


def test_nothing_there_says_what_is_expected(tmp_path, refuses):
    refuses(["Final_Training"], load, DataConfig("gtsrb", str(tmp_path)))
    refuses(["--data_dir"], load, DataConfig("gtsrb"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ["Filename is missing"]),
        ("Filename;Width\n", ["Height is missing"]),
        (HEADER + "a.ppm;30;20;5;5;24;24;3\n", ["line 2", "box"]),
        (HEADER + "a.ppm;30;20;5;5;4;10;3\n", ["line 2", "box"]),
        (HEADER + "a.ppm;30;20;5;5;30;10;3\n", ["line 2", "box"]),
        (HEADER + "a.ppm;30;20;5;5;9;9;43\n", ["ClassId is 43", "42"]),
        (HEADER + "a.ppm;30;20;5;x;9;9;3\n", ["Roi.Y1", "'x'"]),
        (HEADER + "a.ppm;30;20;5;-1;9;9;3\n", ["Roi.Y1", "'-1'"]),
        (HEADER + "a.ppm;30;20;5;5\n", ["Roi.X2"]),
        (HEADER + "a.ppm;30;20;5;5;9;9;3x\n", ["ClassId", "3x"]),
        (HEADER + "../a.ppm;30;20;5;5;9;9;3\n", ["Filename", "../a.ppm"]),
    ],
)
def test_annotation_refusals(text, words, refuses):
    refuses(["GT.csv", *words], parse_gtsrb_annotations, text, "GT.csv")


def test_odd_white_space_around_a_number_is_no_crash():
    (annotation,) = parse_gtsrb_annotations(HEADER + "a.ppm;30;20;5;5;9;9;3\x1c\n", "")
    assert annotation.label == 3


def test_annotations_are_read_by_the_names_of_their_columns():
    text = "ClassId;Filename;Roi.X1;Roi.X2;Roi.Y1;Roi.Y2;Height;Width\r\n7;a.ppm;1;2;3;4;50;60\r\n"
    assert parse_gtsrb_annotations(text, "") == [Annotation("a.ppm", (60, 50), (1, 3, 2, 4), 7)]


def test_shrinking_is_antialiased_bilinear():
    from deepsvdd_jax.datasets.formats.pixels import resize_image

    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    expected = Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize_image(image, (20, 30)), np.asarray(expected))
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    small = resize_image(stripes, (8, 8))
    assert np.abs(small.astype(int) - 127.5).max() < 12
