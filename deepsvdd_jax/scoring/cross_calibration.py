"""Calibration in which every sample is held out of one member, and none of all.

The samples are dealt into as many folds as an ensemble has members, and member k trains on all but
fold k. A sample i of fold k then has a score s_k(x_i) by a network that has not seen it, and a new
sample x is compared with it under the same network:

    p(x) = (1 + #{i : s_k(i)(x_i) >= s_k(i)(x)}) / (n + 1).

All n samples calibrate, and each member trains on a share 1 - 1 / K of them. The price is the
guarantee: where normals are exchangeable, P(p <= a) <= 2 a + `bound_excess`, against a for samples
that are held out of everything (Vovk 2015, cross-conformal predictors; Barber, Candes, Ramdas and
Tibshirani 2021, theorem 4, for the bound). In practice it stays close to a.
"""

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import ConfigError

Floats = npt.NDArray[np.float64]


def deal_folds(
    random: np.random.RandomState, groups: npt.ArrayLike, folds: int
) -> npt.NDArray[np.int64]:
    """Returns the fold of every sample, `[n]`: whole groups, as even in size as they allow.

    Args:
      random: deals the groups.
      groups: `[n]`, equal for samples that belong into one fold, as near-duplicates do.
      folds: how many, 2 or more.

    Raises:
      ConfigError: fewer than two folds, or fewer groups than folds.
    """
    if folds < 2:
        raise ConfigError(f"cross-calibration needs at least 2 members; there are {folds}")
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < folds:
        raise ConfigError(
            f"cross-calibration over {folds} members needs at least {folds} "
            f"samples (or groups of samples); there are {len(sizes)}"
        )
    fold_of_group = np.empty(len(sizes), np.int64)
    filled = np.zeros(folds, np.int64)
    # The largest first, each into the emptiest fold; equal ones in random order.
    order = random.permutation(len(sizes))
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of_group[group] = np.argmin(filled)
        filled[fold_of_group[group]] += sizes[group]
    return fold_of_group[members.reshape(-1)]


def cross_p_values(
    calibration_scores: npt.ArrayLike, folds: npt.ArrayLike, scores: npt.ArrayLike
) -> Floats:
    """Returns (1 + #{i : s_k(i)(x_i) >= s_k(i)(x)}) / (n + 1), `[m]`.

    Args:
      calibration_scores: `[n]`, of every sample by the member that has not seen it.
      folds: int `[n]`, which member that is.
      scores: `[members, m]`, of the new samples by every member.
    """
    known, fold = np.asarray(calibration_scores), np.asarray(folds)
    new = np.asarray(scores)
    at_least = np.zeros(new.shape[1])
    for member, of_member in enumerate(new):
        ordered = np.sort(known[fold == member])
        at_least += len(ordered) - np.searchsorted(ordered, of_member, side="left")
    return np.asarray((1.0 + at_least) / (len(known) + 1.0), np.float64)


def bound_excess(count: int, folds: int) -> float:
    """Returns the term that is added to 2 a in the bound on P(p <= a) for `count` samples in
    `folds` folds: min(2 (1 - 1/K) / (n/K + 1), (1 - K/n) / (K + 1))."""
    return min(
        2.0 * (1.0 - 1.0 / folds) / (count / folds + 1.0),
        (1.0 - folds / count) / (folds + 1.0),
    )
