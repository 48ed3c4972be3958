"""3x3 convolutions on a CPU by Winograd's minimal filtering along the rows (Lavin & Gray, 2016).

F(6, 3) takes 8 products for 6 outputs where a plain convolution takes 18; what remains are 1x3
convolutions along the columns. Filtering in both directions takes fewer products, but has to write
and read up to four times the image; here it is a third more. A large batch is processed in parts,
whose lines stay in cache until they are read, forwards and backwards.

The transforms multiply by up to 32, so the rounding error is about four times that of XLA's
convolution (1e-6 of the outputs' spread).

Not for GPUs, whose libraries already do this.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ez_jax.system import devices

# Below these, the transforms cost more than they save (`python -m experiments.bench convolution`).
MIN_CHANNELS, MIN_OUTPUTS = 32, 2048
PART = 4_000_000  # entries of a part: 16 MB
POINTS = np.array([0, 1, -1, 2, -2, 0.5, -0.5])  # of Toom-Cook; the last point is infinity
ROWS = len(POINTS) - 1  # outputs of a tile

Images = Float[Array, "B H W c"]
Kernel = Float[Array, "3 3 c d"]


def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T, G and A^T of y = A^T [(G k) * (B^T d)], with d the 8 inputs around 6 outputs y.

    Polynomials are multiplied at the points: G and A evaluate there, B interpolates, transposed.
    """
    powers = POINTS[:, None] ** np.arange(ROWS)
    at_infinity = np.eye(ROWS)[-1]
    scale = np.prod(POINTS[:, None] - POINTS + np.eye(len(POINTS)), axis=1)
    kernel = np.vstack([powers[:, :3] / scale[:, None], [0, 0, 1]])
    others = [np.poly(np.delete(POINTS, i))[::-1] for i in range(len(POINTS))]
    lines = np.vstack([np.pad(others, ((0, 0), (0, 1))), np.poly(POINTS)[::-1]])
    return lines, kernel, np.vstack([powers, at_infinity]).T


INPUT, KERNEL, OUTPUT = _transforms()


def convolve(
    x: Images, kernel: Kernel, strides: Sequence[int], padding: Any, **options: Any
) -> Images:
    """`jax.lax.conv_general_dilated` for 3x3 kernels padded by 1, by the faster of two methods."""
    if devices.platform() != "cpu":
        x, kernel = aligned(x, kernel)
    elif _pays(x, kernel, strides):
        return in_parts(x, kernel)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def aligned(x: Images, kernel: Kernel) -> tuple[Images, Kernel]:
    """The same with zeros for channels, up to a multiple of 8.

    A GPU's library would copy both to add them: 15 % of the time of the targets, as an H100 showed
    (experiments/results/gpu). Here they are written together with the image.
    """
    more = -x.shape[-1] % 8
    # Concatenated, not padded: what made the image may be a concatenation, and then both are one.
    x = jnp.concatenate([x, jnp.zeros((*x.shape[:-1], more), x.dtype)], axis=-1)
    return x, jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))


def _pays(x: Images, kernel: Kernel, strides: Sequence[int]) -> bool:
    is_plain = kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1) and x.dtype == jnp.float32
    is_wide = min(kernel.shape[2:]) >= MIN_CHANNELS
    return is_plain and is_wide and math.prod(x.shape[:3]) >= MIN_OUTPUTS


def plain(x: Images, kernel: Kernel) -> Images:
    """XLA's own convolution of stride 1, padded by 1 on every side."""
    return _convolve(x, kernel, ((1, 1), (1, 1)))


def _convolve(x: Images, kernel: Array, padding: Any) -> Images:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def in_parts(x: Images, kernel: Kernel) -> Images:
    """`winograd` in n parts of every n-th image, so that each part has images of every device."""
    fewest = max(1, -(-x.size // PART))
    count = next((n for n in range(fewest, len(x)) if len(x) % n == 0), 1)
    parts = x.reshape(-1, count, *x.shape[1:])
    outputs = jnp.stack([winograd(parts[:, i], kernel) for i in range(count)], axis=1)
    return outputs.reshape(-1, *outputs.shape[2:])


@jax.custom_vjp
def winograd(x: Images, kernel: Kernel) -> Images:
    """Convolution of stride 1, padded by 1 on every side; its gradients use the same method."""
    weights = _mix(KERNEL, list(kernel))
    lines = _mix(INPUT, _every_sixth(x, before=1, count=ROWS + 2))
    products = [
        _convolve(line, weight[None], ((0, 0), (1, 1)))
        for line, weight in zip(lines, weights, strict=True)
    ]
    rows = jnp.stack(_mix(OUTPUT, products), axis=2)
    return rows.reshape(len(x), -1, *rows.shape[3:])[:, : x.shape[1]]


def _forward(x: Images, kernel: Kernel) -> tuple[Images, tuple[Images, Kernel]]:
    return winograd(x, kernel), (x, kernel)


def _backward(residuals: tuple[Images, Kernel], grad: Images) -> tuple[Images, Kernel]:
    x, kernel = residuals
    turned = jnp.flip(kernel, axis=(0, 1)).transpose(0, 1, 3, 2)
    return winograd(grad, turned), _kernel_gradient(x, grad)


winograd.defvjp(_forward, _backward)


def _kernel_gradient(x: Images, grad: Images) -> Kernel:
    """The gradients of the 8 weights of 1x3, one matrix product each, taken back to 3x3."""
    width, (channels, outputs) = x.shape[2], (x.shape[-1], grad.shape[-1])
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    lines = _mix(INPUT, _every_sixth(x, before=1, count=ROWS + 2))
    grads = _mix(OUTPUT.T, _every_sixth(grad, before=0, count=ROWS))

    def gradient(line: Images, grad: Images) -> Float[Array, "3 c d"]:
        columns = jnp.concatenate([line[:, :, j : j + width] for j in range(3)], axis=-1)
        product = columns.reshape(-1, 3 * channels).T @ grad.reshape(-1, outputs)
        return product.reshape(3, channels, outputs)

    weights = [gradient(line, grad) for line, grad in zip(lines, grads, strict=True)]
    return jnp.stack(_mix(KERNEL.T, weights))


def _every_sixth(x: Images, before: int, count: int) -> list[Images]:
    """Row i of every tile, i < count; tiles begin six rows apart, the first one `before` x."""
    tiles = -(-x.shape[1] // ROWS)
    after = ROWS * (tiles - 1) + count - x.shape[1] - before
    x = jnp.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
    return [x[:, i : i + ROWS * (tiles - 1) + 1 : ROWS] for i in range(count)]


def _mix(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """matrix @ arrays, without the products by 0, 1 and -1."""
    return [_sum(row, arrays) for row in matrix]


def _sum(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    terms = [_times(w, array) for w, array in zip(weights, arrays, strict=True) if w]
    return sum(terms[1:], terms[0])


def _times(weight: float, array: Array) -> Array:
    if abs(weight) == 1:
        return array if weight == 1 else -array
    return float(weight) * array
