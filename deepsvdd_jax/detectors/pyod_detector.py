"""Deep SVDD as a detector of PyOD, for pipelines that use PyOD's interface.

Takes PyOD, an extra: `pip install 'deepsvdd_jax[pyod]'`. Nothing else in the package imports this.

    from deepsvdd_jax.detectors.pyod_detector import PyODDeepSVDD

    detector = PyODDeepSVDD(contamination=0.05).fit(X)
    detector.decision_scores_, detector.labels_, detector.predict(X_new)
"""

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pyod.models.base import BaseDetector
from sklearn.utils.validation import check_is_fitted

from deepsvdd_jax.configs import NetworkConfig, PreprocessingConfig
from deepsvdd_jax.detectors.estimator import DeepSVDD

Floats = npt.NDArray[np.float64]


class PyODDeepSVDD(BaseDetector):
    """Deep SVDD (Ruff et al. 2018) with PyOD's conventions: scores are higher for more anomalous
    samples, labels are 1 for anomalous and 0 for normal samples, and `contamination` of the
    training samples are called anomalous.

    Parameters
    ----------
    contamination : float in (0, 0.5]
        Share of the training samples that lies above `threshold_`.
    objective, nu, network, rep_dim, epochs, learning_rate, batch_size, weight_decay, \
pretrain_epochs, preprocessing, n_seeds, random_state, verbose
        As in `deepsvdd_jax.DeepSVDD`. Nothing is held out of training: for a threshold with a bound
        on false alarms, and for p-values, use that class.

    Attributes
    ----------
    detector_ : DeepSVDD
        What was fitted.
    decision_scores_ : ndarray [n]
        Anomaly scores of the training samples: squared distances to the center, d - R^2 for a soft
        boundary, for an ensemble the mean over its members in units of their training means.
    threshold_ : float
    labels_ : ndarray [n]
        1 where a training sample lies above `threshold_`, else 0.
    """

    def __init__(
        self,
        contamination: float = 0.1,
        *,
        objective: Literal["one-class", "soft-boundary"] = "one-class",
        nu: float = 0.1,
        network: str | NetworkConfig = "auto",
        rep_dim: int | None = None,
        epochs: int = 50,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        weight_decay: float = 1e-6,
        pretrain_epochs: int = 0,
        preprocessing: str | PreprocessingConfig = "auto",
        n_seeds: int | Literal["auto"] = "auto",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(contamination=contamination)
        self.objective = objective
        self.nu = nu
        self.network = network
        self.rep_dim = rep_dim
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.pretrain_epochs = pretrain_epochs
        self.preprocessing = preprocessing
        self.n_seeds = n_seeds
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on samples `[n, features]` or images `[n, height, width(, channels)]`; `y` is
        ignored, as PyOD's unsupervised detectors do.

        Raises:
          ValueError: samples that cannot be trained on, or a parameter that is wrong.
        """
        settings = {
            name: value for name, value in self.get_params(False).items() if name != "contamination"
        }
        self._set_n_classes(y)
        self.detector_ = DeepSVDD(**settings, calibration_fraction=0.0).fit(X)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: Any) -> Floats:
        """Returns the anomaly scores `[n]`, higher = more anomalous."""
        check_is_fitted(self, ["detector_"])
        return -self.detector_.score_samples(X)
