"""What a bar shows while programs are compiled."""

import io

import pytest
from tqdm import tqdm

from deepsvdd_jax.cli import bars


def test_a_bar_says_what_is_compiled_and_its_clock_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    for clock in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(clock, lambda: now)
    written = io.StringIO()
    bar = tqdm(total=10, desc="dcae", file=written, mininterval=0.5)
    show = bars.show_compilation(bar)
    show(0, 4)
    now += 35
    show(2, 4)
    assert "compiling, 2 of 4 programs, 35 s" in written.getvalue()
    now += 25
    show(4, 4)
    now += 2
    bar.update(1)
    bar.refresh()
    line = written.getvalue().rpartition("\r")[2]
    # Two seconds an epoch, nine are left: the minute of the compiler is no part of it.
    assert "compiling" not in line and "00:02<00:18" in line
    bar.close()


def test_a_silent_bar_compiles_silently() -> None:
    written = io.StringIO()
    show = bars.show_compilation(tqdm(total=0, disable=True, file=written))
    show(0, 3)
    show(3, 3)
    assert not written.getvalue()
