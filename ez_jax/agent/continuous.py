"""The policy over continuous actions: a squashed normal (EfficientZero V2, §3.1).

Every number of an action is tanh(u), with u drawn from a normal of its own. The policy head gives
two numbers for each: first all raw means, then all raw deviations. Actions lie in -1..1; the
environments scale them to the bounds of the game.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

EDGE = 0.999  # largest magnitude of a candidate: tanh reaches 1 only at infinity
# As in V2's code: means stay within -5..5, deviations above 0.1, and both begin at 0 and 1.41.
MEAN_LIMIT, DEVIATION_SHIFT, LEAST_DEVIATION = 5.0, 1.0, 0.1
LOG_2, HALF_LOG_2_PI = float(np.log(2)), float(np.log(2 * np.pi) / 2)
# Gauss-Hermite quadrature: an expectation over the standard normal as a weighted sum.
NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def moments(
    policy: Float[Array, "*b 2*D"],
) -> tuple[Float[Array, "*b D"], Float[Array, "*b D"]]:
    """Mean and deviation, before the squashing, from the outputs of the policy head."""
    raw_mean, raw_deviation = jnp.split(policy.astype(jnp.float32), 2, axis=-1)
    mean = MEAN_LIMIT * jnp.tanh(raw_mean / MEAN_LIMIT)
    return mean, jax.nn.softplus(raw_deviation + DEVIATION_SHIFT) + LEAST_DEVIATION


def draw(
    key: Key[Array, ""], policy: Float[Array, " 2*D"], widening: Float[Array, " M"]
) -> Float[Array, "M D"]:
    """Draw M candidates for one state.

    Args:
      key: consumed.
      policy: outputs of the policy head.
      widening: factor of the deviation for each of the candidates.
    """
    mean, deviation = moments(policy)
    noise = jax.random.normal(key, (len(widening), len(mean)))
    return jnp.clip(jnp.tanh(mean + widening[:, None] * deviation * noise), -EDGE, EDGE)


def log_probability(
    policy: Float[Array, "*b 2*D"], action: Float[Array, "*b D"]
) -> Float[Array, "*b"]:
    """The log density of actions, summed over their numbers."""
    mean, deviation = moments(policy)
    u = jnp.arctanh(jnp.clip(action, -EDGE, EDGE))
    log_normal = -0.5 * ((u - mean) / deviation) ** 2 - jnp.log(deviation) - HALF_LOG_2_PI
    return jnp.sum(log_normal - _log_slope(u), axis=-1)


def cross_entropy(
    weights: Float[Array, "*b A"],
    candidates: Float[Array, "*b A D"],
    policy: Float[Array, "*b 2*D"],
) -> Float[Array, "*b"]:
    """The loss of the policy: weighted mean of -log π over the candidates of a search."""
    return -jnp.sum(weights * log_probability(policy[..., None, :], candidates), axis=-1)


def entropy(policy: Float[Array, "*b 2*D"]) -> Float[Array, "*b"]:
    """Differential entropy, summed over the numbers of an action."""
    mean, deviation = moments(policy)
    # Deviates (entropy of the policy, V2): by quadrature instead of 1,024 samples.
    u = mean[..., None] + deviation[..., None] * NODES
    squashing = jnp.sum(WEIGHTS * _log_slope(u), axis=-1)
    return jnp.sum(0.5 + HALF_LOG_2_PI + jnp.log(deviation) + squashing, axis=-1)


def _log_slope(u: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The log of tanh's derivative, without its cancellation far from 0."""
    return 2 * (LOG_2 - u - jax.nn.softplus(-2 * u))
