"""A user's jax settings change nothing: types are written down, so that scores are the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys

import jax
import numpy as np

import deepsvdd_jax as svdd
from deepsvdd_jax.configs import DetectorConfig, replace_at
from deepsvdd_jax.detectors import deep_svdd, export
from deepsvdd_jax.io import models
from deepsvdd_jax.runs import streamed

random = np.random.RandomState(0)
table, images = random.randn(60, 4), random.rand(40, 8, 8, 1).astype(np.float32)
fitted = svdd.DeepSVDD(epochs=2, n_seeds=2, pretrain_epochs=1).fit(table)
found = {"pretrained": fitted.score_samples(table), "p": fitted.p_values(table)}


def run(shape, changes):
    config = svdd.preset("auto", "array", shape)
    changes = {"training.epochs": 3, "training.optimizer.milestones": (1,)} | changes
    for path, value in changes.items():
        config = replace_at(config, path, value)
    return config


for rule, center, optimizer in (
    ("quantile", "fixed", "amsgrad_torch"),
    ("block-coordinate", "dual", "adam"),
    ("gradient", "gradient", "rmsprop"),
):
    config = run((4,), {
        "training.objective.kind": "soft-boundary",
        "training.objective.radius_rule": rule,
        "training.objective.center_rule": center,
        "training.objective.warm_up_epochs": 1,
        "training.optimizer.name": optimizer,
        "training.optimizer.decay_after_epoch": 1,
    })
    model, _ = deep_svdd.fit_detector(DetectorConfig(config, (0,)), table)
    found[rule] = deep_svdd.score_images(model, table)

config = run((8, 8, 1), {"preprocessing.contrast": "l1", "network.dropout": 0.2})
model, _ = deep_svdd.fit_detector(DetectorConfig(config, (0, 1)), images)
models.save_model(sys.argv[1] + ".model", model)
model = models.load_model(sys.argv[1] + ".model")
found["images"] = deep_svdd.score_images(model, images)
exported = jax.export.deserialize(bytearray(export.export_model(model, ("cpu",))))
found["exported"] = np.asarray(exported.call(images))
keys = jax.random.split(jax.random.key(0), 2)
outcome, _ = svdd.train_runs(keys, config, images, images, engine=streamed.engine(20_000))
found["streamed"] = np.asarray(outcome.test_distances)
np.savez(sys.argv[1], **found)
"""

SWEEP = (
    *("-m", "experiments.sweep", "--normal_classes=0", "--seeds=1", "--epochs=1"),
    *("--pretrain_epochs=1", "--methods=soft_boundary,kde", "--warm_up_epochs=0"),
)


def test_scores_do_not_depend_on_x64(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for name, value in (("x32", "0"), ("x64", "1")):
        settings = {"JAX_ENABLE_X64": value, "PYTHONPATH": str(ROOT)}
        for arguments in (
            (str(script), str(tmp_path / name)),
            (*SWEEP, f"--out={tmp_path / name}"),
        ):
            command = [sys.executable, *arguments]
            done = subprocess.run(
                command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr[-2000:]
    expected, found = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("x32", "x64"))
    assert len(expected) == 8
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, rtol=1e-4, atol=1e-6, err_msg=name)
        assert found[name].dtype == scores.dtype, name
    files = sorted((tmp_path / "x32" / "scores").glob("*.npz"))
    assert len(files) == 2
    for file in files:
        expected, found = (
            np.load(tmp_path / name / "scores" / file.name) for name in ("x32", "x64")
        )
        np.testing.assert_allclose(
            found["scores"], expected["scores"], rtol=1e-4, err_msg=file.name
        )
