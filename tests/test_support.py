"""Scalars and two-hot distributions: parity with the official code and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_params import load
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ez_jax.support import ZERO_BELOW, decode, encode, inverse_transform, transform, two_hot

SUPPORT = 20
# What h maps to the edge of the support: sqrt(x + 1) - 1 + x / 1000 = 20.
LARGEST = float(inverse_transform(jnp.float32(SUPPORT)))
SIZE = 16  # one shape for all examples, so that everything is compiled once


def floats(bound: float) -> st.SearchStrategy:
    return arrays(np.float32, SIZE, elements=st.floats(-bound, bound, width=32))


h, h_inverse = jax.jit(transform), jax.jit(inverse_transform)
to_probabilities = jax.jit(lambda x: encode(x, SUPPORT))
to_scalar = jax.jit(lambda probabilities: decode(jnp.log(probabilities)))
fast = settings(deadline=None, max_examples=50)


@pytest.fixture(scope="module")
def golden() -> dict[str, jax.Array]:
    return jax.tree.map(jnp.asarray, load("transforms"))


@pytest.mark.parametrize(("support", "atol"), [(10, 1e-5), (300, 1e-4)])
def test_encoding_equals_the_official_code(golden, support, atol):
    x, prefix = golden[f"s{support}_x"], f"s{support}_"
    np.testing.assert_allclose(transform(x), golden[prefix + "h"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(encode(x, support), golden[prefix + "phi"], rtol=0, atol=atol)
    probabilities = two_hot(golden[prefix + "t"], support)
    np.testing.assert_allclose(probabilities, golden[prefix + "t_phi"], rtol=0, atol=atol)


@pytest.mark.parametrize("support", [10, 300])
def test_decoding_equals_the_official_code(golden, support):
    probabilities = golden[f"s{support}_phi"]
    logits = {"inv": golden[f"s{support}_logits"], "phi_roundtrip": jnp.log(probabilities)}
    for name, values in logits.items():
        expected = golden[f"s{support}_{name}"]
        deviation = np.abs(decode(values) - expected) / np.maximum(1, np.abs(expected))
        # The official inverse carries noise of 1e-4, enough to cross the threshold to zero.
        undecided = np.abs(np.abs(expected) - ZERO_BELOW) < 1e-4
        assert undecided.sum() <= 2
        assert deviation[~undecided].max() <= 5e-4, name


def test_the_inverse_is_more_exact_than_the_usual_formula():
    y = np.linspace(-300, 300, 4001, dtype=np.float32)
    exact = y.astype(np.float64)
    root = (np.sqrt(1 + 0.004 * (np.abs(exact) + 1.001)) - 1) / 0.002
    exact = np.sign(exact) * (root**2 - 1)
    np.testing.assert_allclose(inverse_transform(jnp.asarray(y)), exact, rtol=2e-6, atol=1e-6)


@fast
@given(floats(1e6))
def test_the_inverse_undoes_the_transform(x):
    np.testing.assert_allclose(h_inverse(h(x)), x, rtol=1e-5, atol=1e-6)


@fast
@given(floats(1e6))
def test_the_transform_is_odd_and_monotone(x):
    np.testing.assert_array_equal(h(-x), -h(x))
    assert np.all(np.diff(h(np.sort(x))) >= 0)


@fast
@given(floats(1e6))
def test_probabilities_are_two_hot(x):
    probabilities = np.asarray(to_probabilities(x))
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert probabilities.min() >= 0
    for row in probabilities:
        (filled,) = np.nonzero(row)
        assert filled.size == 1 or (filled.size == 2 and filled[1] == filled[0] + 1)


@fast
@given(floats(LARGEST))
def test_decoding_undoes_encoding(x):
    np.testing.assert_allclose(to_scalar(to_probabilities(x)), x, rtol=1e-4, atol=2e-3)


@fast
@given(floats(1e6))
def test_scalars_beyond_the_support_become_its_edge(x):
    beyond = np.sign(x) * (LARGEST + np.abs(x))
    decoded = to_scalar(to_probabilities(beyond))
    np.testing.assert_allclose(decoded, np.sign(x) * LARGEST, rtol=1e-4)


def test_integers_in_the_transformed_domain_have_one_bin():
    np.testing.assert_array_equal(two_hot(jnp.arange(-3.0, 4), 3), np.eye(7))


def test_tiny_expectations_decode_to_zero():
    logits = jnp.log(two_hot(jnp.array([4e-4, 2e-3, -4e-4]), 1))
    np.testing.assert_array_equal(decode(logits) == 0, [True, False, True])


def test_low_precision_inputs_are_computed_in_float32():
    x = jnp.array([1.5, -200.0], jnp.bfloat16)
    assert encode(x, SUPPORT).dtype == jnp.float32
    assert decode(encode(x, SUPPORT).astype(jnp.bfloat16)).dtype == jnp.float32
