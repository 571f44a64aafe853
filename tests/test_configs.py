"""Configurations: JSON to and from, and errors that name the setting and what is allowed."""

import dataclasses
import json
import math
import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsvdd_jax import configs
from deepsvdd_jax.configs import (
    ConfigError,
    DataConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
    SplitConfig,
)

AUTOENCODER = PhaseConfig(objective=ObjectiveConfig(kind="reconstruction"), epochs=7)

VARIANTS = [
    RunConfig(),
    RunConfig(preset="mine", pretraining=AUTOENCODER, threshold_quantile=1.0),
    RunConfig(
        preprocessing=PreprocessingConfig("l1", zca=True, zca_epsilon=0.01, min_max=False),
        network=NetworkConfig(
            "deep", ((16, 16), (32, 32)), hidden=(320, 10), hidden_style="batch_norm", dropout=0.5
        ),
        training=PhaseConfig(
            ObjectiveConfig(
                "soft-boundary",
                nu=1.0,
                radius_rule="block-coordinate",
                center_rule="dual",
                center_batches=3,
            ),
            OptimizerConfig("rmsprop", 1e-2, milestones=(5, 9), decay_after_epoch=4, rho=0.8),
            whole_batches=True,
            stop_below=0.002,
        ),
        first_layer="dictionary",
        initial_model="models/größe",
    ),
    RunConfig(
        network=NetworkConfig("mlp", stages=(), hidden=(128, 64), batch_norm=False),
        preprocessing=PreprocessingConfig(standardize=True),
        training=AUTOENCODER,
    ),
]


# --- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=range(len(VARIANTS)))
def test_run_configs_survive_json(config: RunConfig) -> None:
    text = configs.to_json(config)
    found = configs.from_json(RunConfig, text)
    assert found == config
    assert hash(found) == hash(config)
    assert configs.to_json(found) == text
    assert json.loads(text)["network"]["stages"] == [list(s) for s in config.network.stages]


@pytest.mark.parametrize(
    "config",
    [
        DataConfig("folder", "/data", image_size=(32, 48), channels=3, prepare=True),
        DataConfig(),
        SplitConfig("rest-vs-one", anomalous_classes=(1, 4), outlier_fraction=0.1),
    ],
)
def test_other_configs_survive_json(config: Any) -> None:
    assert configs.from_json(type(config), configs.to_json(config)) == config


def test_what_is_left_out_takes_its_default() -> None:
    found = configs.from_json(RunConfig, '{"training": {"epochs": 3, "weight_decay": 1}}')
    assert found == RunConfig(training=PhaseConfig(epochs=3, weight_decay=1.0))
    assert type(found.training.weight_decay) is float


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (RunConfig, {"trainin": {}}, ["config: ", "'trainin'", "training", "threshold_quantile"]),
        (RunConfig, {"training": {"epoch": 1}}, ["config.training: ", "'epoch'", "batch_size"]),
        (RunConfig, [], ["config: ", "an object", "list"]),
        (RunConfig, None, ["config: ", "an object"]),
        (RunConfig, {"training": None}, ["config.training: ", "an object"]),
        (RunConfig, {"network": 3}, ["config.network: ", "an object", "int"]),
        (RunConfig, {"preset": 3}, ["config.preset: ", "str", "3"]),
        (RunConfig, {"training": {"epochs": 1.5}}, ["config.training.epochs: ", "int", "1.5"]),
        (RunConfig, {"training": {"epochs": True}}, ["config.training.epochs: ", "int", "True"]),
        (RunConfig, {"training": {"epochs": "9"}}, ["config.training.epochs: ", "int", "'9'"]),
        (PhaseConfig, {"weight_decay": "0"}, ["config.weight_decay: ", "float", "'0'"]),
        (PhaseConfig, {"weight_decay": False}, ["config.weight_decay: ", "float", "False"]),
        (PhaseConfig, {"weight_decay": 10**400}, ["config.weight_decay: ", "too large"]),
        (PhaseConfig, {"whole_batches": 1}, ["config.whole_batches: ", "bool", "1"]),
        (NetworkConfig, {"stages": 4}, ["config.stages: ", "a list", "4"]),
        (NetworkConfig, {"stages": [[4], 5]}, ["config.stages[1]: ", "a list", "5"]),
        (NetworkConfig, {"stages": [[4], [5, "6"]]}, ["config.stages[1][1]: ", "int", "'6'"]),
        (NetworkConfig, {"padding": ["same"]}, ["padding", "same, valid"]),
        (DataConfig, {"image_size": [3]}, ["config.image_size: ", "2 values", "found 1"]),
        (DataConfig, {"image_size": [3, 4, 5]}, ["config.image_size: ", "2 values", "found 3"]),
        (DataConfig, {"image_size": "34"}, ["config.image_size: ", "a list"]),
        (DataConfig, {"data_dir": 1}, ["config.data_dir: ", "str", "1"]),
    ],
)
def test_wrong_json_values_are_named(kind: type, values: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.from_json(kind, json.dumps(values))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "{'preset': 1}", "\x00", "[" * 200_000, "9" * 5000])
def test_what_is_not_json_is_said_so(text: str) -> None:
    with pytest.raises(ConfigError, match="^here: not JSON"):
        configs.from_json(RunConfig, text, "here")


