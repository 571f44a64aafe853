"""Programs that one process has compiled, taken by the next one."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

import deepsvdd_jax as svdd

# Prints how many programs jax took from the folder while a table was fitted.
FIT = """
import sys
import jax.monitoring
import numpy as np
import deepsvdd_jax as svdd

taken = []
jax.monitoring.register_event_listener(
    lambda event, **rest: taken.append(event) if event.endswith("cache_hits") else None
)
if sys.argv[1:]:
    svdd.keep_compiled_programs(sys.argv[1])
table = np.random.RandomState(0).randn(40, 3)
detector = svdd.DeepSVDD(epochs=2, n_seeds=1).fit(table)
print(len(taken), *map(float.hex, detector.score_samples(table[:3]).tolist()))
"""


@pytest.mark.slow
def test_a_second_process_takes_the_programs_of_the_first(tmp_path: Path) -> None:
    def fit(*folder: str) -> list[str]:
        call = [sys.executable, "-c", FIT, *folder]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        return done.stdout.split()

    (first, *scores), (second, *again) = fit(str(tmp_path)), fit(str(tmp_path))
    assert int(first) == 0 and int(second) >= 3
    _, *without = fit()
    assert again == scores == without


def test_the_folder_is_this_processors_and_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = jax.config.jax_compilation_cache_dir
    try:
        folder = svdd.keep_compiled_programs(tmp_path / "kept")
        assert folder.is_dir() and folder.parent == tmp_path / "kept"
        assert jax.config.jax_compilation_cache_dir == str(folder)
        text = "model name : another\nflags : none\n"
        monkeypatch.setattr(Path, "read_text", lambda path, **_: text)
        assert svdd.keep_compiled_programs(tmp_path / "kept") != folder
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            svdd.keep_compiled_programs(tmp_path / "file")
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HOME", "")
        with pytest.raises(FileNotFoundError, match="give a folder"):
            svdd.keep_compiled_programs()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
