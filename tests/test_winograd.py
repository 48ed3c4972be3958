"""Winograd's convolution against the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ez_jax import winograd


def plain(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


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
    np.testing.assert_allclose(winograd.winograd(*data), in_float64(*data), rtol=1e-5, atol=1e-5)


def test_its_gradients_are_those_of_the_plain_one(data):
    weight = np.random.default_rng(1).normal(size=plain(*data).shape).astype(np.float32)
    loss = lambda convolve: lambda x, k: jnp.sum(weight * convolve(x, k))  # noqa: E731
    grad = functools.partial(jax.grad, argnums=(0, 1))
    for ours, theirs in zip(
        grad(loss(winograd.winograd))(*data), grad(loss(plain))(*data), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_rounds_no_worse_than_the_plain_one():
    rng = np.random.default_rng(0)
    x = np.maximum(0, rng.normal(size=(16, 6, 6, 64))).astype(np.float32)
    kernel = rng.uniform(-1, 1, size=(3, 3, 64, 64)).astype(np.float32) / 24
    exact = in_float64(x, kernel)
    deviation = {f: np.abs(f(x, kernel) - exact).max() for f in (winograd.winograd, plain)}
    assert deviation[winograd.winograd] < 4 * deviation[plain]


@pytest.mark.parametrize(
    ("batch", "channels", "strides", "dtype", "expected"),
    [
        (64, 64, (1, 1), jnp.float32, True),
        (16, 64, (1, 1), jnp.float32, False),  # too few tiles
        (64, 16, (1, 1), jnp.float32, False),  # too few channels
        (64, 64, (2, 2), jnp.float32, False),
        (64, 64, (1, 1), jnp.bfloat16, False),  # rounds too much
    ],
)
def test_it_is_chosen_where_it_pays(batch, channels, strides, dtype, expected):
    x = jax.ShapeDtypeStruct((batch, 6, 6, channels), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), dtype)
    convolve = functools.partial(
        winograd.convolve,
        strides=strides,
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    program = str(jax.make_jaxpr(convolve)(x, kernel))
    is_winograd = "conv_general_dilated" not in program
    assert is_winograd == (expected and jax.default_backend() == "cpu")
