"""The squashed normal against SciPy and numbers of EfficientZero V2's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from ez_jax.agent import continuous

POLICY = jnp.array([0.3, -2.0, 0.7, -1.0])  # raw means, raw deviations of two numbers


def log_density(a: float, mean: float, deviation: float) -> float:
    """Of tanh(u), u normal, by the change of variables."""
    return stats.norm.logpdf(np.arctanh(a), mean, deviation) - np.log(1 - a**2)


def test_a_new_policy_is_as_wide_as_in_the_official_code():
    mean, deviation = continuous.moments(jnp.zeros(2))
    assert mean[0] == 0
    assert deviation[0] == pytest.approx(1.413, abs=1e-3)


def test_means_and_deviations_stay_within_their_bounds():
    mean, deviation = continuous.moments(jnp.array([1e4, -1e4, -1e4, 3.0]))
    np.testing.assert_allclose(mean, [5, -5])
    assert deviation[0] == pytest.approx(0.1)


def test_log_probability_is_the_density_of_the_squashed_normal():
    mean, deviation = np.asarray(continuous.moments(POLICY))
    for action in ([0.0, 0.0], [0.9, -0.5], [-0.998, 0.998]):
        expected = sum(map(log_density, action, mean, deviation))
        found = continuous.log_probability(POLICY, jnp.array(action))
        assert found == pytest.approx(expected, rel=1e-4)


def test_an_action_at_the_edge_has_a_finite_probability_and_gradient():
    of_edge = jax.grad(lambda policy: continuous.log_probability(policy, jnp.array([1.0, -1.0])))
    assert jnp.isfinite(of_edge(POLICY)).all()


@pytest.mark.parametrize("raw", [(0.0, 0.0), (0.3, 0.7), (-2.0, -1.0), (4.0, -3.0)])
def test_entropy_is_the_integral(raw):
    mean, deviation = (float(moment[0]) for moment in continuous.moments(jnp.array(raw)))

    def integrand(u: float) -> float:
        log_normal = stats.norm.logpdf(u, mean, deviation)
        log_slope = 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
        return -np.exp(log_normal) * (log_normal - log_slope)

    expected, _ = integrate.quad(integrand, mean - 12 * deviation, mean + 12 * deviation)
    assert continuous.entropy(jnp.array(raw)) == pytest.approx(expected, abs=5e-3)


def test_the_entropy_adds_up_over_the_numbers_of_an_action():
    alone = [continuous.entropy(POLICY[i::2]) for i in range(2)]
    assert continuous.entropy(POLICY) == pytest.approx(float(sum(alone)), rel=1e-5)


def test_cross_entropy_is_the_weighted_sum_of_log_probabilities():
    candidates = jnp.array([[0.1, 0.2], [-0.4, 0.6], [0.8, -0.9]])
    weights = jnp.array([0.2, 0.5, 0.3])
    each = [continuous.log_probability(POLICY, action) for action in candidates]
    expected = -sum(w * p for w, p in zip(weights, each, strict=True))
    found = continuous.cross_entropy(weights, candidates, POLICY)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_candidates_come_from_the_policy_and_from_a_wider_one():
    many = 20_000
    widening = jnp.repeat(jnp.array([1.0, 3.0]), many)
    drawn = continuous.draw(jax.random.key(0), POLICY, widening)
    assert jnp.abs(drawn).max() <= 0.999
    mean, deviation = np.asarray(continuous.moments(POLICY))
    for part, factor in ((drawn[:many], 1), (drawn[many:], 3)):
        for i in range(2):
            below = [
                stats.norm.cdf(np.arctanh(a), mean[i], factor * deviation[i])
                for a in (-0.5, 0, 0.5)
            ]
            found = [float((part[:, i] < a).mean()) for a in (-0.5, 0, 0.5)]
            np.testing.assert_allclose(found, below, atol=0.015)
