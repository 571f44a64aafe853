"""Maps laid over their images."""

import numpy as np

from deepsvdd_jax.viz import overlays


def test_colour_follows_one_scale() -> None:
    image = np.full((1, 3, 1), 100, np.uint8)
    found = overlays.overlay(image, np.array([[1.0, 2.0, 3.0]]), (1.0, 3.0))
    # No colour at the low end; three quarters of the last colour at the high end.
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[0, 2].tolist() == [round(25 + 0.75 * c) for c in (252, 255, 190)]
    half = [round(100 * 0.625 + 0.375 * c) for c in (229, 92, 48)]
    assert found[0, 1].tolist() == half
    beyond = overlays.overlay(image, np.array([[-5.0, 2.0, 9.0]]), (1.0, 3.0))
    np.testing.assert_array_equal(beyond, found)
    flat = overlays.overlay(image, np.array([[1.0, 2.0, 3.0]]), (2.0, 2.0))
    assert (flat == 100).all()


def test_what_is_marked_has_an_outline() -> None:
    values = np.zeros((6, 6))
    values[1:5, 1:5] = 1.0
    inner = np.zeros((6, 6), bool)
    inner[2:4, 2:4] = True
    expected = (values > 0) & ~inner
    np.testing.assert_array_equal(overlays.outline(values > 0.5), expected)
    image = np.zeros((6, 6, 3), np.uint8)
    drawn = overlays.overlay(image, values, (0.0, 9.0), threshold=0.5)
    np.testing.assert_array_equal((drawn == [0, 255, 255]).all(axis=2), expected)
    assert overlays.outline(np.ones((2, 2), bool)).all()


def test_images_of_more_bits_are_stretched() -> None:
    image = np.array([[[1000], [2000], [3000]]], np.uint16)
    assert overlays.eight_bits(image).ravel().tolist() == [0, 128, 255]
    same = np.array([[[7]]], np.uint8)
    assert overlays.eight_bits(same)[0, 0, 0] == 7


def test_a_reduced_map_keeps_every_maximum() -> None:
    values = np.random.default_rng(0).random((13, 10))
    found = overlays.reduce_map(values, (4, 3))
    rows, columns = [0, 3, 6, 9, 13], [0, 3, 6, 10]
    for i in range(4):
        for j in range(3):
            block = values[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert found[i, j] == np.float32(block.max())
