"""The scoring benchmark: both sides score the same network, and the table has their ratio."""

import importlib.util

import jax
import numpy as np
import pytest

from benchmarks import scoring, subjects


@pytest.mark.slow
def test_the_model_scores_network_input_as_it_is() -> None:
    model = scoring.make_model("itu_cnn", 2)
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    found = scoring.detectors.member_distances(model, images)
    network = scoring.build_network(model.config.network, model.image_shape)
    for member in range(2):
        params, statistics = jax.tree.map(
            lambda leaf, member=member: leaf[member], (model.params, model.statistics)
        )
        embeddings = np.asarray(network.encode(params, statistics, images), np.float64)
        expected = np.square(embeddings - 1.0).sum(1)
        np.testing.assert_allclose(found[member], expected, rtol=1e-4)


def test_every_scorer_is_measured_and_compared() -> None:
    calls = []
    found = {name: (lambda images, name=name: calls.append(name)) for name in ("ours", "theirs")}
    rows = scoring.measure(found, np.zeros((5, 2), np.float32), 2)
    assert calls == ["ours", "theirs"] * 3
    assert [row.name for row in rows] == ["ours", "theirs"]
    rates = {"ours": 30.0, "PyTorch, a": 10.0, "PyTorch, b": 5.0, "alone": 40.0}
    text = scoring.report([scoring.Row(*row) for row in rates.items()])
    assert text.splitlines()[-2:] == [
        "ours / PyTorch's best: 3.00",
        "alone / PyTorch's best: 4.00",
    ]
    assert "best" not in scoring.report([scoring.Row("ours", 30.0)])


def test_the_network_alone_works_on_every_device() -> None:
    found = scoring.cached_scorer("mlp", 2)(np.zeros((300, 2), np.float32))
    assert len(found) == jax.local_device_count()
    assert all(np.asarray(value) == 0.0 for value in found)


def test_the_network_alone_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is zero times the embeddings of every member: nothing else tells of them."""
    model = scoring.make_model("mlp", 2)
    broken = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf).at[1].set(np.nan), model.params)
    monkeypatch.setattr(scoring, "make_model", lambda *_: model._replace(params=broken))
    found = scoring.cached_scorer("mlp", 2)(np.zeros((300, 2), np.float32))
    assert all(np.isnan(np.asarray(value)) for value in found)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("network", ["mnist_lenet", "mlp"])
def test_pytorch_scores_distances(network: str) -> None:
    shape = subjects.SUBJECTS[network].shape
    images = np.random.default_rng(0).random((7, *shape), np.float32)
    whole = scoring.torch_scorer(network, 2, 1, 100)(images)
    parts = scoring.torch_scorer(network, 2, 1, 3)
    assert whole.shape == (2, 7) and (whole > 0).all()
    assert parts(images).shape == (2, 7)
