"""A user's jax settings change nothing: types are written down, so that scores are the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys
import numpy as np
import deepsvdd_jax as svdd

table = np.random.RandomState(0).randn(60, 4)
np.save(sys.argv[1], svdd.DeepSVDD(epochs=2, n_seeds=1).fit(table).score_samples(table))
"""


def test_scores_do_not_depend_on_x64(tmp_path: Path) -> None:
    found = []
    for value in ("0", "1"):
        place = tmp_path / f"{value}.npy"
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(place)],
            env=os.environ | {"JAX_ENABLE_X64": value, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(np.load(place))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
