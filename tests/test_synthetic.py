"""Synthetic anomalies and augmentations: what they change, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import training
from deepsvdd_jax.configs import ConfigError, HSCConfig, PhaseConfig
from deepsvdd_jax.training import Batch, augmentation, synthetic

IMAGES = np.random.default_rng(0).uniform(-1, 2, size=(6, 32, 40, 3)).astype(np.float32)
defects = jax.jit(synthetic.defects, static_argnums=0)
KINDS = ("confetti", "cutpaste", "lines", "mix", "blobs", "cracks", "surface")


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_changed_inside_its_region_only(kind: str) -> None:
    made = defects(kind, jax.random.key(3), jnp.asarray(IMAGES))
    regions = np.asarray(made.regions)
    difference = np.abs(np.asarray(made.images) - IMAGES).max(axis=-1)
    assert regions.any(axis=(1, 2)).all()
    assert (difference.max(axis=(1, 2)) > 0.05).all()
    # Blurred edges reach one pixel beyond the mask.
    near = np.zeros_like(regions)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            near |= np.roll(regions, (down, across), axis=(1, 2))
    assert (difference[~near] == 0.0).all()
    assert regions.mean() < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_values_stay_in_the_range_of_the_images(kind: str) -> None:
    images = np.asarray(defects(kind, jax.random.key(4), jnp.asarray(IMAGES)).images)
    assert images.min() >= IMAGES.min() - 1e-6 and images.max() <= IMAGES.max() + 1e-6


def test_a_blob_is_a_spot_with_a_soft_edge_and_a_crack_is_thin() -> None:
    flat = np.full((40, 64, 64, 1), 0.5, np.float32)
    flat[:, 0, 0], flat[:, -1, -1] = 0.0, 1.0
    thickest = {}
    for kind in ("blobs", "cracks"):
        made = defects(kind, jax.random.key(0), jnp.asarray(flat))
        changed = np.abs(np.asarray(made.images) - flat)[..., 0]
        # Of the pixels that change, how many neither not at all nor most.
        partly = (changed > 0.05 * changed.max((1, 2), keepdims=True)) & (
            changed < 0.95 * changed.max((1, 2), keepdims=True)
        )
        assert partly.any()
        # How often a region can lose its outermost pixels.
        left, rounds = np.asarray(made.regions), 0
        while left.any():
            padded = np.pad(left, ((0, 0), (1, 1), (1, 1)))
            left = padded[:, 1:-1, 1:-1] & padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1]
            left &= padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
            rounds += 1
        thickest[kind] = rounds
    assert thickest["cracks"] <= 2 < thickest["blobs"]


def test_known_regions_move_with_their_images() -> None:
    regions = np.zeros((6, 32, 40), bool)
    regions[:, 4:9, 3:11] = True
    images = np.where(regions[..., None], 1.0, 0.0).astype(np.float32)
    batch = Batch(
        jnp.asarray(images), jnp.ones(6, bool), jnp.full(6, -1), regions=jnp.asarray(regions)
    )
    phase = PhaseConfig(HSCConfig(), augment=("shift", "flip", "jitter"))
    new = training.perturbed(phase, jax.random.key(0), batch)
    bright = np.asarray(new.images)[..., 0]
    middle = (bright.min((1, 2)) + bright.max((1, 2)))[:, None, None] / 2
    np.testing.assert_array_equal(new.regions, bright > middle)
    assert not np.array_equal(new.regions, regions)


def test_a_known_region_stays_beside_synthetic_ones() -> None:
    regions = np.zeros((6, 32, 40), bool)
    regions[1, 4:9, 3:11] = True
    labels = jnp.array([0, -1, 0, 1, 0, 0])
    batch = Batch(jnp.asarray(IMAGES), jnp.ones(6, bool), labels, jnp.asarray(regions))
    phase = PhaseConfig(HSCConfig(), synthetic_anomalies="lines")
    found = np.asarray(training.perturbed(phase, jax.random.key(0), batch).regions)
    np.testing.assert_array_equal(found[1], regions[1])
    assert found.any(axis=(1, 2)).tolist() == [False, True, True, False, True, False]


def test_a_turned_image_is_one_of_three_and_each_of_them_comes() -> None:
    square = IMAGES[:, :, :32]
    made = defects("rotate", jax.random.key(0), jnp.asarray(np.tile(square, (4, 1, 1, 1))))
    turns = []
    for image, before in zip(np.asarray(made.images), np.tile(square, (4, 1, 1, 1)), strict=True):
        # Quarter turns from transposed and reversed axes.
        across = before.transpose(1, 0, 2)
        expected = (across[::-1], before[::-1, ::-1], across[:, ::-1])
        turns.append([np.array_equal(image, other) for other in expected].index(True))
    assert set(turns) == {0, 1, 2}
    assert np.asarray(made.regions).all()


def test_shuffled_quarters_are_all_there_and_none_where_it_was() -> None:
    made = defects("shuffle", jax.random.key(0), jnp.asarray(IMAGES))
    top, left = IMAGES[:, :16], IMAGES[:, :, :20]
    np.testing.assert_array_equal(made.images[:, 16:, 20:], top[:, :, :20])
    np.testing.assert_array_equal(made.images[:, 16:, :20], top[:, :, 20:])
    np.testing.assert_array_equal(made.images[:, :16, 20:], left[:, 16:])
    np.testing.assert_array_equal(made.images[:, :16, :20], IMAGES[:, 16:, 20:])
    assert np.asarray(made.regions).all()


def test_recolored_images_have_their_channels_moved_or_their_range_reversed() -> None:
    images = np.tile(IMAGES, (4, 1, 1, 1))
    made = np.asarray(defects("recolor", jax.random.key(0), jnp.asarray(images)).images)
    ways = []
    for image, before in zip(made, images, strict=True):
        expected = (
            before[..., [2, 0, 1]],
            before[..., [1, 2, 0]],
            before.min() + before.max() - before,
        )
        ways.append([np.allclose(image, other, atol=1e-6) for other in expected].index(True))
    assert set(ways) == {0, 1, 2}


def test_of_a_gray_image_light_and_dark_change_places() -> None:
    gray = IMAGES[..., :1]
    made = np.asarray(defects("recolor", jax.random.key(0), jnp.asarray(gray)).images)
    ends = gray.min((1, 2, 3), keepdims=True) + gray.max((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(made, ends - gray, atol=1e-6)


def test_whole_changes_turn_some_images_shuffle_some_and_recolor_others() -> None:
    square = np.tile(IMAGES[:, :, :32], (4, 1, 1, 1))
    made = np.asarray(defects("whole", jax.random.key(0), jnp.asarray(square)).images)
    shuffled = np.roll(square, (16, 16), (1, 2))
    # Turns and shuffles keep every channel's values, colours do not keep the red ones.
    sums = np.sort(made[..., 0].reshape(24, -1)) == np.sort(square[..., 0].reshape(24, -1))
    kinds = {
        "shuffled" if np.array_equal(a, b) else "turned" if same.all() else "recolored"
        for a, b, same in zip(made, shuffled, sums, strict=True)
    }
    assert kinds == {"shuffled", "turned", "recolored"}


def test_a_pasted_patch_is_of_another_image() -> None:
    images = np.broadcast_to(np.arange(5.0).reshape(5, 1, 1, 1), (5, 20, 20, 1))
    made = synthetic.cutpaste(jax.random.key(0), jnp.asarray(images, jnp.float32))
    for number, (image, region) in enumerate(zip(*map(np.asarray, made), strict=True)):
        assert (image[region] != number).all() and (image[~region] == number).all()
        assert len(np.unique(image[region])) == 1


def test_a_shift_moves_every_pixel_alike_and_repeats_the_edge() -> None:
    ramp = np.arange(16 * 16, dtype=np.float32).reshape(1, 16, 16, 1)
    for seed in range(5):
        moved = np.asarray(augmentation.shift(jax.random.key(seed), jnp.asarray(ramp)))[0, :, :, 0]
        candidates = [
            np.pad(ramp[0, :, :, 0], 2, mode="edge")[2 + down :, 2 + across :][:16, :16]
            for down in range(-2, 3)
            for across in range(-2, 3)
        ]
        assert any(np.array_equal(moved, other) for other in candidates)


def test_flips_are_of_some_images_and_exact() -> None:
    flipped = np.asarray(augmentation.flip(jax.random.key(1), jnp.asarray(IMAGES)))
    same = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES, strict=True)]
    assert np.logical_xor(same, mirrored).all() and any(mirrored) and any(same)


def test_noise_is_a_tenth_of_an_images_deviation() -> None:
    changed = np.asarray(augmentation.noise(jax.random.key(0), jnp.asarray(IMAGES))) - IMAGES
    np.testing.assert_allclose(changed.std(), 0.1 * IMAGES.std(), rtol=0.05)


def test_jitter_keeps_the_order_of_values_within_a_channel() -> None:
    changed = np.asarray(augmentation.jitter(jax.random.key(0), jnp.asarray(IMAGES)))
    for before, after in zip(IMAGES, changed, strict=True):
        for channel in range(3):
            slope, offset = np.polyfit(before[..., channel].ravel(), after[..., channel].ravel(), 1)
            assert 0.8 <= slope <= 1.2
            expected = slope * before[..., channel] + offset
            np.testing.assert_allclose(after[..., channel], expected, atol=1e-5)


def test_nothing_is_changed_unless_asked_for() -> None:
    same = augmentation.augment((), jax.random.key(0), jnp.asarray(IMAGES))
    np.testing.assert_array_equal(same, IMAGES)
    assert not PhaseConfig().stochastic


def test_every_other_normal_image_of_a_batch_becomes_an_anomaly() -> None:
    labels = jnp.array([0, -1, 0, 1, 0, 0])
    batch = Batch(jnp.asarray(IMAGES), jnp.ones(6, bool), labels)
    phase = PhaseConfig(HSCConfig(), synthetic_anomalies="cutpaste")
    new = training.perturbed(phase, jax.random.key(0), batch)
    np.testing.assert_array_equal(new.labels, [0, -1, -1, 1, -1, 0])
    changed = [not np.array_equal(a, b) for a, b in zip(new.images, IMAGES, strict=True)]
    assert changed == [False, False, True, False, True, False]
    assert new.regions is not None
    np.testing.assert_array_equal(np.asarray(new.regions).any(axis=(1, 2)), changed)
    differs = np.abs(np.asarray(new.images) - IMAGES).max(axis=-1) > 0
    assert (np.asarray(new.regions) | ~differs).all()


def test_settings_without_effect_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not learn from anomalies"):
        PhaseConfig(synthetic_anomalies="confetti")
    with pytest.raises(ConfigError, match="augment is 'rotate'; allowed: shift, flip"):
        PhaseConfig(augment=("rotate",))
    with pytest.raises(ConfigError, match="augment is for images"):
        training.check_images(PhaseConfig(augment=("flip",)), (7,))
    with pytest.raises(ConfigError, match="rotate turns square images, and these are 32 x 40"):
        training.check_images(PhaseConfig(HSCConfig(), synthetic_anomalies="rotate"), (32, 40, 3))
