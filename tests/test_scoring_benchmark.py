"""The scoring benchmark: both sides score the same network, and the table has their ratio."""

import importlib.util

import jax
import numpy as np
import pytest

from benchmarks import scoring, subjects


def test_the_model_scores_network_input_as_it_is() -> None:
    model = scoring.make_model("itu_cnn", 2)
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    found = scoring.detectors.member_distances(model, images)
    network = scoring.build_network(model.config.network, model.image_shape)
    for member in range(2):
        params, statistics = jax.tree.map(
            lambda leaf, member=member: leaf[member], (model.params, model.statistics)
        )
        codes = np.asarray(network.encode(params, statistics, images), np.float64)
        expected = np.square(codes - 1.0).sum(1)
        np.testing.assert_allclose(found[member], expected, rtol=1e-4)


def test_every_scorer_is_measured_and_compared() -> None:
    calls = []
    found = {name: (lambda images, name=name: calls.append(name)) for name in ("ours", "theirs")}
    rows = scoring.measure(found, np.zeros((5, 2), np.float32), 2)
    assert calls == ["ours", "theirs"] * 3
    assert [row.name for row in rows] == ["ours", "theirs"]
    text = scoring.report([scoring.Row("ours", 30.0), scoring.Row("a", 10.0), scoring.Row("b", 5)])
    assert text.endswith("ours / PyTorch's best: 3.00")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("network", ["mnist_lenet", "mlp"])
def test_pytorch_scores_distances(network: str) -> None:
    shape = subjects.SUBJECTS[network].shape
    images = np.random.default_rng(0).random((7, *shape), np.float32)
    whole = scoring.torch_scorer(network, 2, 1, 100)(images)
    parts = scoring.torch_scorer(network, 2, 1, 3)
    assert whole.shape == (2, 7) and (whole > 0).all()
    assert parts(images).shape == (2, 7)
