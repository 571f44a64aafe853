"""Which files of a folder are new and whole."""

import os
from pathlib import Path

from deepsvdd_jax.cli.arrivals import Stamp, settled, stamps


def test_stamps_follow_size_and_time_and_skip_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "a.png"
    path.write_bytes(b"12")
    os.utime(path, ns=(5, 7))
    found = stamps([path, tmp_path / "gone.png"], tmp_path)
    assert found == {"sub/a.png": Stamp(2, 7)}


def test_only_new_files_that_stayed_the_same_are_ready_oldest_first() -> None:
    now = {
        "late": Stamp(1, 9),
        "early": Stamp(1, 3),
        "growing": Stamp(5, 4),
        "empty": Stamp(0, 1),
        "first seen": Stamp(1, 1),
        "scored": Stamp(1, 2),
    }
    before = now | {"growing": Stamp(4, 4)}
    del before["first seen"]
    assert settled(before, now, {"scored": None}) == ["early", "late"]
