import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import image_files, iter_images, load, one_class_split
from deepsvdd_jax.datasets.formats import images
from deepsvdd_jax.datasets.formats.images import decode_image


def encode(array, suffix="png", **options):
    stream = io.BytesIO()
    name = {"jpg": "jpeg", "tif": "tiff", "ppm": "ppm", "pgm": "ppm"}.get(suffix, suffix)
    Image.fromarray(array).save(stream, name, **options)
    return stream.getvalue()


def save(path, value=0, shape=(4, 6, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(np.full(shape, value, np.uint8), path.suffix[1:].lower()))


RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GRAY = RGB[..., 0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_formats_are_exact(suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    np.testing.assert_array_equal(decode_image(encode(RGB, suffix, **options), ""), RGB)


def test_jpeg_and_gif_are_read():
    flat = np.full((8, 8, 3), 100, np.uint8)
    assert np.abs(decode_image(encode(flat, "jpg"), "").astype(int) - 100).max() <= 2
    np.testing.assert_array_equal(decode_image(encode(GRAY, "gif"), "")[..., 0], GRAY)


def test_channels_convert():
    np.testing.assert_array_equal(decode_image(encode(GRAY), ""), GRAY[..., None])
    repeated = np.repeat(GRAY[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(encode(GRAY), "", channels=3), repeated)
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    found = decode_image(encode(RGB), "", channels=1)
    assert found.shape == (5, 7, 1)
    assert np.abs(found[..., 0] - luma).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_values(suffix):
    wide = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    found = decode_image(encode(wide, suffix), "")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[..., 0], wide)
    in_color = decode_image(encode(wide, suffix), "", channels=3)
    np.testing.assert_array_equal(in_color, np.repeat(wide[..., None], 3, axis=2))


def test_transparent_pixels_are_laid_over_black():
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    found = decode_image(encode(rgba), "")
    assert found.shape == (1, 3, 3)
    np.testing.assert_array_equal(found[0, :2], [[200, 100, 50], [0, 0, 0]])
    assert np.abs(found[0, 2].astype(int) - [100, 50, 25]).max() <= 1


def test_gray_with_alpha_stays_gray():
    found = decode_image(encode(np.array([[[200, 255], [200, 0]]], np.uint8)), "")
    np.testing.assert_array_equal(found, [[[200], [0]]])


def test_the_orientation_of_a_camera_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode_image(encode(RGB, exif=exif), "")
    np.testing.assert_array_equal(found, np.rot90(RGB, -1))


def test_floating_point_pixels_that_are_no_numbers_are_refused(refuses):
    data = encode(np.array([[0.0, np.nan]], np.float32), "tif")
    refuses(["a.tif", "NaN or infinite"], decode_image, data, "a.tif")


@pytest.mark.parametrize("data", [b"", b"not an image", encode(RGB)[:60], encode(RGB, "jpg")[:300]])
def test_damaged_images_are_named(data, refuses):
    refuses(["a.png", "damaged"], decode_image, data, "a.png")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(side, refuses):
    def chunk(kind, data):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    refuses(["a.png", "too many pixels", "--max_megapixels"], decode_image, data, "a.png")


@pytest.fixture
def large():
    """Two million pixels, and one."""
    return encode(np.zeros((1000, 2001), np.uint8)), encode(np.zeros((1000, 1000), np.uint8))


def test_more_pixels_are_read_if_asked(large, monkeypatch, refuses):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    refuses(["too many pixels"], decode_image, large[0], "")
    refuses(["too many pixels"], decode_image, large[0], "", megapixels=2)
    assert decode_image(large[0], "", megapixels=3).shape == (1000, 2001, 1)
    # What one call allows holds for this call.
    assert Image.MAX_IMAGE_PIXELS == 1_000_000
    refuses(["too many pixels"], decode_image, large[0], "")


def test_fewer_pixels_may_be_allowed(large, refuses):
    assert decode_image(large[1], "", megapixels=1).shape == (1000, 1000, 1)
    refuses(["too many pixels"], decode_image, large[0], "", megapixels=1)


def test_an_image_that_memory_does_not_hold_is_refused(large, monkeypatch, refuses):
    monkeypatch.setattr(images, "SMALL_BYTES", 1_000_000)
    monkeypatch.setattr(images.memory, "available_memory", lambda: 20_000_000)
    assert decode_image(large[1], "").shape == (1000, 1000, 1)
    refuses(["a.png", "2001 x 1000", "0.0 GB are free"], decode_image, large[0], "a.png")
    monkeypatch.setattr(images.memory, "available_memory", lambda: None)
    assert decode_image(large[0], "").shape == (1000, 2001, 1)


def test_image_files_are_sorted_recursive_and_without_hidden_ones(tmp_path, refuses):
    for name in ("b.png", "a/z.JPG", "a/c.tif", ".hidden.png", ".git/x.png", "a/._c.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a/c.tif", "a/z.JPG", "b.png"]
    refuses(["b.png", "not a folder"], image_files, tmp_path / "b.png")


def test_iter_images_streams_batches(tmp_path):
    for index in range(5):
        save(tmp_path / f"{index}.png", index)
    batches = list(iter_images(image_files(tmp_path), (2, 3), 1, batch_size=2))
    assert [images.shape for _, images in batches] == [(2, 2, 3, 1), (2, 2, 3, 1), (1, 2, 3, 1)]
    assert [name for names, _ in batches for name in names] == [
        str(tmp_path / f"{index}.png") for index in range(5)
    ]
    assert [int(image[0, 0, 0]) for _, images in batches for image in images] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_files_of_several_images_are_told(tmp_path, caplog, suffix):
    pages = [Image.fromarray(np.full((4, 6, 3), 40 * i, np.uint8)) for i in range(4)]
    options = {"lossless": True} if suffix == "webp" else {}
    pages[1].save(tmp_path / f"1.{suffix}", **options)
    list(iter_images(image_files(tmp_path)))
    assert not caplog.text
    for name in ("2", "3"):
        pages[1].save(
            tmp_path / f"{name}.{suffix}", save_all=True, append_images=pages[2:], **options
        )
    ((_, found),) = iter_images(image_files(tmp_path))
    np.testing.assert_array_equal(found, np.full((3, 4, 6, 3), 40))
    assert "2 files hold several images" in caplog.text and f"2.{suffix}, ..." in caplog.text


def test_an_image_before_a_damaged_one_is_read(tmp_path):
    pages = [Image.fromarray(np.full((40, 60, 3), 40 * i, np.uint8)) for i in range(3)]
    stream = io.BytesIO()
    pages[1].save(stream, "gif", save_all=True, append_images=pages[2:])
    for cut in range(1, 40):
        found = decode_image(stream.getvalue()[:-cut], "")
        np.testing.assert_array_equal(found, np.full((40, 60, 3), 40))


def test_iter_images_skips_unreadable_files_only_when_asked(tmp_path, refuses, caplog):
    save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"broken")
    save(tmp_path / "c.png", 3)
    paths = [*image_files(tmp_path), tmp_path / "gone.png"]
    refuses(["b.png"], lambda: list(iter_images(paths)))
    ((names, images),) = iter_images(paths, skip_unreadable=True)
    assert names == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    np.testing.assert_array_equal(images[:, 0, 0, 0], [1, 3])
    assert "b.png" in caplog.text and "gone.png" in caplog.text


def test_images_in_train_are_normal(tmp_path):
    for name in ("train/b.png", "train/a.jpg", "test/good/1.png", "test/normal/0.png"):
        save(tmp_path / name)
    save(tmp_path / "test/scratch/deep/1.png", 9)
    save(tmp_path / "test/bent/1.png", 7)
    dataset = load(DataConfig("folder", str(tmp_path)))
    assert dataset.class_names == ("normal", "bent", "scratch")
    assert dataset.x_train.shape == (2, 4, 6, 3)
    assert dataset.train_names == ("a.jpg", "b.png")
    by_name = dict(zip(dataset.test_names, dataset.y_test.tolist(), strict=True))
    assert by_name == {
        "good/1.png": 0,
        "normal/0.png": 0,
        "bent/1.png": 1,
        "scratch/deep/1.png": 2,
    }
    values = dict(zip(dataset.test_names, dataset.x_test[:, 0, 0, 0].tolist(), strict=True))
    assert values["bent/1.png"] == 7 and values["scratch/deep/1.png"] == 9
    assert one_class_split(dataset, 0).test_labels.sum() == 2


def test_class_folders_are_the_sorted_union(tmp_path):
    for name in ("train/dog/1.png", "train/cat/1.png", "test/dog/1.png", "test/ant/1.png"):
        save(tmp_path / name)
    dataset = load(DataConfig("folder", str(tmp_path)))
    assert dataset.class_names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(dataset.y_train, [1, 2])
    np.testing.assert_array_equal(dataset.y_test, [0, 2])


def test_images_are_resized_and_converted(tmp_path):
    save(tmp_path / "train/a.png", 5)
    save(tmp_path / "train/b.png", 5, (9, 3))
    dataset = load(DataConfig("folder", str(tmp_path), image_size=(2, 8), channels=1))
    np.testing.assert_array_equal(dataset.x_train, np.full((2, 2, 8, 1), 5, np.uint8))
    assert dataset.x_test.shape == (0, 2, 8, 1)


@pytest.mark.parametrize("shape, word", [((5, 6, 3), "5x6"), ((4, 6), "1 channel")])
def test_the_first_differing_shape_is_named(tmp_path, shape, word, refuses):
    save(tmp_path / "train/a.png")
    save(tmp_path / "train/b.png")
    save(tmp_path / "test/odd/c.png", 0, shape)
    refuses(
        ["c.png", word, "a.png", "4x6", "3 channel", "--image_size"],
        load,
        DataConfig("folder", str(tmp_path)),
    )


def test_folder_refusals(tmp_path, refuses):
    config = DataConfig("folder", str(tmp_path))
    refuses(["--data_dir"], load, DataConfig("folder"))
    refuses(["no images"], load, config)
    refuses(["/none: no such folder"], load, DataConfig("folder", f"{tmp_path}/none"))
    (tmp_path / "t.CSV").write_text("a\n1\n")
    refuses(
        ["t.CSV", "not a folder", "--dataset=csv"], load, DataConfig("folder", f"{tmp_path}/t.CSV")
    )
    (tmp_path / "train").mkdir()
    refuses(["no images", "1 file left out", "t.CSV"], load, config)
    save(tmp_path / "train/a.png")
    save(tmp_path / "test/stray.png")
    refuses(["stray.png", "without a class"], load, config)
    save(tmp_path / "train/class/a.png")
    refuses(["a.png", "class", "one or the other"], load, config)


def test_a_corrupt_file_in_a_folder_is_named(tmp_path, refuses):
    save(tmp_path / "train/a.png")
    (tmp_path / "train/b.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    refuses(["b.jpg", "damaged"], load, DataConfig("folder", str(tmp_path)))


def _png(kind: int, depth: int, channels: int) -> bytes:
    """A PNG of 4 x 3 pixels, written by hand: Pillow writes no colour of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    row = b"\0" + bytes(range(4 * channels * depth // 8))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, depth, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(3 * row))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "depth", "channels", "told"),
    [(2, 16, 3, True), (4, 16, 2, True), (6, 16, 4, True), (0, 16, 1, False), (2, 8, 3, False)],
)
def test_colour_of_sixteen_bits_is_told_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: int,
    depth: int,
    channels: int,
    told: bool,
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(_png(kind, depth, channels))
    batches = list(iter_images([tmp_path / "a.png", tmp_path / "b.png"]))
    assert len(batches[0][0]) == 2
    lines = [record.getMessage() for record in caplog.records if "16 bits" in record.getMessage()]
    assert len(lines) == told
    if told:
        assert lines[0].startswith("2 files are PNG of 16 bits") and "a.png, ..." in lines[0]
