"""Winograd's convolution against the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ez_jax import winograd

pytestmark = pytest.mark.usefixtures("quick_compiling")


def in_float64(x, kernel):
    """The definition, written as sums."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifted = [
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    return np.sum(shifted, axis=0)


@pytest.fixture(
    params=[(2, 6, 6, 5, 3), (3, 1, 1, 2, 2), (1, 7, 4, 3, 5), (2, 5, 9, 1, 1)], ids=str
)
def data(request):
    batch, height, width, channels, outputs = request.param
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels, outputs)).astype(np.float32)
    return x, kernel


def test_it_is_the_convolution(data):
    found = jax.jit(winograd.winograd)(*data)
    np.testing.assert_allclose(found, in_float64(*data), rtol=1e-5, atol=1e-5)


def test_its_gradients_are_those_of_the_plain_one(data):
    x, kernel = data
    shape = (*x.shape[:-1], kernel.shape[-1])
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=(1, 2))
    def gradients(convolve, x, kernel):
        return jnp.sum(weight * convolve(x, kernel))

    ours, theirs = (gradients(f, x, kernel) for f in (winograd.quickest, winograd.plain))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, ours, theirs)


def test_it_rounds_no_worse_than_the_plain_one():
    rng = np.random.default_rng(0)
    x = np.maximum(0, rng.normal(size=(16, 6, 6, 64))).astype(np.float32)
    kernel = rng.uniform(-1, 1, size=(3, 3, 64, 64)).astype(np.float32) / 24
    exact = in_float64(x, kernel)
    ours, theirs = (
        np.abs(jax.jit(f)(x, kernel) - exact).max() for f in (winograd.winograd, winograd.plain)
    )
    assert ours < 4 * theirs


@pytest.mark.parametrize(
    ("batch", "channels", "strides", "dtype", "plain_ones"),  # of one forward and two backward
    [
        (64, 64, (1, 1), jnp.float32, 0),
        (64, 32, (1, 1), jnp.float32, 1),  # forwards it would not pay
        (16, 64, (1, 1), jnp.float32, 3),  # too few tiles
        (64, 16, (1, 1), jnp.float32, 3),  # too few channels
        (64, 64, (2, 2), jnp.float32, 3),
        (64, 64, (1, 1), jnp.bfloat16, 3),  # rounds too much
    ],
)
def test_it_is_chosen_where_it_pays(batch, channels, strides, dtype, plain_ones):
    x = jax.ShapeDtypeStruct((batch, 6, 6, channels), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), dtype)

    def loss(x, kernel):
        return jnp.sum(
            winograd.convolve(
                x, kernel, strides, ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            ** 2
        )

    program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, kernel))
    expected = plain_ones if jax.default_backend() == "cpu" else 3
    assert program.count("conv_general_dilated[") == expected