def test_a_setting_nested_almost_too_deep_for_json() -> None:
    # The reader's depth and that of the message differ: none may let a RecursionError out.
    limit = sys.getrecursionlimit()
    for depth in range(max(limit - 250, 1), limit + 20):
        text = '{"training": {"objective": {"nu": ' + "[" * depth + "]" * depth + "}}}"
        with pytest.raises(ConfigError):
            configs.from_json(RunConfig, text)


# --- validation ---------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("kind", "setting", "value", "allowed"),
    [
        (DataConfig, "channels", 2, ["channels", "2", "1, 3"]),
        (DataConfig, "image_size", (0, 3), ["image_size", "(0, 3)", "height,width", "positive"]),
        (DataConfig, "image_size", (3,), ["image_size", "(3,)", "height,width"]),
        (SplitConfig, "protocol", "all", ["protocol", "'all'", "one-vs-rest, rest-vs-one"]),
        (SplitConfig, "outlier_fraction", 1.0, ["outlier_fraction", "1.0", "[0, 1)"]),
        (SplitConfig, "outlier_fraction", -0.1, ["outlier_fraction", "-0.1", "[0, 1)"]),
        (SplitConfig, "validation_fraction", NAN, ["validation_fraction", "nan", "[0, 1)"]),
        (PreprocessingConfig, "contrast", "L1", ["contrast", "'L1'", "none, std, l1, l2"]),
        (PreprocessingConfig, "zca_epsilon", 0.0, ["zca_epsilon", "0.0", "positive"]),
        (NetworkConfig, "rep_dim", 0, ["rep_dim", "0", "positive"]),
        (NetworkConfig, "kernel_size", -5, ["kernel_size", "-5", "positive"]),
        (NetworkConfig, "leaky_slope", -0.1, ["leaky_slope", "-0.1", "not be negative"]),
        (NetworkConfig, "leaky_slope", INF, ["leaky_slope", "inf"]),
        (NetworkConfig, "dropout", 1.0, ["dropout", "1.0", "[0, 1)"]),
        (NetworkConfig, "dropout_on", "none", ["dropout_on", "'none'", "dense, all"]),
        (NetworkConfig, "stages", ((8, 0),), ["lenet", "every layer", "at least 1"]),
        (NetworkConfig, "stages", ((8,), ()), ["lenet", "every layer", "at least 1"]),
        (NetworkConfig, "hidden", (0,), ["lenet", "every layer", "at least 1"]),
        (NetworkConfig, "activation", "tanh", ["activation", "'tanh'", "leaky_relu, relu, elu"]),
        (NetworkConfig, "initializer", "he", ["initializer", "'he'", "glorot, glorot_unit, torch"]),
        (NetworkConfig, "decoder", "x", ["decoder", "'x'", "theano, pytorch"]),
        (NetworkConfig, "padding", "full", ["padding", "'full'", "same, valid"]),
        (NetworkConfig, "hidden_style", "", ["hidden_style", "linear, activation, batch_norm"]),
        (OptimizerConfig, "name", "adamw", ["optimizer", "'adamw'", "adam, adamax, amsgrad"]),
        (OptimizerConfig, "learning_rate", 0.0, ["learning_rate", "0.0", "positive"]),
        (OptimizerConfig, "learning_rate", NAN, ["learning_rate", "nan", "positive"]),
        (OptimizerConfig, "learning_rate", INF, ["learning_rate", "inf", "positive"]),
        (OptimizerConfig, "drop_factor", -1.0, ["drop_factor", "-1.0", "positive"]),
        (OptimizerConfig, "momentum", 1.0, ["momentum", "1.0", "[0, 1)"]),
        (OptimizerConfig, "milestones", (5, 0), ["milestones", "(5, 0)", "at least 1"]),
        (OptimizerConfig, "decay_after_epoch", 0, ["decay_after_epoch", "0", "at least 1"]),
        (OptimizerConfig, "rho", 1.5, ["rho", "1.5", "[0, 1)"]),
        (ObjectiveConfig, "kind", "svdd", ["kind", "one-class, soft-boundary, reconstruction"]),
        (ObjectiveConfig, "nu", 0.0, ["nu", "0.0", "(0, 1]"]),
        (ObjectiveConfig, "nu", 1.01, ["nu", "1.01", "(0, 1]"]),
        (ObjectiveConfig, "nu", NAN, ["nu", "nan", "(0, 1]"]),
        (ObjectiveConfig, "radius_rule", "x", ["radius_rule", "quantile, gradient, block-coord"]),
        (ObjectiveConfig, "warm_up_epochs", -1, ["warm_up_epochs", "-1", "0 or more"]),
        (ObjectiveConfig, "radius_every", 0, ["radius_every", "0", "at least 1"]),
        (ObjectiveConfig, "center_init", "zero", ["center_init", "'zero'", "mean, constant"]),
        (ObjectiveConfig, "center_batches", 0, ["center_batches", "0", "positive"]),
        (ObjectiveConfig, "center_floor", -0.1, ["center_floor", "-0.1", "not be negative"]),
        (ObjectiveConfig, "center_rule", "free", ["center_rule", "fixed, gradient, dual"]),
        (ObjectiveConfig, "center_rule", "dual", ["center_rule", "block-coordinate"]),
        (ObjectiveConfig, "reconstruction_error", "l1", ["squared, cross-entropy"]),
        (ObjectiveConfig, "reconstruction_penalty", -1.0, ["reconstruction_penalty", "negative"]),
        (PhaseConfig, "epochs", 0, ["epochs", "0", "positive"]),
        (PhaseConfig, "batch_size", 0, ["batch_size", "0", "positive"]),
        (PhaseConfig, "weight_decay", -1e-6, ["weight_decay", "-1e-06", "not be negative"]),
        (PhaseConfig, "weight_decay_factor", NAN, ["weight_decay_factor", "nan"]),
        (PhaseConfig, "stop_below", NAN, ["stop_below", "nan"]),
        (RunConfig, "threshold_quantile", 0.0, ["threshold_quantile", "0.0", "(0, 1]"]),
        (RunConfig, "threshold_quantile", 1.1, ["threshold_quantile", "1.1", "(0, 1]"]),
        (RunConfig, "first_layer", "x", ["first_layer", "'x'", "random, dictionary"]),
        (RunConfig, "pretraining", PhaseConfig(), ["pretraining", "reconstruction objective"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    kind: type, setting: str, value: Any, allowed: list[str]
) -> None:
    kind()  # The default is fine: the setting alone is at fault.
    with pytest.raises(ConfigError) as caught:
        kind(**{setting: value})
    for word in allowed:
        assert word in str(caught.value)


def test_limits_that_belong_to_what_is_allowed() -> None:
    ObjectiveConfig(nu=1.0, warm_up_epochs=0, radius_every=1, center_floor=0.0)
    SplitConfig(outlier_fraction=0.0, validation_fraction=0.999)
    NetworkConfig(dropout=0.0, leaky_slope=0.0, hidden=(1,), stages=((1,),))
    OptimizerConfig(momentum=0.0, rho=0.0, milestones=(1,), decay_after_epoch=1)
    PhaseConfig(epochs=1, batch_size=1, weight_decay=0.0, weight_decay_factor=0.0)


def test_a_dictionary_needs_convolutions() -> None:
    dense = NetworkConfig("mlp", stages=(), hidden=(4,))
    assert dense.is_dense
    with pytest.raises(ConfigError, match="first_layer dictionary needs convolutions; network mlp"):
        RunConfig(network=dense, first_layer="dictionary")


@pytest.mark.parametrize(
    ("config", "decoder", "reconstructs"),
    [
        (RunConfig(), False, False),
        (RunConfig(pretraining=AUTOENCODER), True, False),
        (RunConfig(training=AUTOENCODER), True, True),
        (
            RunConfig(training=PhaseConfig(ObjectiveConfig(reconstruction_penalty=0.1))),
            True,
            True,
        ),
    ],
)
def test_who_needs_a_decoder(config: RunConfig, decoder: bool, reconstructs: bool) -> None:
    assert config.needs_decoder is decoder
    assert config.training_reconstructs is reconstructs


# --- anything at all ----------------------------------------------------------------------------

KINDS = (DataConfig, SplitConfig, NetworkConfig, ObjectiveConfig, PhaseConfig, RunConfig)
# Values near the truth get past the first check.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["mnist", "l1", "same", "dual", "soft-boundary", "reconstruction"])
)
NAMES = st.sampled_from([field.name for kind in KINDS for field in dataclasses.fields(kind)])
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


def own_settings(kind: type) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from([field.name for field in dataclasses.fields(kind)])
    return st.dictionaries(names, JSON_VALUES, max_size=3)


def returns_or_refuses(kind: type, text: str) -> None:
    try:
        config = configs.from_json(kind, text)
    except ConfigError:
        return
    assert isinstance(config, kind)
    assert configs.from_json(kind, configs.to_json(config)) == config


@settings(max_examples=100, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), text=st.text())
def test_from_json_of_any_text(kind: type, text: str) -> None:
    returns_or_refuses(kind, text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_from_json_of_any_json(data: st.DataObject, kind: type) -> None:
    returns_or_refuses(kind, json.dumps(data.draw(own_settings(kind) | JSON_VALUES)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_from_json_of_any_one_setting(data: st.DataObject, kind: type) -> None:
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(kind)]))
    returns_or_refuses(kind, json.dumps({name: data.draw(SCALARS | st.lists(SCALARS))}))


