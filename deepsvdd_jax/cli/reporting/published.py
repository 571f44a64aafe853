"""Published AUROC figures in percent, to compare ours with.

`certain` marks figures that were checked against a printed source; the others were quoted from
memory of Ruff et al. 2018 and serve for orientation only.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """AUROC in percent of the classes from `first` on, and whether the source could be checked."""

    values: tuple[float, ...]
    certain: bool
    first: int = 0


# One method has two names: its objective comes from a flag, or both objectives are in one folder.
_ANY_DEEP = "deep"
_DEEP_NAMES = ("deep_svdd", "soft_boundary")

_MNIST = {
    ("ocsvm", ""): Published((98.6, 99.5, 82.5, 88.1, 94.9, 77.1, 96.5, 93.7, 88.9, 93.1), False),
    ("kde", ""): Published((97.1, 98.9, 79.0, 86.2, 87.9, 73.8, 87.6, 91.4, 79.2, 88.2), False),
    ("isolation_forest", ""): Published(
        (98.0, 97.3, 88.6, 89.9, 92.7, 85.5, 95.6, 92.0, 89.9, 93.5), False
    ),
    ("dcae", "reconstruction"): Published(
        (97.6, 98.3, 85.4, 86.7, 86.5, 78.2, 94.6, 92.3, 86.5, 90.4), False
    ),
    (_ANY_DEEP, "soft-boundary"): Published(
        (97.8, 99.6, 89.5, 90.3, 93.8, 85.8, 98.0, 92.7, 92.9, 94.9), False
    ),
    (_ANY_DEEP, "one-class"): Published(
        (98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5), True
    ),
}

_CIFAR10 = {
    ("ocsvm", ""): Published((61.6, 63.8, 50.0, 55.9, 66.0, 62.4, 74.7, 62.6, 74.9, 75.9), False),
    ("kde", ""): Published((61.2, 64.0, 50.1, 56.4, 66.2, 62.4, 74.9, 62.6, 75.1, 76.0), False),
    ("isolation_forest", ""): Published(
        (60.1, 50.8, 49.2, 55.1, 49.8, 58.5, 42.9, 55.1, 74.2, 58.9), False
    ),
    ("dcae", "reconstruction"): Published(
        (59.1, 57.4, 48.9, 58.4, 54.0, 62.2, 51.2, 58.6, 76.8, 67.3), False
    ),
    (_ANY_DEEP, "soft-boundary"): Published(
        (61.7, 64.8, 49.5, 56.0, 59.1, 62.1, 67.8, 65.2, 75.6, 71.0), False
    ),
    (_ANY_DEEP, "one-class"): Published(
        (61.7, 65.9, 50.8, 59.1, 60.9, 65.7, 67.7, 67.3, 75.9, 73.1), True
    ),
}

# Stop signs against 20 adversarial ones, which were never published. Two recollections of the
# shallow methods differ, so they are only in `docs/experiments.md`.
_ADVERSARIAL = {
    ("dcae", "reconstruction"): Published((79.1,), False, 14),
    (_ANY_DEEP, "soft-boundary"): Published((77.8,), False, 14),
    (_ANY_DEEP, "one-class"): Published((80.3,), False, 14),
}

_TABLES = {"mnist": _MNIST, "cifar10": _CIFAR10, "gtsrb_adversarial": _ADVERSARIAL}

# The report behind the preset `itu`: digit 1, one run.
_ITU = {
    "deep_svdd": {
        "auroc": 0.9975,
        "threshold": 0.0053,
        "accuracy": 0.8715,
        "precision": 0.9993,
        "recall": 0.8556,
        "f1": 0.9219,
        "epochs": 28.0,
        "test_minimum": 0.0006,
        "test_maximum": 0.0244,
        "test_mean": 0.0072,
        "test_median": 0.0072,
        "train_minimum": 0.0005,
        "train_maximum": 0.0130,
    },
    "ocsvm": {"auroc": 0.9971},
    "isolation_forest": {"auroc": 0.9929},
}


def published_auroc(
    dataset: str, preset: str, protocol: str, method: str, objective: str, normal_class: int
) -> tuple[float, bool] | None:
    """Returns a published AUROC in [0, 1] and whether it is certain; None where there is none."""
    if protocol != "one-vs-rest":
        return None
    if preset == "itu":
        found = itu_figures(dataset, preset, method, normal_class)
        return (found["auroc"], True) if found else None
    family = _ANY_DEEP if method in _DEEP_NAMES else method
    table = _TABLES.get(dataset, {}).get((family, objective))
    if table is None or not 0 <= normal_class - table.first < len(table.values):
        return None
    return table.values[normal_class - table.first] / 100.0, table.certain


def itu_figures(dataset: str, preset: str, method: str, normal_class: int) -> dict[str, float]:
    """Returns the figures of the ITU report for a method; empty for other presets and digits than
    1."""
    if (dataset, preset, normal_class) != ("mnist", "itu", 1):
        return {}
    return _ITU.get(method, {})
