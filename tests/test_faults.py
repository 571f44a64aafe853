"""The benchmarks of faults and of saving: what they start, kill, compare and count."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest
from absl import flags

from benchmarks import faults, saving


@pytest.fixture
def values(
    calling: Callable[[ModuleType], AbstractContextManager[object]],
) -> Iterator[flags.FlagValues]:
    with calling(faults):
        flags.FLAGS.unparse_flags()
        yield flags.FLAGS


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


def test_processes_differ_in_their_number_only(values: flags.FlagValues) -> None:
    values(["faults", "--processes=2"])
    first, second = faults.commands(Path("out"))
    assert (first.pop(), second.pop()) == ("--process_id=0", "--process_id=1")
    assert first == second and "--num_processes=2" in first and "--distributed" in first
    assert set(faults.SWEEP) < {text.replace(",", ";") for text in first}
    values(
        [
            *("faults", "--processes=1", "--dataset=mnist", "--data_dir=d"),
            "--sweep=--seeds=2,--normal_classes=3;8",
        ]
    )
    (alone,) = faults.commands(Path("out"))
    assert alone[1:] == [
        *("-m", "benchmarks.saving", "--dataset=mnist", "--data_dir=d"),
        *("--seeds=2", "--normal_classes=3,8", "--save_models", "--out=out"),
    ]


def test_any_one_or_more_are_killed() -> None:
    draws = random.Random(0)
    drawn = {tuple(faults.draw_victims(draws, 2)) for _ in range(50)}
    assert drawn == {(0,), (1,), (0, 1)}
    assert faults.draw_victims(draws, 1) == [0]


def test_time_for_saving_is_counted_however_it_ends() -> None:
    watch = saving.Stopwatch()

    def save(seconds: float) -> float:
        time.sleep(seconds)
        return 1 / seconds

    timed = watch.timed(save)
    assert timed(0.02) == 50
    with pytest.raises(ZeroDivisionError):
        timed(seconds=0)
    assert watch.calls == 2 and 0.02 <= watch.seconds < 1
    watch.seconds = 0.5
    assert saving.report(watch, 25.0) == "saving: 0.50 of 25.0 s, 2.00 %, 2 times"


def test_the_savers_that_are_timed_are_there() -> None:
    assert all(callable(getattr(module, name)) for module, name in saving.SAVERS)


def test_every_sweep_has_a_line() -> None:
    assert faults.describe(3, 1.25, [0, 1], []) == (
        "sweep 3: killed 0, 1 after 1.2 s; nothing differs"
    )
    assert faults.describe(4, 9.0, [], ["runs.csv", "rows/a.json"]) == (
        "sweep 4: over before 9.0 s; runs.csv, rows/a.json differs"
    )


def test_sweeps_that_were_over_do_not_count(
    values: flags.FlagValues, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sweep takes 6 s where 10 were thought: only earlier moments find it at work."""
    values(["faults", "--kills=5"])
    moments: list[float] = []

    def run_killed(out: Path, after: float, victims: list[int]) -> bool:
        moments.append(after)
        (out / "rows").mkdir(parents=True)
        return after < 6.0

    contents = iter([{"a": 0}, {"a": 1}])
    monkeypatch.setattr(faults, "run_killed", run_killed)
    monkeypatch.setattr(faults, "run_whole", lambda out: (1.0, []))
    monkeypatch.setattr(faults, "content", lambda out: next(contents, {"a": 0}))
    assert faults.kill_and_compare(tmp_path, {"a": 0}, 10.0) == 1
    late = [moment for moment in moments if moment >= 6.0]
    assert len(moments) - len(late) == 5 and late and late == sorted(late, reverse=True)
    assert list(tmp_path.iterdir()) == []
