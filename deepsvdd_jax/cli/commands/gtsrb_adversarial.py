"""Scores stop signs against adversarial ones: section 4.3 of Ruff et al. 2018, with new images.

    python -m experiments.gtsrb_adversarial --data_dir=DIR     # GTSRB in DIR/gtsrb

Trains a small classifier of all signs, misleads it with the Boundary Attack from stop signs of the
test set, keeps these images with their distances and a picture, and scores them against the other
test stop signs with every method, trained on the training stop signs. Its results folder is that of
a sweep; the same command resumes an interrupted one.

The paper's adversarials were never published, so figures are comparable in kind only.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import bars, environment, exits, files, signals
from deepsvdd_jax.cli.adversarial.configs import STOP_CLASS, AttackConfig, ClassifierConfig
from deepsvdd_jax.cli.adversarial.stop_signs import arrays_path, stop_problem
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps import methods, plans
from deepsvdd_jax.cli.sweeps.store import open_store
from deepsvdd_jax.configs import ConfigError, DataConfig, SplitConfig
from deepsvdd_jax.datasets import Dataset

with lazily():
    from deepsvdd_jax.cli.adversarial import arrays
    from deepsvdd_jax.cli.adversarial import attack as adversarial
    from deepsvdd_jax.cli.adversarial import classifier as adversarial_classifier

if TYPE_CHECKING:
    from deepsvdd_jax.cli.adversarial.attack import Adversarials

_ATTACK = AttackConfig()
_CLASSIFIER = ClassifierConfig()
# Each attack starts from the best of the images that the classifier does not take for stop signs.
_NOISE_IMAGES = 500


def define_flags() -> None:
    """Defines all flags of the command."""
    sweep.define_training_flags()
    defaults = {"preset": "icml2018", "seeds": "3", "methods": ",".join(methods.names())}
    for name, value in defaults.items():
        flags.FLAGS.set_default(name, value)
    flags.DEFINE_string("data_dir", None, "folder that holds gtsrb/, as an archive or unpacked")
    define_attack_flags()


def define_attack_flags() -> None:
    """Defines the flags of the classifier and of the attack."""
    flags.DEFINE_integer("adversarials", _ATTACK.count, "how many adversarial examples")
    flags.DEFINE_integer("steps", _ATTACK.steps, "steps of the Boundary Attack")
    flags.DEFINE_enum(
        "start",
        "noise",
        ["noise", "images"],
        "where the attack starts: uniform noise, as Brendel et al. 2018 have it, or real images of "
        "other classes, which end nearer but keep their smoothness",
    )
    flags.DEFINE_integer("attack_seed", _ATTACK.seed, "seed of the classifier and the attack")
    flags.DEFINE_integer("classifier_epochs", _CLASSIFIER.epochs, "epochs of the classifier")


class Experiment(NamedTuple):
    """The checked settings; the adversarials of the sweep's problem are still missing."""

    planned: plans.Sweep
    classifier: ClassifierConfig
    attack: AttackConfig
    start: str
    signs: Dataset


def main() -> None:
    """Reads the flags, makes the adversarials, scores them, prints the table."""
    values = flags.FLAGS
    environment.use_platform(values.platform, values.compilation_cache)
    run(plan(values), {})


def plan(values: flags.FlagValues) -> Experiment:
    """Checks everything that can be checked before a file is written.

    Raises:
      ConfigError, DataError: says what is wrong and what is allowed.
    """
    classifier_config, attack_config = read_configs(values)
    data = DataConfig("gtsrb", values.data_dir)
    signs = datasets.load(data)
    planned = plans.plan_on(
        values,
        data,
        SplitConfig(),
        dataset=stop_problem(signs, None),
        classes=(STOP_CLASS,),
        require_test=False,
    )
    if not arrays_path(planned.out).exists():
        _check_extra()
    return Experiment(planned, classifier_config, attack_config, values.start, signs)


