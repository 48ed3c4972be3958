"""3x3 convolutions on a CPU by Winograd's minimal filtering, F(2x2, 3x3) (Lavin & Gray, 2016).

Each tile of 2x2 outputs takes 16 products where a plain convolution takes 36, and all products are
large matrix products, which XLA's CPU backend does best. Its own convolutions reach half of the
machine's matrix speed and less in the backward pass. Rounding is that of a plain convolution:
the transforms add and halve, nothing more.

Not for GPUs, whose libraries do this by themselves.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Below these the transforms cost more than they save (`python -m experiments.bench convolution`);
# in the backward pass there is more to save.
MIN_CHANNELS, MIN_CHANNELS_BACKWARD, MIN_TILES = 64, 32, 512

# Y = A^T [(G k G^T) * (B^T d B)] A, with d a 4x4 window of the input around 2x2 outputs Y.
INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)  # B^T
KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)  # G
OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)  # A^T

Images = Float[Array, "B H W c"]
Kernel = Float[Array, "3 3 c d"]


def convolve(
    x: Images, kernel: Kernel, strides: Sequence[int], padding: Any, **options: Any
) -> Images:
    """`jax.lax.conv_general_dilated` for 3x3 kernels padded by 1, by the quicker of two ways."""
    if jax.default_backend() == "cpu" and _pays(x, kernel, strides):
        return quickest(x, kernel)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _pays(x: Images, kernel: Kernel, strides: Sequence[int]) -> bool:
    batch, height, width, _ = x.shape
    tiles = batch * -(-height // 2) * -(-width // 2)
    is_plain = kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1) and x.dtype == jnp.float32
    return is_plain and min(kernel.shape[2:]) >= MIN_CHANNELS_BACKWARD and tiles >= MIN_TILES


@jax.custom_vjp
def quickest(x: Images, kernel: Kernel) -> Images:
    """Convolution of stride 1, padded by 1; by Winograd backwards, and forwards if it is wide."""
    return winograd(x, kernel) if min(kernel.shape[2:]) >= MIN_CHANNELS else plain(x, kernel)


def _forward(x: Images, kernel: Kernel) -> tuple[Images, tuple[Images, Kernel]]:
    return quickest(x, kernel), (x, kernel)


def _backward(residuals: tuple[Images, Kernel], grad: Images) -> tuple[Images, Kernel]:
    x, kernel = residuals
    turned = jnp.flip(kernel, axis=(0, 1)).transpose(0, 1, 3, 2)
    return winograd(grad, turned), _kernel_gradient(x, grad)


quickest.defvjp(_forward, _backward)


def plain(x: Images, kernel: Kernel) -> Images:
    """XLA's own convolution of stride 1, padded by 1 on every side."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def winograd(x: Images, kernel: Kernel) -> Images:
    """Convolution of stride 1, padded by 1 on every side."""
    batch, height, width, _ = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    weights = _on_rows_and_columns(KERNEL, kernel)
    products = [
        [
            (tiles.reshape(-1, tiles.shape[-1]) @ weights[a][b]).reshape(batch, rows, columns, -1)
            for b, tiles in enumerate(row)
        ]
        for a, row in enumerate(_input_tiles(x))
    ]
    outputs = _on_rows_and_columns(OUTPUT, products)
    interleaved = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)
    y = interleaved.reshape(batch, 2 * rows, 2 * columns, -1)
    return y[:, :height, :width]


def _kernel_gradient(x: Images, grad: Images) -> Kernel:
    """The gradient of the 16 weights of every pair of channels, taken back to 3x3."""
    grads = _on_rows_and_columns(OUTPUT.T, _every_other(_even(grad), size=2))
    flat = lambda tiles: tiles.reshape(-1, tiles.shape[-1])  # noqa: E731
    weights = [
        [flat(tiles).T @ flat(grads[a][b]) for b, tiles in enumerate(row)]
        for a, row in enumerate(_input_tiles(x))
    ]
    return jnp.stack([jnp.stack(row) for row in _on_rows_and_columns(KERNEL.T, weights)])


def _input_tiles(x: Images) -> list[list[Array]]:
    """B^T d B of all windows: 4x4 arrays [B, rows, columns, c]."""
    padded = jnp.pad(_even(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _on_rows_and_columns(INPUT, _every_other(padded, size=4))


def _even(x: Images) -> Images:
    """Zeros below and on the right where a side is odd."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))


def _every_other(x: Images, size: int) -> list[list[Array]]:
    """Entry (i, j) of every size x size window, whose corners are two pixels apart."""
    rows, columns = (x.shape[1] - size) // 2 + 1, (x.shape[2] - size) // 2 + 1
    return [
        [x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for j in range(size)]
        for i in range(size)
    ]


def _on_rows_and_columns(matrix: np.ndarray, entries: Any) -> list[list[Array]]:
    """matrix @ entries @ matrix^T, where entries is a small matrix of arrays."""
    mixed = [_mix(matrix, column) for column in zip(*entries, strict=True)]  # by column, row
    return [_mix(matrix, row) for row in zip(*mixed, strict=True)]


def _mix(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """matrix @ arrays, without the products by 0, 1 and -1."""
    return [_sum(row, arrays) for row in matrix]


def _sum(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    terms = [_times(w, array) for w, array in zip(weights, arrays, strict=True) if w]
    return sum(terms[1:], terms[0])


def _times(weight: float, array: Array) -> Array:
    if abs(weight) == 1:
        return array if weight == 1 else -array
    return weight * array
