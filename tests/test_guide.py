"""The skeletons of docs/extending.md are Python that runs as it stands, given its imports."""

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from deepsvdd_jax import configs, objectives, recipes
from deepsvdd_jax.cli.sweeps.methods import base
from deepsvdd_jax.datasets import Dataset
from deepsvdd_jax.detectors import features
from deepsvdd_jax.io import models
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.objectives import Batch, Forward, squared_distances
from deepsvdd_jax.recipes import networks, parts

GUIDE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
MODULES: tuple[ModuleType, ...] = (configs, objectives, base, features, networks, parts)


def skeleton(file: str) -> dict[str, Any]:
    """Runs the block whose first line names a file; returns its names."""
    names: dict[str, Any] = {}
    for module in MODULES:
        names |= {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    names |= {"np": np, "jnp": jnp, "Literal": Literal, "flags": flags, "dataclasses": dataclasses}
    names |= {"Dataset": Dataset, "models": models, "squared_distances": squared_distances}
    (block,) = [block for block in BLOCKS if block.startswith(f"# deepsvdd_jax/{file}\n")]
    # The last expression of a block is its entry in a list.
    names["entry"] = None
    *_, last = block.rstrip().split("\n")
    exec(block.replace(last, f"entry = {last}") if last.startswith("Network") else block, names)
    return names


def test_every_kind_has_a_skeleton() -> None:
    rooms = [re.match(r"# deepsvdd_jax/([a-z_/]+)/\w+\.py\n", block) for block in BLOCKS]
    found = {room[1] for room in rooms if room}
    assert found >= {"configs", "objectives", "recipes", "datasets"}
    assert found >= {"cli/sweeps/methods", "cli/commands"}
    assert any("recipes/networks.py" in block for block in BLOCKS)


def test_the_objective_is_deep_sads() -> None:
    settings = skeleton("configs/deep_sad.py")["DeepSADConfig"](eta=2.0)
    losses = skeleton("objectives/deep_sad.py")["deep_sad"](settings).losses
    embeddings = np.array([[1.0, 2.0], [3.0, 0.0], [0.5, 0.5]])
    forward = Forward(jnp.asarray(embeddings), None, {})
    batch = Batch(jnp.zeros((3, 1)), jnp.ones(3, bool), jnp.asarray([0, 1, -1]))
    state = type("State", (), {"center": jnp.zeros(2)})
    found = losses({}, state, lambda *_: forward, batch, None, None)
    d = (embeddings**2).sum(axis=1)
    np.testing.assert_allclose(found.values, [d[0], 2 * d[1], 2 / d[2]], rtol=1e-5)


def test_the_method_scores_the_distance_to_the_mean() -> None:
    method = skeleton("cli/sweeps/methods/mean_distance.py")["METHOD"]
    train, test = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 3.0]])
    scored = method.score(None, train, test, 0, np.array([1]))
    np.testing.assert_allclose(scored.train_scores, [1, 1])
    np.testing.assert_allclose(scored.test_scores, [3])
    assert method.describe_cost(None, 2, 1, 2) == "mean of 2 points"


@pytest.mark.slow
def test_the_network_and_the_recipe_are_built() -> None:
    config = skeleton("recipes/networks.py")["entry"]
    assert build_network(config, (8, 8, 1)).rep_dim == 16
    recipe = skeleton("recipes/quick.py")["quick"]("digits", (8, 8, 1))
    assert recipe.preset == "quick" and recipe.needs_decoder
    assert configs.from_json(configs.RunConfig, configs.to_json(recipe)) == recipe
    params, _ = build_network(recipe.network, (8, 8, 1)).init(jax.random.key(0), True)
    assert set(params) == {"encoder", "decoder"}
    assert recipes.NETWORKS["lenet"] == recipe.network


def test_the_command_refuses_in_one_line() -> None:
    names = skeleton("cli/commands/count.py")
    holder = flags.FlagValues()
    holder.mark_as_parsed()
    flags.DEFINE_string("model", None, "folder of a saved model", flag_values=holder)
    names["flags"] = type("flags", (), {"FLAGS": holder})
    with flagsaver.flagsaver(), pytest.raises(configs.ConfigError, match="--model is not given"):
        names["main"]()