# --- single settings ----------------------------------------------------------------------------


def test_replace_at_replaces_one_setting() -> None:
    config = RunConfig(pretraining=AUTOENCODER)
    changed = configs.replace_at(config, "training.optimizer.learning_rate", 0.5)
    changed = configs.replace_at(changed, "pretraining.epochs", 2)
    changed = configs.replace_at(changed, "preset", "new")
    assert changed == RunConfig(
        preset="new",
        pretraining=dataclasses.replace(AUTOENCODER, epochs=2),
        training=PhaseConfig(optimizer=OptimizerConfig(learning_rate=0.5)),
    )
    assert config == RunConfig(pretraining=AUTOENCODER), "the original stays as it is"


def test_replace_at_checks_the_value() -> None:
    with pytest.raises(ConfigError, match=re.escape("nu is 2.0; it must lie in (0, 1]")):
        configs.replace_at(RunConfig(), "training.objective.nu", 2.0)


def test_differences() -> None:
    first = configs.to_dict(RunConfig())
    assert configs.differences(first, first) == []
    # Tuples and the lists that JSON makes of them are the same.
    assert configs.differences(first, json.loads(json.dumps(first))) == []
    changed = configs.replace_at(RunConfig(preset="other"), "training.objective.nu", 0.25)
    assert configs.differences(first, configs.to_dict(changed)) == [
        'preset is "custom" there, "other" here',
        "training.objective.nu is 0.1 there, 0.25 here",
    ]
    assert configs.differences({"a": {"b": 1}}, {"a": {}, "c": 2}) == [
        "a.b is 1 there, null here",
        "c is null there, 2 here",
    ]
