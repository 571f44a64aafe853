"""A user's jax settings change nothing: types are written down, so that figures are the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import rows_of

ROOT = Path(__file__).parents[1]

ESTIMATOR = """
import sys
import numpy as np
import deepsvdd_jax as svdd

images = np.random.RandomState(0).rand(60, 8, 8, 1)
labels = np.where(np.arange(60) < 6, -1, 0)
estimator = svdd.DeepSVDD(epochs=2, n_seeds=1, objective="deep-sad").fit(images, labels)
np.save(sys.argv[1], estimator.score_samples(images))
"""

SWEEP = (
    *("--dataset=npz", "--methods=soft_boundary,dcae,ocsvm,kde,isolation_forest,knn"),
    *(
        "--network=mlp",
        "--hidden=6",
        "--normal_classes=0",
        "--seeds=1",
        "--epochs=4",
        "--milestones=2",
    ),
    *("--warm_up_epochs=1", "--pretrain_epochs=1", "--pretrain_milestones=", "--evaluate_every=2"),
    *("--save_models", "--compilation_cache="),
)


def run(x64: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"JAX_ENABLE_X64": x64, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_scores_do_not_depend_on_x64(tmp_path: Path) -> None:
    found = []
    for value in ("0", "1"):
        place = tmp_path / f"{value}.npy"
        run(value, "-c", ESTIMATOR, str(place))
        found.append(np.load(place))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.slow
def test_a_sweep_its_models_and_their_scores_do_not_depend_on_x64(tmp_path: Path) -> None:
    draws = np.random.RandomState(0)
    table, labels = draws.randn(120, 5), np.arange(120) % 2
    data = tmp_path / "table.npz"
    np.savez(data, x_train=table, y_train=labels, x_test=table + 1, y_test=labels)
    np.savez(tmp_path / "new.npz", x=draws.randn(9, 5))
    figures, scores = [], []
    for value in ("0", "1"):
        out = tmp_path / value
        run(value, "-m", "experiments.sweep", *SWEEP, f"--data_dir={data}", f"--out={out}")
        rows = rows_of(out / "runs.csv")
        assert len(rows) == 6
        figures.append([{**row, "train_seconds": ""} for row in rows])
        model = f"--model={out / 'models' / 'soft_boundary-class0-seed0'}"
        files = (f"--data_dir={tmp_path / 'new.npz'}", f"--out={out / 'scores.csv'}")
        run(value, "-m", "experiments.score", model, *files, "--compilation_cache=")
        scores.append((out / "scores.csv").read_text())
    assert figures[1] == figures[0] and scores[1] == scores[0]
