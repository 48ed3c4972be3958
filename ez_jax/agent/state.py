"""The initial state of a run, and the placement of its arrays."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ez_jax.agent import schedules
from ez_jax.agent.frames import init_frames
from ez_jax.agent.learner import init_train_state, no_metrics
from ez_jax.agent.model import Model
from ez_jax.agent.replay import ring
from ez_jax.agent.replay.draw import make_draw_group
from ez_jax.agent.replay.ring import ring_rows
from ez_jax.config import Config
from ez_jax.structs import Batch, Replay, RunState
from ez_jax.system import devices, processes

# Random streams of a run, folded into its key.
INIT, ACT, LEARN = range(3)


def init_run_state(config: Config, model: Model, has_frames: bool = True) -> RunState:
    """The state of a run on the device; can be traced for its shapes.

    Without `has_frames`, the frames of the replay are in host memory.
    """
    spec, num_envs = model.spec, config.actor.num_envs
    key = jax.random.key(config.seed)
    # Jitted: one program to compile or to find in the cache, instead of hundreds.
    init = jax.jit(functools.partial(init_train_state, config, model))
    replay = ring.init_replay(
        spec,
        rows=ring_rows(config, spec),
        num_envs=num_envs,
        candidates=config.search.root_candidates,
        has_frames=has_frames,
    )
    return RunState(
        train=init(jax.random.fold_in(key, INIT)),
        replay=replay,
        frames=init_frames(spec, num_envs),
        metrics=no_metrics(config),
        key=key,
        drawn=_nothing_drawn(config, model, replay, key) if schedules.draws_ahead(config) else None,
    )


def _nothing_drawn(config: Config, model: Model, replay: Replay, key: Array) -> Batch:
    """A placeholder with the shapes of a group's samples."""
    drawn = jax.eval_shape(make_draw_group(config, model), replay, key, jnp.int32(0))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), drawn)


def placement(state: RunState) -> RunState:
    """The placement of its arrays on the devices: a tree of `PartitionSpec`."""
    whole = jax.tree.map(lambda _: devices.WHOLE, state)
    return whole.replace(replay=ring.placement(state.replay))


def place(state: RunState) -> RunState:
    """Move every array of a state to its place; the frames are there already."""
    rows = state.replay.rows
    small = state.replace(replay=state.replay.replace(rows=rows.replace(observation=None)))
    placed = processes.same(small)
    rows = placed.replay.rows.replace(observation=rows.observation)
    return placed.replace(replay=placed.replay.replace(rows=rows))


def start_run_state(init_state: Callable[[], RunState]) -> RunState:
    """As `init_state`, with every array created in its place."""
    places = devices.shardings(placement(jax.eval_shape(init_state)))
    return jax.jit(init_state, out_shardings=places)()
