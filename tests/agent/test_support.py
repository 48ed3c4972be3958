"""Scalars and two-hot distributions: properties (parity with the official code: test_parity.py)."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ez_jax.agent.support import decode, encode, inverse_transform, transform, two_hot

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


def test_narrow_bins_resolve_small_numbers():
    """With the widths of EfficientZero V2 for control: rewards up to 2 and values up to 299."""
    for width, largest in ((0.02937, 2.0), (0.6648, 299.0)):
        x = np.array([0.01, 0.5, 1.0, 1.01]) * largest
        probabilities = encode(jnp.asarray(x), 25, width)
        assert probabilities.shape == (4, 51)
        decoded = decode(jnp.log(probabilities + 1e-30), width)
        np.testing.assert_allclose(decoded, np.minimum(x, largest), rtol=2e-3)
        assert probabilities[2, -1] > 0.99, "it is in the last bin"


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
