"""Other detectors for tables: PyOD's if it is installed, else scikit-learn's with PyOD's settings,
which compute the same scores.

A detector is a function of training rows and a seed that returns a function from rows to scores,
higher = more anomalous. Rows are standardized by the training rows before they come here.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]
Fit = Callable[[Floats, int], Score]

# PyOD's defaults.
NEIGHBORS, FACTOR_NEIGHBORS, SVM_NU, TREES = 5, 20, 0.5, 100


class Peer(NamedTuple):
    """A detector.

    Attributes:
      title: as a reader knows it.
      source: `pyod` or `scikit-learn`.
      fit: trains it.
    """

    title: str
    source: str
    fit: Fit


def has_pyod() -> bool:
    """Returns whether PyOD can be imported; its DeepSVDD needs torch as well."""
    return importlib.util.find_spec("pyod") is not None


def has_torch() -> bool:
    """Returns whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def available() -> dict[str, Peer]:
    """Returns the detectors that can be used here, by the names that flags use."""
    if not has_pyod():
        return {
            "knn": Peer("KNN", "scikit-learn", fit_knn),
            "lof": Peer("LOF", "scikit-learn", fit_lof),
            "ocsvm": Peer("OC-SVM", "scikit-learn", fit_ocsvm),
            "iforest": Peer("isolation forest", "scikit-learn", fit_iforest),
        }
    peers = {
        "knn": Peer("KNN", "pyod", _fit_pyod("knn", "KNN")),
        "lof": Peer("LOF", "pyod", _fit_pyod("lof", "LOF")),
        "ocsvm": Peer("OC-SVM", "pyod", _fit_pyod("ocsvm", "OCSVM")),
        "iforest": Peer("isolation forest", "pyod", _fit_pyod_iforest),
    }
    if has_torch():
        peers["pyod_deep_svdd"] = Peer("PyOD's DeepSVDD", "pyod", _fit_pyod_deep_svdd)
    return peers


# --- scikit-learn, with PyOD's settings ---------------------------------------------------------


def fit_knn(train: Floats, seed: int) -> Score:
    """The distance to the fifth nearest training row."""
    search = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(train))).fit(train)
    return lambda rows: search.kneighbors(rows)[0][:, -1]


def fit_lof(train: Floats, seed: int) -> Score:
    """The local outlier factor, of 20 neighbors."""
    count = min(FACTOR_NEIGHBORS, len(train) - 1)
    machine = LocalOutlierFactor(count, novelty=True).fit(train)
    return lambda rows: -machine.score_samples(rows)


def fit_ocsvm(train: Floats, seed: int) -> Score:
    """A one-class SVM with the RBF kernel, gamma 1 / features, nu 0.5."""
    machine = OneClassSVM(gamma="auto", nu=SVM_NU).fit(train)
    return lambda rows: -machine.decision_function(rows)


def fit_iforest(train: Floats, seed: int) -> Score:
    """An isolation forest of 100 trees."""
    forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(train)
    return lambda rows: -forest.score_samples(rows)


# --- PyOD ---------------------------------------------------------------------------------------


def _fit_pyod(module: str, name: str) -> Fit:
    def fit(train: Floats, seed: int) -> Score:
        detector: Any = _pyod(module, name)()
        return detector.fit(train).decision_function

    return fit


def _fit_pyod_iforest(train: Floats, seed: int) -> Score:
    detector: Any = _pyod("iforest", "IForest")(random_state=seed)
    return detector.fit(train).decision_function


def _fit_pyod_deep_svdd(train: Floats, seed: int) -> Score:
    """With its defaults: 100 epochs, its own standardizing, a tenth held out for validation."""
    make = _pyod("deep_svdd", "DeepSVDD")
    detector: Any = make(n_features=train.shape[1], random_state=seed, verbose=0)
    return detector.fit(train).decision_function


def _pyod(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"pyod.models.{module}"), name)
