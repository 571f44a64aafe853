"""Deep SVDD as a scikit-learn outlier detector, for tables and for images."""

import dataclasses
import math
import numbers
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from deepsvdd_jax import configs, objectives, recipes
from deepsvdd_jax.configs import (
    MOST_SEEDS,
    ConfigError,
    DetectorConfig,
    NetworkConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
    as_kind,
)
from deepsvdd_jax.detectors import deep_svdd, frames
from deepsvdd_jax.detectors.held_out import default_alarm_rate
from deepsvdd_jax.detectors.scores import member_distances, score_images, training_scores
from deepsvdd_jax.scoring import calibration

Floats = npt.NDArray[np.float64]

# Of `n_seeds='auto'`: from one to five members tables gain as much as from one to ten.
MEMBERS_OF_TABLES = 5

PREPROCESSING: dict[str, PreprocessingConfig] = {
    "none": PreprocessingConfig(min_max=False),
    "min_max": PreprocessingConfig(),
    "standardize": PreprocessingConfig(min_max=False, standardize=True),
    "contrast": PreprocessingConfig(contrast="l1"),
}


class DeepSVDD(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator):
    """Deep support vector data description (Ruff et al. 2018): a network that maps normal samples
    close to one point; what lands far from it is anomalous.

    Train it on normal samples; a few anomalous ones among them do little harm. `X` is a table `[n,
    features]` (columns in any unit and with any offset: they are scaled in float64) or images `[n,
    height, width]` or `[n, height, width, channels]`: floats as they are, integers as grey levels
    of 0 .. 255. numpy, JAX, DataFrames of pandas or polars, or anything that numpy takes.

    Parameters
    ----------
    objective : {'one-class', 'soft-boundary', 'deep-sad', 'hsc', 'bce', 'transformations'}
        Mean squared distance to the center, or a sphere that some samples may lie outside of. With
        labels in `fit`: Deep SAD, which uses known anomalies where there are some, or the
        hypersphere classifier and the plain classifier, which need them. Of square images, without
        labels: a classifier of how they were turned.
    nu : float in (0, 1]
        Share of the training samples outside the sphere: of the soft boundary, and of `radius_`.
    contamination : 'auto' or float in (0, 0.5]
        Share of the given samples that `predict` calls anomalous. 'auto' leaves that to
        `false_alarm_rate`; without held-out samples it is 1 % of the training samples, or those
        outside the sphere for a soft boundary, and new samples may raise many more alarms.
    false_alarm_rate : float in (0, 1), optional
        A normal sample is called anomalous with this probability at most, by a threshold from the
        held-out samples. None: 1 %, or what they are enough for.
    network : 'auto', a name of `deepsvdd_jax.NETWORKS` or a NetworkConfig
        'auto' is dense layers for tables, a LeNet for images.
    rep_dim : int, optional
        Width of the representation; by default the network's own.
    epochs, learning_rate, batch_size, weight_decay
        Of the training, by Adam.
    pretrain_epochs : int
        Epochs of an autoencoder whose encoder the training starts from; 0 is none.
    preprocessing : 'auto', 'none', 'min_max', 'standardize', 'contrast' or a PreprocessingConfig
        'auto' standardises the columns of a table and normalises the contrast of images.
    embedding_score : 'center', 'neighbors' or 'mahalanobis'
        What a new sample's embedding is compared with: the center; the five nearest training
        embeddings, by mean distance; or their mean and covariance. Such a model is not exported.
    calibration_fraction : float in [0, 1)
        Share of the samples that is held out of training to calibrate threshold and `p_values`; 0
        trains on all.
    n_seeds : 'auto' or int
        Members of an ensemble, trained in one program. 'auto' is 5 for tables, which gain from it
        and take little time, and 1 for images and for a soft boundary.
    random_state : int, RandomState or None
        Member k of an ensemble draws from `random_state + k`. An int gives the same result twice.
    verbose : bool
        Show a progress bar.

    Attributes
    ----------
    model_ : Model
        What `save_model` writes and `score_images` takes.
    center_ : ndarray [n_seeds, rep_dim]
    radius_ : ndarray [n_seeds]
        R, the root of the squared radius.
    offset_ : float
        `score_samples` below this is anomalous.
    reference_scores_ : ndarray
        Ascending anomaly scores that `predict_proba` compares with: of the held-out samples where
        there are some, else of the training samples.
    history_ : dict
        `history_['training']['loss']` is `[n_seeds, epochs]`; see `training.EpochInfo`.
    n_features_in_ : int
        Columns, or pixels times channels.
    feature_names_in_ : ndarray
        Names of the columns, where `X` has them.

    Examples
    --------
    >>> import numpy as np, deepsvdd_jax as svdd
    >>> normal = np.random.RandomState(0).randn(200, 5)
    >>> detector = svdd.DeepSVDD(epochs=20).fit(normal)
    >>> detector.predict(np.full((1, 5), 9.0))
    array([-1])
    """

    def __init__(
        self,
        *,
        objective: Literal[
            "one-class", "soft-boundary", "deep-sad", "hsc", "bce", "transformations"
        ] = "one-class",
        nu: float = 0.1,
        contamination: float | Literal["auto"] = "auto",
        false_alarm_rate: float | None = None,
        network: str | NetworkConfig = "auto",
        rep_dim: int | None = None,
        epochs: int = 50,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        weight_decay: float = 1e-6,
        pretrain_epochs: int = 0,
        preprocessing: str | PreprocessingConfig = "auto",
        embedding_score: Literal["center", "neighbors", "mahalanobis"] = "center",
        calibration_fraction: float = 0.2,
        n_seeds: int | Literal["auto"] = "auto",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.objective = objective
        self.nu = nu
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.network = network
        self.rep_dim = rep_dim
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.pretrain_epochs = pretrain_epochs
        self.preprocessing = preprocessing
        self.embedding_score = embedding_score
        self.calibration_fraction = calibration_fraction
        self.n_seeds = n_seeds
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on samples, taken as normal where no label says something else.

        `y` is for the objectives that learn from labels: 0 unlabelled, 1 known to be normal, -1
        known to be anomalous; None is 0 for all. Other objectives ignore it, as scikit-learn's
        outlier detectors do.

        Raises:
          ValueError: samples that cannot be trained on, or a parameter that is wrong.
          TrainingError: the training diverged.
        """
        images = self._validated(X, reset=True)
        labels = self._labels(y)
        unknown = len(images) if labels is None else int(np.sum(labels != -1))
        config = self._detector_config(unknown, images.shape[1:])
        names = tuple(str(name) for name in getattr(self, "feature_names_in_", ()))
        with tqdm(disable=not self.verbose, desc="DeepSVDD", unit="epoch") as bar:

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            self.model_, self.history_ = deep_svdd.fit_detector(
                config,
                images,
                labels=labels,
                feature_names=names,
                on_progress=report if self.verbose else None,
            )
        self.center_ = self.model_.center
        self.radius_ = np.sqrt(self.model_.squared_radius)
        self.offset_ = -self.model_.threshold
        self.reference_scores_ = self.model_.calibration_scores
        if not self.calibration_fraction:
            normal = images if labels is None else images[labels != -1]
            self.reference_scores_ = np.sort(training_scores(self.model_, normal))
        return self

    def score_samples(self, X: Any) -> Floats:
        """Returns the negated anomaly scores `[n]`, higher = more normal.

        The score is a squared distance d; d - R^2 for a soft boundary; for an ensemble the mean
        over its members of d in units of its training mean. With another `embedding_score` d is the
        mean distance to five training embeddings, or the squared Mahalanobis distance.
        """
        return -self._anomaly_scores(X)

    def decision_function(self, X: Any) -> Floats:
        """Returns `score_samples(X) - offset_`, `[n]`, negative = anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Returns -1 for anomalous and 1 for normal samples, `[n]`."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Floats:
        """Returns conformal p-values `[n]`: a normal sample has p <= a with probability a at most.

        Raises:
          ValueError: no samples were held out for them.
        """
        check_is_fitted(self)
        if not len(self.model_.calibration_scores):
            raise ValueError("p_values need held-out samples: set calibration_fraction above 0")
        return calibration.conformal_p_values(self.reference_scores_, self._anomaly_scores(X))

    def transform(self, X: Any) -> Floats:
        """Returns the squared distances to each member's center, `[n, n_seeds]`, or what
        `embedding_score` has in their place.

        `score_samples` is their negated mean in units of the members' training means (for one
        member the negated distance, or R^2 - d for a soft boundary).

        As of every transformer of scikit-learn, `set_output(transform="pandas")` or `"polars"`
        makes it a DataFrame, with the index of `X`.
        """
        check_is_fitted(self)
        images = self._validated(X, reset=False)
        return member_distances(self.model_, images).T.astype(np.float64)

    def score_frame(self, X: Any) -> Any:
        """Returns a DataFrame with a row for each of `X`: of pandas, with the same index, or of
        polars.

        Its columns are those of a file of scores: `score`, higher = more anomalous; `p_value`,
        where samples were held out; `anomalous`, what `predict` calls -1.

        Raises:
          TypeError: `X` is no DataFrame.
        """
        scores = self._anomaly_scores(X)
        columns: dict[str, npt.NDArray[Any]] = {"score": scores}
        if len(self.model_.calibration_scores):
            columns["p_value"] = calibration.conformal_p_values(self.reference_scores_, scores)
        columns["anomalous"] = -scores - self.offset_ < 0
        return frames.frame_like(X, columns)

    def predict_proba(self, X: Any) -> Floats:
        """Returns `[n, 2]`: p and 1 - p, normal first.

        p is the share of `reference_scores_`, the sample's own counted in, that are as high as the
        sample's score: the conformal p-value with a `calibration_fraction`, whose second column
        exceeds 1 - a for a share a of normal samples at most. Without one it comes from the
        training samples, is too low for new ones and bounds nothing. It is no posterior
        probability, which no detector can tell that has seen no anomalies. It never rises where
        `score_samples` falls, but it is a step function: rank with `score_samples`.
        """
        scores = self._anomaly_scores(X)
        normal = calibration.conformal_p_values(self.reference_scores_, scores)
        return np.stack([normal, 1.0 - normal], axis=1)

    @property
    def _n_features_out(self) -> int:
        return len(self.center_)

    def _labels(self, y: Any) -> npt.NDArray[Any] | None:
        """Returns the labels that the objective learns from; None where it ignores them."""
        kind = configs.objective_class(self.objective)
        return None if y is None or not kind().uses_labels else np.asarray(y)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _anomaly_scores(self, X: Any) -> Floats:
        check_is_fitted(self)
        images = self._validated(X, reset=False)
        return score_images(self.model_, images).astype(np.float64)

    def _validated(self, X: Any, *, reset: bool) -> npt.NDArray[Any]:
        """Returns a table `[n, features]` or images `[n, height, width, channels]`."""
        fewest = 2 if reset else 1
        axes = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        if axes not in (3, 4):
            return validate_data(self, X, reset=reset, ensure_min_samples=fewest)
        images = check_array(
            X, allow_nd=True, ensure_min_samples=fewest, estimator=self, input_name="X"
        )
        images = images[..., None] if images.ndim == 3 else images
        if reset:
            self.n_features_in_ = math.prod(images.shape[1:])
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif images.shape[1:] != self.model_.image_shape:
            raise ValueError(
                f"X has images of shape {images.shape[1:]}, but DeepSVDD is expecting samples of "
                f"shape {self.model_.image_shape} as input."
            )
        return images

    def _detector_config(self, count: int, shape: tuple[int, ...]) -> DetectorConfig:
        """Returns the configuration for a number of samples of a shape."""
        fraction = _real("calibration_fraction", self.calibration_fraction)
        config = DetectorConfig(
            run=self._run_config(shape),
            seeds=_seeds(self.random_state, self._member_count(shape)),
            calibration_fraction=fraction,
            embedding_score=self.embedding_score,
        )
        if self.contamination != "auto":
            if self.false_alarm_rate is not None:
                raise ConfigError(
                    "contamination and false_alarm_rate both set the threshold; give one"
                )
            share = _real("contamination", self.contamination)
            return dataclasses.replace(config, threshold_rule="contamination", contamination=share)
        if self.false_alarm_rate is not None:
            rate = _real("false_alarm_rate", self.false_alarm_rate)
        elif fraction:
            rate = default_alarm_rate(fraction, count)
        else:
            has_radius = objectives.objective(config.run.training.objective).has_radius
            rule: Literal["radius", "quantile"] = "radius" if has_radius else "quantile"
            return dataclasses.replace(config, threshold_rule=rule)
        return dataclasses.replace(config, threshold_rule="conformal", alarm_rate=rate)

    def _member_count(self, shape: tuple[int, ...]) -> int:
        if self.n_seeds == "auto":
            # A soft boundary's score of one member is d - R^2: it says on which side of it x lies.
            together = len(shape) == 1 and self.objective != "soft-boundary"
            return MEMBERS_OF_TABLES if together else 1
        count = _whole("n_seeds", self.n_seeds, 1)
        if count > MOST_SEEDS:
            raise ConfigError(f"n_seeds is {count}; it must be at most {MOST_SEEDS}")
        return count

    def _run_config(self, shape: tuple[int, ...]) -> RunConfig:
        recipe = recipes.preset("auto", "array", shape)
        training = self._training(recipe.training)
        pretrain_epochs = _whole("pretrain_epochs", self.pretrain_epochs, 0)
        pretraining = dataclasses.replace(
            recipes.default_autoencoder(training), epochs=max(pretrain_epochs, 1)
        )
        return dataclasses.replace(
            recipe,
            network=self._network(recipe.network),
            preprocessing=self._preprocessing(recipe.preprocessing),
            training=training,
            pretraining=pretraining if pretrain_epochs else None,
        )

    def _training(self, recipe: PhaseConfig) -> PhaseConfig:
        """Returns the training phase; where the recipe lowers the rate, it does so as late."""
        epochs = _whole("epochs", self.epochs, 1)
        lowered = {
            max(1, round(epoch / recipe.epochs * epochs)) for epoch in recipe.optimizer.milestones
        }
        return dataclasses.replace(
            recipe,
            objective=dataclasses.replace(
                as_kind(recipe.objective, self.objective), nu=_real("nu", self.nu)
            ),
            optimizer=OptimizerConfig(
                "adam",
                _real("learning_rate", self.learning_rate),
                milestones=tuple(sorted(lowered)),
            ),
            epochs=epochs,
            batch_size=_whole("batch_size", self.batch_size, 1),
            weight_decay=_real("weight_decay", self.weight_decay),
        )

    def _network(self, recipe: NetworkConfig) -> NetworkConfig:
        network = recipe
        if isinstance(self.network, NetworkConfig):
            network = self.network
        elif self.network != "auto":
            network = recipes.named_network(self.network)
        if self.rep_dim is None:
            return network
        return dataclasses.replace(network, rep_dim=_whole("rep_dim", self.rep_dim, 1))

    def _preprocessing(self, recipe: PreprocessingConfig) -> PreprocessingConfig:
        if isinstance(self.preprocessing, PreprocessingConfig):
            return self.preprocessing
        if self.preprocessing == "auto":
            return recipe
        if self.preprocessing not in PREPROCESSING:
            allowed = ", ".join(("auto", *PREPROCESSING))
            raise ConfigError(f"preprocessing is {self.preprocessing!r}; allowed: {allowed}")
        return PREPROCESSING[self.preprocessing]


def _seeds(random_state: int | np.random.RandomState | None, count: int) -> tuple[int, ...]:
    random = check_random_state(random_state)
    if isinstance(random_state, numbers.Integral):
        first = int(random_state)
    else:
        first = int(random.randint(2**31 - 1))
    return tuple(range(first, first + count))


def _whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, numbers.Integral) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of {least} or more")
    return int(value)


def _real(name: str, value: object) -> float:
    if not isinstance(value, numbers.Real):
        raise ConfigError(f"{name} is {value!r}; it must be a number")
    return float(value)
