"""The devices benchmark: what each process times, and the smallest time beside that of its like."""

import subprocess
import sys

import pytest

from benchmarks import devices


class Worker:
    """Stands for a process: answers what it times, then a time for each name, faster at last."""

    def __init__(self, count: int, images: int) -> None:
        self.names = [subject.name for subject in devices.subjects(count)]
        self.count, self.asked, self.killed = count, 0, False

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        assert self.killed


def answer(worker: Worker, name: str | None = None) -> object:
    if name is None:
        return worker.names
    assert name in worker.names
    worker.asked += 1
    return (6.0 - (worker.asked - 1) // len(worker.names)) / worker.count


def test_the_smallest_of_the_repeats_is_compared_with_its_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "start_worker", Worker)
    monkeypatch.setattr(devices, "ask", answer)
    found = devices.measure((1, 2), 200, 3)
    assert found["one run, batches split", 2] == 2.0 and found["one run", 1] == 4.0
    assert set(found) == {
        *((name, 1) for name in ("16 runs", "one run", "one run, streamed")),
        *((name, 2) for name in ("16 runs", "one run, batches split")),
    }
    lines = devices.report(found, 200).splitlines()
    assert "| one run, batches split | 2 | 2.0000 | 0.50 |" in lines
    assert "| 16 runs | 1 | 4.0000 | 1.00 |" in lines and len(lines) == 8


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--devices=3", "--devices=3 must be 2 or more and divide 200"),
        pytest.param(
            *("--repeats=0", "flag --repeats=0: 0 is not a positive integer"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_command_refuses_in_a_line(flag: str, reason: str) -> None:
    command = [sys.executable, "-m", "benchmarks.devices", flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and not done.stdout
    assert reason in done.stderr and "Traceback" not in done.stderr
