"""The scorer in ONNX: what onnxruntime computes is what the model does, on every network."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import detectors, recipes
from deepsvdd_jax.cli.commands import export as command
from deepsvdd_jax.configs import NetworkConfig, RunConfig, replace_at
from deepsvdd_jax.detectors import export_onnx
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.recipes.networks import NETWORKS

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

SHAPES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("mnist_lenet", "mnist_lenet_wide", "fashion_mnist_lenet", "itu_cnn"), (28, 28, 1)
    ),
    "fcdd_64": (64, 64, 3),
    "fcdd_128": (128, 128, 3),
    "lenet": (21, 26, 1),
    "mlp": (7,),
}
OBJECTIVES = ("soft-boundary", "reconstruction", "deep-sad", "hsc", "bce", "transformations")
needs_jax2onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not installed"
)


def drawn_model(config: RunConfig, shape: tuple[int, ...], members: int = 1) -> Model:
    """A model whose weights are drawn, biases and running averages included."""
    network = build_network(config.network, shape)
    needs_decoder = config.training.objective.kind == "reconstruction"
    abstract = jax.eval_shape(lambda: network.init(jax.random.key(0), needs_decoder))
    generator = np.random.default_rng(3)

    def draw(path: tuple[object, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        values = generator.normal(size=(members, *leaf.shape))
        if "var" in name:
            values = 1.0 + np.abs(values)
        elif len(leaf.shape) > 1:
            values = values / np.sqrt(np.prod(leaf.shape[:-1]))
        return values.astype(np.float32)

    params, statistics = (jax.tree_util.tree_map_with_path(draw, tree) for tree in abstract)
    batch = jax.ShapeDtypeStruct((1, *shape), np.float32)
    one = jax.tree.map(lambda leaf: leaf[0], (params, statistics))
    embedded = jax.eval_shape(lambda images: network.encode(*one, images), batch)
    return Model(
        config=config,
        image_shape=shape,
        feature_names=(),
        params=params,
        statistics=statistics,
        center=generator.normal(size=(members, embedded.shape[-1])).astype(np.float32),
        squared_radius=np.full(members, 0.5, np.float32),
        train_means=np.arange(1.0, 1.0 + members),
        shift=generator.normal(size=shape).astype(np.float32),
        scale=np.full(shape, 0.7, np.float32),
        whitening_mean=np.zeros(0),
        whitening_matrix=np.zeros((0, 0)),
        calibration_scores=np.sort(generator.gamma(5.0, 20.0, 30)).astype(np.float32),
        threshold=100.0,
        summary={"threshold_rule": "drawn"},
    )


def of_network(network: NetworkConfig, kind: str = "one-class") -> RunConfig:
    shape = SHAPES.get(network.name, (32, 32, 3))
    config = replace_at(recipes.preset("auto", "array", shape), "network", network)
    return replace_at(config, "training.objective.kind", kind)


def run(data: bytes, samples: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"samples": samples}))


def samples_like(model: Model, count: int) -> np.ndarray:
    shape = (count, *model.image_shape)
    return np.random.default_rng(5).normal(0.3, 1.0, shape).astype(np.float32)


def check_against_the_model(model: Model) -> None:
    data = export_onnx.export_onnx(model)
    samples = samples_like(model, 5)
    expected = detectors.score_images(model, samples)
    score, anomalous, p_value = run(data, samples)
    assert score.dtype == np.float32 and score.shape == (5,)
    size = np.abs(expected) + (0.5 if len(model.center) == 1 else 0.0)
    assert (np.abs(score - expected) <= 1e-5 * size).all()
    np.testing.assert_array_equal(anomalous, score > 100.0)
    # (1 + held-out scores at least as high) / (n + 1).
    at_least = (model.calibration_scores[None] >= score[:, None]).sum(axis=1)
    np.testing.assert_allclose(p_value, (1 + at_least) / 31, rtol=1e-6)
    # Any number of samples.
    assert abs(run(data, samples[2:3])[0].item() - expected[2]) <= 1e-5 * size[2]


@needs_jax2onnx
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("mlp", "lenet") else pytest.mark.slow)
        for name in NETWORKS
    ],
)
def test_scores_are_the_models_on_every_network(name: str) -> None:
    network = NETWORKS[name]
    kind = "fcdd" if network.fully_convolutional else "one-class"
    shape = SHAPES.get(name, (32, 32, 3))
    # An ensemble where that costs little.
    members = 3 if name == "mlp" else 1
    check_against_the_model(drawn_model(of_network(network, kind), shape, members))


@needs_jax2onnx
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_scores_are_the_models_with_every_objective(kind: str) -> None:
    config = of_network(NETWORKS["mnist_lenet"], kind)
    check_against_the_model(drawn_model(config, (28, 28, 1)))


@needs_jax2onnx
@pytest.mark.parametrize("contrast", ["l1", "l2", "std"])
def test_preprocessing_is_part_of_it(contrast: str) -> None:
    config = replace_at(of_network(NETWORKS["lenet"]), "preprocessing.contrast", contrast)
    model = drawn_model(config, (6, 6, 1))
    generator = np.random.default_rng(9)
    matrix = np.eye(36) + generator.normal(0.0, 0.01, (36, 36))
    model = model._replace(whitening_mean=generator.random(36), whitening_matrix=matrix)
    check_against_the_model(model)


@needs_jax2onnx
def test_a_model_without_calibration_gives_no_p_values() -> None:
    model = drawn_model(of_network(NETWORKS["mlp"]), (7,))
    model = model._replace(calibration_scores=np.zeros(0, np.float32))
    assert len(run(export_onnx.export_onnx(model), samples_like(model, 3))) == 2


@needs_jax2onnx
def test_a_sample_beyond_float32_is_anomalous() -> None:
    model = drawn_model(of_network(NETWORKS["mlp"]), (7,))
    samples = samples_like(model, 2)
    samples[1] = 1e30
    score, anomalous, p_value = run(export_onnx.export_onnx(model), samples)
    assert score[1] == np.finfo(np.float32).max and anomalous[1]
    assert p_value[1] == np.float32(1) / np.float32(31)


@needs_jax2onnx
def test_a_file_that_scores_otherwise_is_refused() -> None:
    model = drawn_model(of_network(NETWORKS["mlp"]), (7,))
    data = export_onnx.export_onnx(model)
    assert export_onnx.check(model, data) <= 1e-5
    moved = model._replace(center=model.center * np.float32(1.001))
    with pytest.raises(export_onnx.OnnxError, match="differ from the model's"):
        export_onnx.check(moved, data)


@needs_jax2onnx
def test_the_command_writes_a_file_and_a_script_that_need_no_jax(
    tmp_path: Path, calling: Calling, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    model = drawn_model(of_network(NETWORKS["lenet"]), (8, 8, 1))
    models.save_model(tmp_path / "parts.model", model)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    out = tmp_path / "scorer.onnx"
    with calling(command) as call:
        given = (f"--model={tmp_path / 'parts.model'}", "--format=onnx", f"--out={out}")
        assert call(*given) == 0
        assert "float32 [n, 8, 8, 1]" in capsys.readouterr().out
        # A file of ours is written over, another one is not.
        assert call(*given) == 0
        (tmp_path / "x.onnx").write_bytes(b"another")
        assert call(*given[:2], f"--out={tmp_path / 'x.onnx'}") == 2
        assert call(*given, "--platforms=cpu") == 2
        assert "platforms is for --format=stablehlo" in capsys.readouterr().err
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(metadata["deepsvdd_jax"])["threshold"] == 100.0
    blocked = "import sys; sys.modules['jax'] = None; sys.argv = sys.argv[1:]; import runpy; "
    start = blocked + "runpy.run_path(sys.argv[0], run_name='__main__')"
    script, image = str(tmp_path / "scorer.py"), str(tmp_path / "a.png")
    printed = subprocess.run(
        [sys.executable, "-c", start, script, image], capture_output=True, text=True, check=True
    ).stdout
    (expected,) = detectors.score_images(model, pixels[None, ..., None].astype(np.float32) / 255)
    assert printed.split("\t")[0] == f"{expected:.6g}"


@pytest.mark.slow
@needs_jax2onnx
def test_a_fresh_process_exports_and_prints_one_line(tmp_path: Path) -> None:
    """The converter replaces functions of jax, also those that a network is built with."""
    sample = Path(__file__).parent / "samples" / "one-class"
    given = (f"--model={sample}", "--format=onnx", f"--out={tmp_path / 'scorer.onnx'}")
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.export", *given], capture_output=True, text=True
    )
    assert ended.returncode == 0 and ended.stderr == "" and ended.stdout.count("\n") == 1
    assert (tmp_path / "scorer.onnx").stat().st_size > 1000


def test_a_missing_converter_ends_in_the_install_command(
    tmp_path: Path,
    calling: Calling,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    sample = Path(__file__).parent / "samples" / "one-class"
    out = tmp_path / "scorer.onnx"
    with calling(command) as call:
        assert call(f"--model={sample}", "--format=onnx", f"--out={out}") == 2
    message = capsys.readouterr().err
    assert "pip install 'deepsvdd_jax[onnx]'" in message and message.count("\n") == 1
    assert not out.exists()
