"""The state of a run before its first step, and where its arrays lie."""

import functools

import jax

from ez_jax import devices, hosts
from ez_jax import replay as ring
from ez_jax.actor import init_frames
from ez_jax.config import Config
from ez_jax.learner import init_train_state, no_metrics
from ez_jax.model import Model
from ez_jax.structs import RunState

# Streams of randomness of a run, folded into its key.
INIT, ACT, LEARN = range(3)


def init_run_state(config: Config, model: Model) -> RunState:
    """Everything that a run has on the device; can be traced for its shapes."""
    spec, num_envs = model.spec, config.actor.num_envs
    key = jax.random.key(config.seed)
    # Jitted: one program to compile (or to find in the cache) instead of hundreds.
    init = jax.jit(functools.partial(init_train_state, config, model))
    window = spec.frame_stack + config.learner.unroll_steps + config.targets.td_steps
    rows = ring.ring_rows(config.replay.capacity, num_envs, window)
    return RunState(
        train=init(jax.random.fold_in(key, INIT)),
        replay=ring.init_replay(spec, rows=rows, num_envs=num_envs),
        frames=init_frames(spec, num_envs),
        metrics=no_metrics(config),
        key=key,
    )


def placement(state: RunState) -> RunState:
    """How its arrays lie on the devices: a tree of `PartitionSpec`."""
    whole = jax.tree.map(lambda _: devices.WHOLE, state)
    return whole.replace(replay=ring.placement(state.replay))


def place(state: RunState) -> RunState:
    """The same state, whose frames are in their place already, with every array in its own."""
    rows = state.replay.rows
    small = state.replace(replay=state.replay.replace(rows=rows.replace(observation=None)))
    placed = hosts.same(small)
    rows = placed.replay.rows.replace(observation=rows.observation)
    return placed.replace(replay=placed.replay.replace(rows=rows))


def start_run_state(config: Config, model: Model) -> RunState:
    """As `init_run_state`, every array made in its place."""
    init = functools.partial(init_run_state, config, model)
    return jax.jit(init, out_shardings=devices.shardings(placement(jax.eval_shape(init))))()
