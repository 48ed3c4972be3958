"""Image augmentation: random shift and intensity (DrQ, Kostrikov et al., 2021)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

MIN_SIZE_PER_SHIFT = 16  # images below 64 pixels are not shifted by 4


def can_be_shifted(shape: tuple[int, ...], shift: int) -> bool:
    """Whether a shift preserves the meaning of an image: on a board every cell counts."""
    return len(shape) == 3 and min(shape[:2]) >= MIN_SIZE_PER_SHIFT * shift


def augment(
    frames: UInt8[Array, "B F H W C"], key: Array, *, shift: int, intensity: float
) -> Float[Array, "B F H W C"]:
    """Shift by up to `shift` pixels and scale the brightness, alike for all frames of a sample.

    The gap is filled by repeating the edge. The brightness factor is 1 + intensity * N(0, 1), with
    the normal variable clipped to -2..2. Returns floats, about 0..1. The key is consumed.
    """
    shift_key, intensity_key = jax.random.split(key)
    batch, _, height, width, _ = frames.shape
    offset = jax.random.randint(shift_key, (batch, 2), -shift, shift + 1)

    def move(image: Array, by: Array) -> Array:  # a clipped gather is an edge-padded crop
        row = jnp.clip(jnp.arange(height) + by[0], 0, height - 1)
        column = jnp.clip(jnp.arange(width) + by[1], 0, width - 1)
        return image[:, row][:, :, column]

    moved = jax.vmap(move)(frames, offset).astype(jnp.float32) / 255
    noise = jnp.clip(jax.random.normal(intensity_key, (batch, 1, 1, 1, 1)), -2, 2)
    return moved * (1 + intensity * noise)
