"""The fault benchmark: what it compares."""

from pathlib import Path

from benchmarks import faults


def write(folder: Path, seconds: str, auroc: str) -> Path:
    (folder / "rows").mkdir(parents=True)
    (folder / "runs.csv").write_text(f"auroc,train_seconds\n{auroc},{seconds}\n")
    (folder / "rows" / "a.json").write_text(
        "".join(['{\n "auroc": ', auroc, ',\n "train_seconds": ', seconds, "\n}"])
    )
    (folder / "scores.npz").write_bytes(b"scores")
    (folder / ".lock-0").write_bytes(seconds.encode())
    return folder


def test_time_is_no_difference_everything_else_is(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", "1.5", "0.9"), write(tmp_path / "2", "7.0", "0.9")
    assert faults.differences(faults.content(one), faults.content(two)) == []
    three = write(tmp_path / "3", "1.5", "0.8")
    (three / "more").write_bytes(b"")
    (three / "scores.npz").unlink()
    assert faults.differences(faults.content(one), faults.content(three)) == [
        "more",
        "rows/a.json",
        "runs.csv",
        "scores.npz",
    ]
