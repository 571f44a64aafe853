"""Programs compiled ahead are the ones that the next method calls."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import numpy as np
import pytest

from deepsvdd_jax import runs, training
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.sweeps import ahead, pretraining
from deepsvdd_jax.cli.sweeps.ahead import Ahead
from deepsvdd_jax.cli.sweeps.pretraining import Pretrained
from deepsvdd_jax.configs import NetworkConfig, ObjectiveConfig, PhaseConfig, RunConfig
from deepsvdd_jax.networks import build_network

NETWORK = NetworkConfig("mlp", stages=(), hidden=(3,), rep_dim=2)
PHASE = PhaseConfig(epochs=2, batch_size=8)
AUTOENCODER = RunConfig(
    network=NETWORK,
    training=dataclasses.replace(PHASE, objective=ObjectiveConfig(kind="reconstruction")),
)
ONE_CLASS = RunConfig(network=NETWORK, training=PHASE)
IMAGES = np.random.RandomState(0).rand(20, 5).astype(np.float32)


def make_runs(config: RunConfig, mesh: jax.sharding.Mesh, width: int, weights: Any) -> runs.Run:
    data = training.run_data(np.arange(20), 20, np.zeros(1), np.ones(1))
    settings = runs.phase_settings(config)
    members = [runs.Run(jax.random.key(seed), data, *settings, weights) for seed in range(width)]
    return runs.place(mesh, runs.stack_runs(members))


@pytest.mark.parametrize("from_autoencoder", [True, False])
def test_the_next_method_compiles_nothing(
    from_autoencoder: bool, compilations: list[float]
) -> None:
    # Other sizes than in any other test, or the programs would be there already.
    config = dataclasses.replace(
        ONE_CLASS, network=dataclasses.replace(NETWORK, hidden=(3 + from_autoencoder,))
    )
    network, mesh = build_network(config.network, (5,)), runs.make_mesh(jax.devices()[:2])
    pools = runs.in_memory(mesh, IMAGES, IMAGES[:7])
    autoencoders = make_runs(AUTOENCODER, mesh, 2, {})
    present = runs.Program(AUTOENCODER, network, mesh, pools, autoencoders)
    params, statistics = network.init(jax.random.key(0), True)
    start = Pretrained(params, statistics, 0, {})
    weights = pretraining.starting_weights(config, start) if from_autoencoder else {}
    program = runs.Program(config, network, mesh, pools, make_runs(config, mesh, 4, weights))

    first = Ahead(config, from_autoencoder)
    first.start(4, mesh, present)
    first.start(8, mesh, present)
    told: list[tuple[int, int]] = []
    first.wait(lambda *counts: told.append(counts))
    assert all(done <= total == 3 for done, total in told)

    compilations.clear()
    progress = program.init()
    while not runs.is_over(config, progress):
        progress = program.advance(progress, 1)
    program.finish(progress)
    assert not compilations


@pytest.mark.slow
def test_a_sweep_compiles_ahead_what_each_of_its_methods_trains_next(
    calling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[float]
) -> None:
    """As on an accelerator: DCAE, then one-class, which starts from its autoencoders."""
    log: list[str] = []
    start, wait, finish = Ahead.start, Ahead.wait, runs.Program.finish

    def watched_start(self: Ahead, *parts: Any) -> None:
        log.append("start")
        start(self, *parts)

    def watched_wait(self: Ahead, told: Any) -> None:
        wait(self, told)
        log.append("wait")
        compilations.clear()

    def watched_finish(*parts: Any) -> runs.Outcome:
        outcome = finish(*parts)
        log.append("trained")
        return outcome

    monkeypatch.setattr(Ahead, "start", watched_start)
    monkeypatch.setattr(Ahead, "wait", watched_wait)
    monkeypatch.setattr(runs.Program, "finish", watched_finish)
    monkeypatch.setattr(ahead, "pays", lambda: True)
    arguments = ("--normal_classes=0", "--seeds=2", "--epochs=1", "--milestones=")
    arguments += ("--methods=dcae,deep_svdd", "--pretrain_epochs=1")
    with calling(sweep) as call:
        assert call(*arguments, f"--out={tmp_path}") == 0
    assert log == ["start", "trained", "wait", "trained"]
    # What draws the untrained weights is all that the second method still compiles.
    assert len(compilations) <= 2


def test_what_fails_ahead_is_left_to_the_method_itself() -> None:
    network, mesh = build_network(NETWORK, (5,)), runs.make_mesh(jax.devices()[:1])
    pools = runs.in_memory(mesh, IMAGES, IMAGES[:7])
    none = pools._replace(images=pools.images[:0, :2])
    autoencoders = make_runs(AUTOENCODER, mesh, 2, {})
    present = runs.Program(AUTOENCODER, network, mesh, none, autoencoders)
    first = Ahead(ONE_CLASS, from_autoencoder=False)
    # Three runs cannot be spread over half a device.
    first.start(3, mesh, present)
    first.wait(lambda done, total: None)


def test_nothing_that_was_started_is_nothing_to_wait_for() -> None:
    Ahead(ONE_CLASS, from_autoencoder=False).wait(lambda done, total: pytest.fail("told"))
