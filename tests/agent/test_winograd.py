"""Winograd's convolution against the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ez_jax.agent.networks import winograd

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


@pytest.fixture
def small_parts(monkeypatch):
    """Of about one image."""
    monkeypatch.setattr(winograd, "PART", 200)


def spread(exact):
    """What rounding is compared with."""
    return {"rtol": 0, "atol": 1e-5 * float(np.std(exact)) + 1e-6}


def test_it_is_the_convolution(data):
    exact = in_float64(*data)
    np.testing.assert_allclose(jax.jit(winograd.winograd)(*data), exact, **spread(exact))


@pytest.mark.usefixtures("small_parts")
def test_parts_are_put_together_in_order(data):
    exact = in_float64(*data)
    np.testing.assert_allclose(jax.jit(winograd.in_parts)(*data), exact, **spread(exact))


@pytest.mark.usefixtures("small_parts")
def test_its_gradients_are_those_of_the_plain_one(data):
    x, kernel = data
    shape = (*x.shape[:-1], kernel.shape[-1])
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=(1, 2))
    def gradients(convolve, x, kernel):
        return jnp.sum(weight * convolve(x, kernel))

    ours, theirs = (gradients(f, x, kernel) for f in (winograd.in_parts, winograd.plain))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, **spread(expected))


@pytest.mark.parametrize(("batch", "parts"), [(1, 1), (8, 2), (9, 3), (7, 1), (64, 16)])
def test_parts_are_even(batch, parts, monkeypatch):
    monkeypatch.setattr(winograd, "PART", 4 * 6 * 6)
    seen = []
    monkeypatch.setattr(winograd, "winograd", lambda x, kernel: seen.append(len(x)) or x)
    winograd.in_parts(jnp.zeros((batch, 6, 6, 1)), jnp.zeros((3, 3, 1, 1)))
    assert seen == [batch // parts] * parts


def test_it_rounds_little_worse_than_the_plain_one():
    rng = np.random.default_rng(0)
    x = np.maximum(0, rng.normal(size=(16, 6, 6, 64))).astype(np.float32)
    kernel = rng.uniform(-1, 1, size=(3, 3, 64, 64)).astype(np.float32) / 24
    exact = in_float64(x, kernel)
    ours, theirs = (
        np.abs(jax.jit(f)(x, kernel) - exact).max() for f in (winograd.winograd, winograd.plain)
    )
    assert ours < 6 * theirs


@pytest.mark.parametrize(
    ("batch", "channels", "strides", "dtype", "pays"),
    [
        (64, 64, (1, 1), jnp.float32, True),
        (64, 32, (1, 1), jnp.float32, True),
        (16, 64, (1, 1), jnp.float32, False),  # too few outputs
        (64, 16, (1, 1), jnp.float32, False),  # too few channels
        (64, 64, (2, 2), jnp.float32, False),
        (64, 64, (1, 1), jnp.bfloat16, False),  # rounds too much
    ],
)
def test_it_is_chosen_where_it_pays(batch, channels, strides, dtype, pays):
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
    is_chosen = pays and jax.default_backend() == "cpu"
    # Eight lines each for the images and their gradients; the kernel's are matrix products.
    assert program.count("conv_general_dilated[") == (16 if is_chosen else 3)


@pytest.mark.parametrize("channels", [1, 12, 16, 65])
def test_zeros_for_channels_change_nothing(channels):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 6, 6, channels)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, 4)), jnp.float32)
    wide, wide_kernel = winograd.aligned(x, kernel)
    assert wide.shape[-1] % 8 == wide_kernel.shape[2] % 8 == 0
    np.testing.assert_allclose(
        winograd.plain(wide, wide_kernel), winograd.plain(x, kernel), rtol=1e-5, atol=1e-5
    )
