"""Free memory, as the operating system tells it."""

from pathlib import Path

from deepsvdd_jax.datasets.memory import available_memory


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9000 kB\nMemAvailable:   2000 kB\n")
    assert available_memory(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert available_memory(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("6000\n")
    assert available_memory(meminfo, tmp_path) == 1000
    assert available_memory(tmp_path / "none", tmp_path) == 1000
    (tmp_path / "memory.max").write_text("4000\n")
    assert available_memory(meminfo, tmp_path) == 0


def test_nothing_is_made_up(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "none", tmp_path) is None
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) is None


def test_this_machine_has_some() -> None:
    assert (available_memory() or 1) > 0
