"""The score of several members together; numpy, no jax.

Members differ in the scale of their distances, so that each member's are divided by their mean over
its training images before they are averaged.
"""

import numpy as np
import numpy.typing as npt


def member_units(train_means: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns the unit of each member's distances, `[members]`.

    Args:
      train_means: `[members]`, mean training distance of each; one whose distances are all 0 has
        no unit, and its distances stay as they are.
    """
    means = np.asarray(train_means, np.float64)
    return np.where(means > 0, means, 1.0)


def in_units(distances: npt.ArrayLike, train_means: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns distances `[members, n]` in units of each member's mean training distance."""
    with np.errstate(over="ignore"):
        return np.asarray(distances) / member_units(train_means)[:, None]


def mean_in_units(distances: npt.ArrayLike, train_means: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns the score of all members together, `[n]`, higher = more anomalous.

    Args:
      distances: `[members, n]`, never d - R^2, whose mean may be negative.
      train_means: see `member_units`.
    """
    with np.errstate(over="ignore"):
        return np.asarray(in_units(distances, train_means).mean(axis=0))
