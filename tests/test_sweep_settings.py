"""The settings of a sweep go through their JSON, and those of all published tables still load."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepsvdd_jax import recipes
from deepsvdd_jax.cli.sweeps import config_file
from deepsvdd_jax.cli.sweeps.methods.base import NeighborsConfig, ShallowConfig
from deepsvdd_jax.cli.sweeps.sweep_settings import SweepSettings
from deepsvdd_jax.configs import ConfigError, DataConfig, SplitConfig

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
SWEEPS = [
    path
    for path in sorted(PUBLISHED.glob("*/config.json"))
    if "normal_classes" in json.loads(path.read_text(encoding="utf-8"))
]
SETTINGS = SweepSettings(
    data=DataConfig("folder", "parts", image_size=(32, 48), pixel_range=(0.0, 4095.0)),
    split=SplitConfig("rest-vs-one", validation_fraction=0.1),
    normal_classes=(0, 3),
    seeds=(1, 2),
    methods=("deep_svdd", "knn"),
    configs={"deep_svdd": recipes.preset("deep_sad", "folder", (32, 48, 1))},
    shallow=ShallowConfig(kde_bandwidths=(0.5, 1.0), neighbors=NeighborsConfig(3, "largest")),
    outliers=("odd.npz", 12),
    memory_budget=1000,
    save_models=True,
)


def written() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(SETTINGS.to_json()))
    return values


def test_settings_are_read_as_they_were_written() -> None:
    beside = {"versions": {"jax": "1"}, "device": None, "table": "mnist", "attack": {"steps": 3}}
    assert SweepSettings.from_json(written() | beside) == SETTINGS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.parent.name)
def test_settings_of_a_published_table_load_and_say_the_same(path: Path) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    loaded = SweepSettings.from_json(values).to_json()
    for name in ("normal_classes", "seeds", "methods"):
        assert loaded[name] == values[name]
    commands_own = {name: values[name] for name in ("classifier", "attack") if name in values}
    assert config_file.setting_differences(values, loaded | commands_own) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch": 3}, "config.json: unknown setting 'batch'"),
        ({"split": {"protocl": "one-vs-rest"}}, "config.json.split: unknown setting 'protocl'"),
        ({"knn": {"n_neighbors": "five"}}, "n_neighbors: expected int, found 'five'"),
        ({"deep_svdd": {"preset": 3}}, "deep_svdd.preset: expected str, found 3"),
        ({"seeds": "all"}, "config.json.seeds: expected a list"),
        ({"data": None}, "config.json: data is no object"),
    ],
)
def test_what_is_unknown_or_of_no_use_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        SweepSettings.from_json(written() | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["data", "split", "seeds", "methods", "normal_classes"])
def test_what_is_missing_is_named(name: str) -> None:
    values = written()
    del values[name]
    with pytest.raises(ConfigError, match=f"config.json: {name} is "):
        SweepSettings.from_json(values)
