"""Figures of maps against masks, by brute force over every threshold."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from deepsvdd_jax.scoring import localization

Maps = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


def drawn(seed: int, levels: int | None) -> tuple[Maps, Masks]:
    """Returns maps and masks of a few regions, some of them touching at a corner."""
    random = np.random.default_rng(seed)
    masks = np.zeros((4, 20, 15), bool)
    masks[0, 2:5, 3:9] = masks[0, 5:8, 9:11] = masks[0, 12:14, 1:3] = True
    masks[1, 7:8, 7:8] = masks[2, 0:3, 0:2] = masks[2, 18:, 10:] = True
    maps = random.normal(size=masks.shape) + 1.5 * masks
    if levels is not None:
        maps = np.round(maps * levels) / levels
    return maps.astype(np.float32), masks


def brute_force_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    regions = []
    for number, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=[[1, 1, 1], [1, 1, 1], [1, 1, 1]])
        regions += [(number, labels == region) for region in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        found = np.mean([called[number][region].mean() for number, region in regions])
        points.append((called[~masks].mean(), found))
    rates, shares = np.array(points).T
    grid = np.unique(np.append(rates[rates < limit], limit))
    # Where the curve stands upright the highest share counts from there on.
    total = 0.0
    for low, high in zip(grid[:-1], grid[1:], strict=True):
        start = shares[rates == low].max()
        after = rates > low
        end_rate, end_share = rates[after].min(), shares[rates == rates[after].min()].min()
        at_high = start + (end_share - start) * (high - low) / (end_rate - low)
        total += (high - low) * (start + at_high) / 2
    return float(total / limit)


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_those_of_every_threshold(seed: int, levels: int | None) -> None:
    maps, masks = drawn(seed, levels)
    pairs = zip(maps, masks, strict=True)
    found = localization.localization([localization.evidence(one, mask) for one, mask in pairs])
    assert found.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert found.aupro == pytest.approx(brute_force_aupro(maps, masks, 0.3), abs=1e-12)
    # A corner joins two rectangles of the first image.
    assert (found.images, found.regions) == (3, 5)
    hits = [masks[i][np.unravel_index(maps[i].argmax(), maps[i].shape)] for i in range(3)]
    assert found.hits == np.mean(hits)


def test_maps_that_are_the_masks_have_all_and_constant_ones_nothing() -> None:
    maps, masks = drawn(0, None)

    def figures(values: Maps) -> localization.Localization:
        pairs = zip(values, masks, strict=True)
        return localization.localization([localization.evidence(one, m) for one, m in pairs])

    perfect, constant = figures(masks.astype(np.float32)), figures(np.zeros_like(maps))
    assert (perfect.pixel_auroc, perfect.aupro, perfect.hits) == pytest.approx((1, 1, 1))
    # The diagonal: over rates up to 0.3 its mean is 0.15.
    assert (constant.pixel_auroc, constant.aupro) == pytest.approx((0.5, 0.15))


def test_masks_without_two_kinds_of_pixels_are_refused() -> None:
    values = np.zeros((3, 3), np.float32)
    for mask, words in ((np.zeros((3, 3), bool), "no pixel"), (np.ones((3, 3), bool), "every")):
        with pytest.raises(ValueError, match=words):
            localization.localization([localization.evidence(values, mask)])
    values[0, 0] = np.nan
    mask = np.eye(3, dtype=bool)
    with pytest.raises(ValueError, match="NaN"):
        localization.localization([localization.evidence(values, mask)])
