"""Which files below a folder are images, and what is said of the others."""

import os
import socket
from pathlib import Path

import pytest

from deepsvdd_jax.datasets import DataError, describe_left_out, find_images, image_files
from deepsvdd_jax.datasets.formats.images import is_image_name
from deepsvdd_jax.datasets.layout import LeftOut


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def reasons(root: Path) -> dict[str, str]:
    return dict(find_images(root).left_out)


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.png", "store/deep/2.png", "data/a.png")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "store" / "1.png")
    found = find_images(tmp_path / "data")
    assert found.images == ("a.png", "b.png", "more/1.png", "more/deep/2.png")
    assert not found.left_out


def test_loops_end_and_no_folder_counts_twice(tmp_path: Path) -> None:
    touch(tmp_path, "z/1.png", "z/deep/2.png")
    (tmp_path / "z" / "deep" / "up").symlink_to("..")
    (tmp_path / "z" / "self").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "endless").symlink_to("endless")
    found = find_images(tmp_path)
    assert found.images == ("z/1.png", "z/deep/2.png")
    assert set(reasons(tmp_path)) == {"a", "endless", "z/deep/up", "z/self"}
    assert "leads nowhere" in reasons(tmp_path)["endless"]
    assert all("already" in reasons(tmp_path)[name] for name in ("a", "z/deep/up", "z/self"))


@pytest.mark.parametrize(
    "ending",
    ["png", "JPG", "jfif", "jpe", "Tiff", "webp", "jp2", "tga", "mpo", "pnm", "ico", "dib"],
)
def test_endings_that_pillow_reads(ending: str) -> None:
    assert is_image_name(f"a.{ending}")


@pytest.mark.parametrize("name", ["a.eps", "a.ps", "a.wmf", "a.h5", "a.mpg", "a.pdf", "png", "a"])
def test_endings_of_no_image_or_of_another_program(name: str) -> None:
    assert not is_image_name(name)


def test_what_is_no_image_is_left_out_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.png", "notes.txt", ".hidden.png", ".git/b.png", "c.heic", "x.png/in.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # The path of a socket has at most 107 bytes.
        listening.bind("socket.png")
        found = find_images(tmp_path)
    # A folder may be named as images are.
    assert found.images == ("a.png", "x.png/in.png")
    assert dict(found.left_out) == {
        "notes.txt": "no image by its ending",
        "c.heic": "no image by its ending",
        ".hidden.png": "hidden",
        ".git": "hidden",
        "gone.png": "a link that leads nowhere",
        "pipe.png": "no regular file",
        "socket.png": "no regular file",
    }


def test_the_line_on_what_is_left_out() -> None:
    some = [LeftOut(f"{i}.txt", "no image by its ending") for i in range(3)]
    line = describe_left_out([LeftOut("a\n\x1b[2J\udcff.png", "hidden"), *some])
    assert line == (
        "4 files left out: 3 no image by its ending (0.txt, 1.txt, ...); "
        "1 hidden (a\\n\\x1b[2J\\udcff.png)"
    )
    assert describe_left_out(some[:1]).startswith("1 file left out: 1 no image")
    many = [LeftOut(f"{i}", f"reason {i}") for i in range(9)]
    assert describe_left_out(many).endswith("1 reason 3 (3); ...")


def test_images_are_sorted_folder_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.b/1.png", "a/z.png", "a.png", "B.png")
    assert find_images(tmp_path).images == ("B.png", "a/z.png", "a.b/1.png", "a.png")
    assert [path.name for path in image_files(tmp_path, recursive=False)] == ["B.png", "a.png"]


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        find_images(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        find_images(tmp_path / ("n" * 300))
    touch(tmp_path, "a.png")
    with pytest.raises(DataError, match="not a folder"):
        find_images(tmp_path / "a.png")
