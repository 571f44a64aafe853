"""The exported scorer: alone in a fresh process, for any batch, equal to the model's own scores."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from deepsvdd_jax import detectors, recipes
from deepsvdd_jax.configs import DetectorConfig, replace_at
from deepsvdd_jax.detectors import export
from deepsvdd_jax.io.models import Model

SCRIPT = """
import sys
import jax
import numpy as np
with open(sys.argv[1], "rb") as file:
    scorer = jax.export.deserialize(bytearray(file.read()))
images = np.load(sys.argv[2])
for size in (1, 3, len(images)):
    np.save(sys.argv[3] + f"-{size}.npy", scorer.call(images[:size]))
assert not any(name.startswith("deepsvdd_jax") or name == "flax" for name in sys.modules)
"""

SOFT_BOUNDARY = {
    "training.objective.warm_up_epochs": 0,
    "training.objective.kind": "soft-boundary",
}


def fit(shape: tuple[int, ...], changes: Mapping[str, object], seeds: int) -> Model:
    config = recipes.preset("auto", "array", shape)
    for path, value in {"training.epochs": 2, "training.optimizer.milestones": ()}.items():
        config = replace_at(config, path, value)
    for path, value in changes.items():
        config = replace_at(config, path, value)
    images = np.random.RandomState(0).rand(40, *shape).astype(np.float32)
    model, _ = detectors.fit_detector(DetectorConfig(config, tuple(range(seeds))), images)
    return model


@pytest.mark.parametrize(
    ("shape", "changes", "seeds"),
    [
        pytest.param((8, 8, 1), {"preprocessing.contrast": "l1"}, 2, marks=pytest.mark.slow),
        pytest.param(
            *((8, 8, 1), {"preprocessing.contrast": "l2", "preprocessing.zca": True}, 1),
            marks=pytest.mark.slow,
        ),
        pytest.param((8, 8, 3), {"preprocessing.contrast": "std"}, 1, marks=pytest.mark.slow),
        pytest.param((8, 8, 1), SOFT_BOUNDARY, 2, marks=pytest.mark.slow),
        ((5,), {}, 3),
    ],
)
def test_scores_are_the_models(
    shape: tuple[int, ...], changes: Mapping[str, object], seeds: int
) -> None:
    model = fit(shape, changes, seeds)
    images = np.random.RandomState(1).rand(7, *shape).astype(np.float32)
    images[3] = 0.5
    expected = detectors.score_images(model, images)
    np.testing.assert_allclose(export.scores(model, images), expected, rtol=2e-4, atol=1e-6)


def test_the_file_runs_with_jax_alone(tmp_path: Path) -> None:
    model = fit((8, 8, 1), SOFT_BOUNDARY, 2)
    (tmp_path / "scorer").write_bytes(export.export_model(model))
    images = np.random.RandomState(1).rand(5, 8, 8, 1).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    arguments = [tmp_path / "scorer", tmp_path / "images.npy", tmp_path / "scores"]
    subprocess.run([sys.executable, script, *arguments], check=True, cwd=tmp_path)
    expected = detectors.score_images(model, images)
    for size in (1, 3, 5):
        found = np.load(tmp_path / f"scores-{size}.npy")
        np.testing.assert_allclose(found, expected[:size], rtol=2e-4)
