"""A sweep to report on: settings, rows and, if they can be read, its images."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import datasets
from deepsvdd_jax.cli.adversarial import stop_signs
from deepsvdd_jax.cli.reporting.pictures import comma
from deepsvdd_jax.cli.sweeps import config_file, methods, records
from deepsvdd_jax.cli.sweeps.records import Records, RunName
from deepsvdd_jax.cli.sweeps.sweep_settings import SweepSettings
from deepsvdd_jax.configs import ConfigError, SplitConfig
from deepsvdd_jax.datasets import DataError, Dataset

Array = npt.NDArray[Any]


class FinishedSweep(NamedTuple):
    """A sweep of which at least some runs have finished.

    Attributes:
      folder: of the sweep.
      settings: of its `config.json`.
      rows: of the finished runs to show.
      data: the raw images; None if they cannot be read.
      no_data: the reason if they cannot be read.
    """

    folder: Path
    settings: dict[str, Any]
    rows: Records
    data: Dataset | None
    no_data: str

    @property
    def methods(self) -> list[str]:
        """The methods with runs, in the order of the sweep."""
        there = {name.method for name in self.rows}
        asked = [name for name in self.settings.get("methods", ()) if name in there]
        return asked + sorted(there - set(asked))

    @property
    def classes(self) -> list[int]:
        """The normal classes with runs."""
        return sorted({name.normal_class for name in self.rows})

    @property
    def seeds(self) -> list[int]:
        """The seeds with runs."""
        return sorted({name.seed for name in self.rows})

    @property
    def asked(self) -> SweepSettings:
        """The settings as an object."""
        return SweepSettings.from_json(self.settings)

    @property
    def split(self) -> SplitConfig:
        """How the classes were split."""
        return self.asked.split

    @property
    def preset(self) -> str:
        """The recipe whose published figures are shown."""
        asked = self.asked
        found = [asked.configs[name].preset for name in methods.deep() if name in asked.configs]
        if not found and asked.shallow.recipe == "itu":
            return "itu"
        return found[0] if found else "auto"

    @property
    def dataset_name(self) -> str:
        """The data set's name."""
        return next(iter(self.rows.values())).dataset

    def finished(self, method: str, label: int) -> list[RunName]:
        """Returns a class's runs that were scored, by seed."""
        wanted = (method, label)
        return sorted(
            name for name, row in self.rows.items() if name[:2] == wanted and row.is_scored
        )

    def threshold(self, name: RunName) -> float:
        """Returns the score above which a run calls an image anomalous; NaN where it has none."""
        found = self.rows[name].threshold
        return np.nan if found is None else found

    def test_indices(self, data: Dataset, label: int) -> Array:
        """Returns which test images a class was scored on."""
        return datasets.one_class_split(data, label, **_split_arguments(self)).test_indices

    def title(self, label: int) -> str:
        """Returns a panel's title."""
        names = self.data.class_names if self.data is not None else ()
        name = names[label] if label < len(names) else str(label)
        return f"class {label}" if name == str(label) else f"{label}: {name}"


def read_sweep(
    folder: Path, data_dir: str | None, classes: tuple[int, ...] | None
) -> FinishedSweep:
    """Reads a sweep's folder (touches files); images that cannot be read are no error.

    Args:
      folder: of the sweep.
      data_dir: where the data are now; None takes the sweep's own.
      classes: restricts the page; None takes all.

    Raises:
      ResultsError, ConfigError: no sweep, a damaged one, or a class without runs.
    """
    settings, rows = config_file.read_folder(folder)
    config_file.check_described(folder, settings)
    if classes is not None:
        there = sorted({name.normal_class for name in rows})
        unknown = [label for label in classes if label not in there]
        if unknown:
            raise ConfigError(
                f"normal_classes holds {unknown[0]}; {folder} has runs of {comma(there)}"
            )
        rows = {name: row for name, row in rows.items() if name.normal_class in classes}
    sweep = FinishedSweep(folder, settings, rows, None, "")
    return _with_data(sweep, data_dir)


def _with_data(sweep: FinishedSweep, data_dir: str | None) -> FinishedSweep:
    where = data_dir if data_dir is not None else sweep.settings.get("data_dir")
    config = dataclasses.replace(sweep.asked.data, data_dir=where, prepare=False)
    try:
        data = stop_signs.with_adversarials(datasets.load(config), sweep.folder)
        for label in sweep.classes:
            _check_labels(sweep, data, label, where)
    except DataError as error:
        return sweep._replace(no_data=str(error))
    return sweep._replace(data=data)


def _check_labels(sweep: FinishedSweep, data: Dataset, label: int, where: str | None) -> None:
    """Refuses data whose test set is not the one that was scored."""
    found = datasets.one_class_split(data, label, **_split_arguments(sweep))
    for method in sweep.methods:
        for name in sweep.finished(method, label)[:1]:
            stored = records.read_scores(sweep.folder, name)["labels"]
            if not np.array_equal(stored, found.test_labels):
                raise DataError(f"the data in {where} are not those that the sweep has scored")


def _split_arguments(sweep: FinishedSweep) -> dict[str, Any]:
    split = sweep.split
    return {"protocol": split.protocol, "anomalous_classes": split.anomalous_classes}
