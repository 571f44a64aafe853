"""How well maps find defects whose pixels are known: pixel AUROC, AUPRO, hits of the maximum.

numpy and scipy, exact: nothing is sampled and no thresholds are chosen beforehand. Values of normal
pixels are kept, four bytes each, and sorted once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
FloatMap = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# The per-region overlap counts up to this false-positive rate (Bergmann et al., MVTec AD).
PRO_LIMIT = 0.3


class Localization(NamedTuple):
    """How well maps find defects, every figure in [0, 1].

    Attributes:
      pixel_auroc: area under the receiver operating characteristic over all pixels of all images.
      aupro: mean over the defects' regions of the share of their pixels that are found, over
        false-positive rates up to 0.3, divided by 0.3. A region is connected, corners included.
      hits: share of the images with a defect whose highest pixel lies in it.
      images: with a defect.
      regions: of all defects.
    """

    pixel_auroc: float
    aupro: float
    hits: float
    images: int
    regions: int


class Evidence(NamedTuple):
    """The values of one map inside and outside its mask.

    Attributes:
      normal: values of the pixels that are not marked, float32 `[m]`.
      defect: values of the marked ones, float32 `[k]`.
      region_sizes: of each marked pixel, how many pixels its region has, `[k]`.
      regions: how many there are.
      hit: whether the highest pixel is marked; None without marked pixels.
    """

    normal: FloatMap
    defect: FloatMap
    region_sizes: npt.NDArray[np.int64]
    regions: int
    hit: bool | None


def evidence(values: npt.NDArray[np.floating], mask: Mask) -> Evidence:
    """Returns the evidence of a map `[height, width]` and a mask of the same shape, True on a
    defect."""
    from scipy import ndimage

    values = np.asarray(values, np.float32)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels[mask], minlength=count + 1)
    hit = bool(mask.reshape(-1)[np.argmax(values)]) if count else None
    return Evidence(values[~mask], values[mask], sizes[labels[mask]], int(count), hit)


def localization(found: list[Evidence]) -> Localization:
    """Returns the figures of maps whose evidence is given, over all of their pixels together.

    Raises:
      ValueError: no pixel is marked, or none is not, or a value is not finite.
    """
    normal = np.sort(np.concatenate([one.normal for one in found]))
    defect = np.concatenate([one.defect for one in found])
    if not len(defect) or not len(normal):
        raise ValueError(f"{'no' if not len(defect) else 'every'} pixel is marked in all masks")
    if not (np.isfinite(normal[[0, -1]]).all() and np.isfinite(defect).all()):
        raise ValueError("maps hold values that are NaN or infinite")
    regions = sum(one.regions for one in found)
    shares = 1.0 / (np.concatenate([one.region_sizes for one in found]) * float(regions))
    hits = [one.hit for one in found if one.hit is not None]
    return Localization(
        pixel_auroc=_area(normal, defect, np.full(len(defect), 1.0 / len(defect)), 1.0),
        aupro=_area(normal, defect, shares, PRO_LIMIT),
        hits=float(np.mean(hits)),
        images=len(hits),
        regions=regions,
    )


def _area(normal: FloatMap, defect: FloatMap, weights: FloatArray, limit: float) -> float:
    """Returns the area under the curve of found weight over the false-positive rate from 0 to
    `limit`, divided by `limit`; between two thresholds the curve is straight.

    Args:
      normal: `[m]`, ascending.
      defect: `[k]`.
      weights: `[k]`, of the defect's pixels, with the sum 1.
      limit: in (0, 1].
    """
    levels, places = np.unique(defect, return_inverse=True)
    gained = np.bincount(places, weights, minlength=len(levels))[::-1]
    levels = levels[::-1]
    total = len(normal)
    # At a threshold the curve goes flat up to the normal pixels above it, then, where some are
    # equal to it, up and right at once.
    above = (total - np.searchsorted(normal, levels, side="right")) / total
    reached = (total - np.searchsorted(normal, levels, side="left")) / total
    after = np.cumsum(gained)
    before = after - gained
    rates = np.append(np.stack([above, reached], axis=1).reshape(-1), 1.0)
    shares = np.append(np.stack([before, after], axis=1).reshape(-1), 1.0)
    rates, shares = np.append(0.0, rates), np.append(0.0, shares)
    inside = rates <= limit
    last = int(np.count_nonzero(inside)) - 1
    widths = np.diff(rates[: last + 1])
    area = float(np.sum(widths * (shares[1 : last + 1] + shares[:last]) / 2))
    if last + 1 < len(rates):
        slope = (shares[last + 1] - shares[last]) / (rates[last + 1] - rates[last])
        rest = limit - rates[last]
        area += rest * (shares[last] + slope * rest / 2)
    return area / limit
