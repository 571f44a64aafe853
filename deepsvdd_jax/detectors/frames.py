"""Results as a DataFrame of the kind that the samples came in: pandas with its index, or polars."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt


def frame_like(samples: Any, columns: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Returns columns `[n]` as a DataFrame of the library of `samples`, rows in the same order.

    Args:
      samples: a DataFrame `[n, features]` of pandas, whose index is kept, or of polars.
      columns: name → values.

    Raises:
      TypeError: samples of another type.
    """
    # A frame is there only where its library has been imported.
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(samples, pandas.DataFrame):
        return pandas.DataFrame(dict(columns), index=samples.index)
    if polars is not None and isinstance(samples, polars.DataFrame):
        return polars.DataFrame(dict(columns))
    raise TypeError(
        f"X is {type(samples).__name__}; a DataFrame of pandas or polars gives a DataFrame, use "
        "score_samples, p_values and predict for arrays"
    )
