"""Compares what the model imagines along the executed actions with what happened.

Letters: `T` decisions of the episode, `K` steps imagined from each. Depth k means after k actions.
If a training episode would end on the way, the comparison ends there.
"""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ez_jax.agent.model import Model
from ez_jax.inspection.episode import Episode
from ez_jax.structs import Embedding, Variables

CHUNK = 64  # roots unrolled in one call


class Imagined(flax.struct.PyTreeNode, kw_only=True):
    """Predictions after 1 to K actions, or the actual values."""

    reward: Float[Array, "T K"]
    value_prefix: Float[Array, "T K"]  # undiscounted reward since the last reset
    value: Float[Array, "T K"]


class Real(NamedTuple):
    """The actual values; NaN after the end of the episode or where it was cut."""

    reward: np.ndarray  # f64[T, K]
    value_prefix: np.ndarray  # f64[T, K]
    value: np.ndarray  # f64[T, K], discounted return from depth k on


def unroll(model: Model, variables: Variables, roots: Embedding, action: np.ndarray) -> Imagined:
    """Follow the actions [T, K, *act] in the model, from all roots at once."""
    follow = jax.jit(functools.partial(_follow, model))
    total = len(action)
    size = min(CHUNK, total)
    chunks = []
    for first in range(0, total, size):
        rows = np.minimum(
            np.arange(first, first + size), total - 1
        )  # a fixed shape needs one program only
        part = jax.tree.map(lambda x, rows=rows: x[rows], roots)
        steps = jnp.asarray(action[rows], model.spec.action_dtype)
        found = jax.device_get(follow(variables, part, steps))
        chunks.append(jax.tree.map(lambda x, first=first: x[: total - first], found))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def _follow(
    model: Model, variables: Variables, roots: Embedding, action: Shaped[Array, "B K *act"]
) -> Imagined:
    def step(embedding: Embedding, action: Shaped[Array, " B *act"]) -> tuple[Embedding, Imagined]:
        following, reward = model.dynamics(variables, embedding, action)
        _, value = model.predict(variables, following)
        prefix = embedding.value_prefix + reward
        return following, Imagined(reward=reward, value_prefix=prefix, value=value)

    _, found = jax.lax.scan(step, roots, jnp.swapaxes(action, 0, 1))
    return jax.tree.map(jnp.transpose, found)


def actions_ahead(episode: Episode, depth: int) -> np.ndarray:
    """The executed actions [T, K, *act]; arbitrary after the last one."""
    total = len(episode.action)
    return episode.action[np.minimum(np.arange(total)[:, None] + np.arange(depth), total - 1)]


def returns_to_go(episode: Episode, discount: float) -> np.ndarray:
    """Realised discounted return f64[T+1], of the rewards to learn from.

    It stops where a training episode would. If the episode was cut short, the rest counts as the
    network's value of the last observation.
    """
    total = len(episode.action)
    found = np.zeros(total + 1)
    found[total] = episode.value_after
    for t in reversed(range(total)):
        found[t] = episode.reward[t] + (0.0 if episode.ends[t] else discount * found[t + 1])
    return found


def real(episode: Episode, returns: np.ndarray, *, depth: int, horizon: int) -> Real:
    """The actual values after 1 to `depth` actions; prefixes are reset every `horizon` actions."""
    total = len(episode.action)
    reward, prefix, value = np.full((3, total, depth), np.nan)
    for t in range(total):
        since_reset = 0.0
        for k in range(min(depth, total - t)):
            at = t + k
            since_reset = episode.reward[at] + (since_reset if k % horizon else 0.0)
            reward[t, k], prefix[t, k] = episode.reward[at], since_reset
            value[t, k] = 0.0 if episode.ends[at] else returns[at + 1]
            if episode.ends[at]:
                break
    return Real(reward, prefix, value)


def error_by_depth(imagined: np.ndarray | Array, real: np.ndarray) -> list[float | None]:
    """Mean absolute error at depths 1 to K, over known values; None if there are none."""
    return [
        float(x.mean()) if x.size else None for x in _known(np.abs(np.asarray(imagined) - real))
    ]


def spread_by_depth(real: np.ndarray) -> list[float | None]:
    """The error of always guessing the mean of the episode, for comparison."""
    return [float(np.abs(x - x.mean()).mean()) if x.size else None for x in _known(real)]


def _known(by_depth: np.ndarray) -> list[np.ndarray]:
    return [column[~np.isnan(column)] for column in by_depth.T]
