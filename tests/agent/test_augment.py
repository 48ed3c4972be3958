"""Image augmentation against a plain crop of a padded image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ez_jax.agent.augment import augment

BATCH, FRAMES, HEIGHT, WIDTH, CHANNELS = 12, 3, 7, 5, 2
SHIFT, INTENSITY = 2, 0.1


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (BATCH, FRAMES, HEIGHT, WIDTH, CHANNELS), np.uint8)


@functools.partial(jax.jit, static_argnames=("shift", "intensity"))
def augmented(images, seed, shift, intensity):
    return augment(images, jax.random.key(seed), shift=shift, intensity=intensity)


def crops(frames: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """All crops [F, H, W, C] of one sample, padded by its edges, by offset."""
    padding = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = np.pad(frames, padding, mode="edge") / 255
    offsets = range(2 * SHIFT + 1)
    return {(y, x): padded[:, y : y + HEIGHT, x : x + WIDTH] for y in offsets for x in offsets}


def test_a_shift_is_a_crop_of_the_edge_padded_image_one_for_all_frames(images):
    result = np.asarray(augmented(images, 0, SHIFT, 0.0))
    found = set()
    for sample, frames in zip(result, images, strict=True):
        fits = [by for by, crop in crops(frames).items() if np.allclose(sample, crop, atol=1e-6)]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 1, "samples are shifted independently"


def test_every_shift_up_to_the_largest_occurs_both_ways():
    # Every pixel of a ramp tells where it came from.
    ramp = np.arange(9, dtype=np.uint8)[:, None] + 10 * np.arange(9, dtype=np.uint8)[None]
    images = np.broadcast_to(ramp[None, None, :, :, None], (600, 1, 9, 9, 1))
    centre = np.round(255 * np.asarray(augmented(images, 1, SHIFT, 0.0)))[:, 0, 4, 4, 0]
    rows, columns = centre % 10 - 4, centre // 10 - 4
    seen = {(int(y), int(x)) for y, x in zip(rows, columns, strict=True)}
    assert seen == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_brightness_is_one_clipped_normal_factor_per_sample():
    images = np.full((2_000, 2, 3, 3, 1), 255, np.uint8)
    factor = np.asarray(augmented(images, 2, SHIFT, INTENSITY))
    np.testing.assert_array_equal(factor, np.broadcast_to(factor[:, :1, :1, :1], factor.shape))
    noise = (factor[:, 0, 0, 0, 0] - 1) / INTENSITY
    assert np.abs(noise).max() <= 2 + 1e-4
    assert np.mean(noise > 1.999) == pytest.approx(0.0228, abs=0.015)  # beyond two deviations
    assert np.mean(noise) == pytest.approx(0, abs=0.1)
    assert np.std(noise) == pytest.approx(0.98, abs=0.08)


def test_without_shift_and_intensity_the_image_stays(images):
    result = augmented(jnp.asarray(images), 3, 0, 0.0)
    np.testing.assert_allclose(result, images / 255, rtol=1e-6)
