"""Sampling from the ring, by priority, for a whole group of updates."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ez_jax.agent import schedules
from ez_jax.agent.model import Model
from ez_jax.agent.replay import ring
from ez_jax.agent.schedules import importance_exponent
from ez_jax.config import Config
from ez_jax.structs import Batch, Replay
from ez_jax.system import devices


def make_draw(config: Config, model: Model) -> Callable[[Replay, Array, Array], Batch]:
    """Make `draw(replay, key, updates)`: the samples of an update, by priority or uniform.

    Without frames, only with their places, as `ring.draw`.
    """
    alpha = config.replay.priority_exponent if config.prioritised else 0.0

    def draw(replay: Replay, key: Array, updates: Int[Array, ""]) -> Batch:
        batch = ring.draw(
            replay,
            key,
            batch_size=config.learner.batch_size,
            unroll_steps=config.learner.unroll_steps,
            td_steps=config.targets.td_steps,
            frame_stack=model.spec.frame_stack,
            priority_exponent=alpha,
            importance_exponent=importance_exponent(config, updates),
            spare=schedules.rows_ahead(config),
        )
        floor = jnp.where(batch.weight > 0, config.replay.min_weight, 0.0)  # 0: not a real sample
        return batch.replace(weight=jnp.maximum(batch.weight, floor))

    return draw


def keys_of(key: Array, updates: Int[Array, ""]) -> Array:
    """The keys of update number `updates`: for its sample, its searches, its loss."""
    return jax.random.split(jax.random.fold_in(key, updates), 3)


def make_draw_group(config: Config, model: Model) -> Callable[[Replay, Array, Array], Batch]:
    """Make `draw(replay, key, updates)`: the samples [B * U] of the group that starts there.

    The samples of update i depend only on the key and i. Without frames, as `make_draw`.
    """
    draw, group = make_draw(config, model), config.reanalyse.updates_per_search

    def draw_group(replay: Replay, key: Array, updates: Int[Array, ""]) -> Batch:
        numbers = updates + jnp.arange(group)
        keys = jax.vmap(lambda number: keys_of(key, number)[0])(numbers)
        drawn = jax.vmap(draw, (None, 0, 0), out_axes=1)(replay, keys, numbers)
        return devices.whole(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), drawn))

    return draw_group