def run(experiment: Experiment, extra_settings: Mapping[str, Any]) -> None:
    """Makes the adversarials where they are missing, scores them, prints the table.

    Args:
      experiment: the checked settings.
      extra_settings: further entries of `config.json`.
    """
    planned, classifier_config, attack_config, start, signs = experiment
    settings = {
        **planned.settings.to_json(),
        **environment.describe(),
        "classifier": dataclasses.asdict(classifier_config),
        "attack": dataclasses.asdict(attack_config) | {"start": start},
        **extra_settings,
    }
    with open_store(planned.out, settings) as store:
        found = adversarials_in(planned.out, classifier_config, attack_config, signs, start)
        print(describe(found), file=sys.stderr)
        dataset = stop_problem(signs, found)
        wanted = planned.settings
        splits = plans.make_splits(dataset, wanted.split, wanted.normal_classes, wanted.seeds)
        complete = planned._replace(dataset=dataset, splits=splits)
        with signals.stop_signals(store.stop):
            sweep.run(complete, store)


def read_configs(values: flags.FlagValues) -> tuple[ClassifierConfig, AttackConfig]:
    """Builds the configurations of the classifier and of the attack from parsed flags.

    Raises:
      ConfigError: a value that is not allowed.
    """
    return (
        ClassifierConfig(epochs=values.classifier_epochs),
        AttackConfig(count=values.adversarials, steps=values.steps, seed=values.attack_seed),
    )


def adversarials_in(
    folder: Path,
    classifier_config: ClassifierConfig,
    attack_config: AttackConfig,
    signs: Dataset,
    start: str,
) -> Adversarials:
    """Returns the adversarials of a results folder, made and saved where they are missing.

    Raises:
      ResultsError: a file of them that is damaged.
      Failure: the attack found too few.
    """
    path = arrays_path(folder).parent
    try:
        if arrays_path(folder).exists():
            return arrays.load_adversarials(path)
    except ValueError as error:
        raise files.ResultsError(f"{error}; delete the folder to make them again") from None
    try:
        found = make_adversarials(classifier_config, attack_config, signs, start)
    except ValueError as error:
        raise exits.Failure(str(error)) from None
    try:
        arrays.save_adversarials(path, found)
    except OSError as error:
        raise files.WriteError(f"cannot write {path}: {error.strerror or error}") from None
    return found


def _check_extra() -> None:
    """Refuses to start before minutes of work if a package is missing."""
    try:
        adversarial.import_foolbox()
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ConfigError(str(error)) from None


def make_adversarials(
    classifier_config: ClassifierConfig, attack_config: AttackConfig, signs: Dataset, start: str
) -> Adversarials:
    """Trains the classifier on all signs and attacks it from test stop signs; minutes."""
    labels = (signs.y_train, signs.y_test)
    with bars.progress_bar("classifier", classifier_config.epochs, "epoch") as bar:
        classifier = adversarial_classifier.train_classifier(
            classifier_config,
            signs.x_train,
            labels[0],
            signs.x_test,
            labels[1],
            seed=attack_config.seed,
            progress=_moves(bar),
        )
    print(
        f"classifier: {100 * classifier.test_accuracy:.1f} % of all test signs right, "
        f"{100 * classifier.stop_accuracy:.1f} % of the stop signs",
        file=sys.stderr,
    )
    stops = signs.x_test[labels[1] == STOP_CLASS]
    starts = starting_images(signs, start, attack_config.seed)
    with bars.progress_bar("attack", attack_config.steps, "query") as bar:
        return adversarial.generate_adversarials(
            attack_config, classifier, stops, starts, _moves(bar)
        )


def starting_images(signs: Dataset, start: str, seed: int) -> np.ndarray:
    """Returns the images that the attack may start from, uint8 `[n, height, width, 3]`."""
    if start == "images":
        return signs.x_train[signs.y_train != STOP_CLASS]
    shape = (_NOISE_IMAGES, *signs.x_train.shape[1:])
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _moves(bar: tqdm) -> Callable[[int, int], None]:
    def move(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return move


def describe(found: Adversarials) -> str:
    """Returns a line on the distances of the adversarials from their originals."""
    least, middle, most = np.quantile(found.distances_l2, [0.0, 0.5, 1.0])
    return (
        f"{len(found.images)} adversarial stop signs; distance to the original (L2, pixels in "
        f"[0, 1]) {middle:.2f} in the median, {least:.2f} to {most:.2f}"
    )
