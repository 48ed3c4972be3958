"""Scalars as two-hot distributions and back: h, its inverse, encode and decode.

MuZero appendix F as EfficientZero uses it for values and value prefixes: a scalar x is compressed
by h(x), clipped to -S..S and split between the two nearest of 2S+1 integer bins. Bins of another
width (EfficientZero V2, control) divide h(x) by it first. Everything is computed in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 0.001  # of the linear term, which keeps the inverse Lipschitz
ZERO_BELOW = 0.001  # smaller decoded magnitudes become 0


def transform(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Compress a scalar: h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x."""
    x = x.astype(jnp.float32)
    magnitude = jnp.abs(x)
    # Deviates (transform of values, V2): odd, so that the inverse undoes it below 0, too.
    # sqrt(|x| + 1) - 1 without the subtraction, in which small x would lose their digits.
    root = magnitude / (jnp.sqrt(magnitude + 1) + 1)
    return jnp.sign(x) * root + EPSILON * x


def inverse_transform(y: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Undo `transform`.

    With u = sqrt(|x| + 1) - 1, |x| = u (u + 2) and |y| = u + 0.001 |x|, a quadratic in u. Its root
    is taken in the form 2c / (b + sqrt(b^2 + 4ac)): the usual form subtracts two numbers near 1
    and divides by 0.002, which in float32 is noise of 1e-4 on every decoded value.
    """
    y = y.astype(jnp.float32)
    magnitude = jnp.abs(y)
    b = 1 + 2 * EPSILON
    u = 2 * magnitude / (b + jnp.sqrt(b * b + 4 * EPSILON * magnitude))
    return jnp.sign(y) * u * (u + 2)


def two_hot(y: Float[Array, "*b"], support: int) -> Float[Array, "*b S"]:
    """Split a transformed scalar, clipped to -support..support, between its two nearest bins."""
    y = jnp.clip(y.astype(jnp.float32), -support, support)[..., None]
    bins = jnp.broadcast_to(_bins(support), (*y.shape[:-1], 2 * support + 1))
    return jnp.maximum(1 - jnp.abs(y - bins), 0)  # an integer has all its mass in one bin


def encode(x: Float[Array, "*b"], support: int, width: float = 1.0) -> Float[Array, "*b S"]:
    """Turn scalars into probabilities over 2 * support + 1 bins.

    Bin i stands for (i - support) * width in transformed units.
    """
    return two_hot(transform(x) / width, support)


def decode(logits: Float[Array, "*b S"], width: float = 1.0) -> Float[Array, "*b"]:
    """Decode the expectation of a distribution over bins of this width to a scalar.

    As published, magnitudes below 0.001 become exactly 0: an untrained head predicts 0.
    """
    # Deviates (NaN in a decoded value): it stays NaN, and its update is skipped.
    # Deviates (values of control, V2): they may be negative.
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))
    bins = jnp.broadcast_to(_bins(logits.shape[-1] // 2), logits.shape)
    y = (probabilities * bins).sum(-1)  # `@` would round to TF32 on a GPU
    x = inverse_transform(y * width)
    return jnp.where(jnp.abs(x) < ZERO_BELOW, 0.0, x)


def _bins(support: int) -> Float[Array, " S"]:
    """Return the bins -support..support."""
    return jnp.arange(-support, support + 1, dtype=jnp.float32)
