"""The programs of a run, compiled from shapes alone: acting, targets, learning."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.parts import Setting
from ez_jax.agent.actor import make_act
from ez_jax.agent.frames import init_frames
from ez_jax.agent.learner import make_learn, make_prepare, no_metrics
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.search import make_search
from ez_jax.agent.targets import make_targets
from ez_jax.structs import Prepared, Replay, TimeStep
from ez_jax.system import devices

ROWS = 304  # of the ring in these programs, a multiple of the devices


Functions = tuple[Any, Any, Any]


def functions(setting: Setting) -> Functions:
    """The jitted `act`, `prepare` and `learn` of a run."""
    config, model = setting.config, setting.model
    search = make_search(config.search, model, discount=config.discount, explore=True)
    reanalyse = make_reanalyse(config, model, search)
    prepare = make_prepare(config, model, reanalyse, make_targets(config, model))
    act = make_act(model, search, config.search.root_candidates)
    return act, prepare, make_learn(config, model)


def programs(
    setting: Setting, made: Functions | None = None, rows: int = ROWS
) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Each with the shapes of its arguments, in their places on the ambient mesh.

    Nothing is executed, so the mesh may be of devices that are not there; `made` are the functions,
    if they have been made without a mesh; `rows` are those of the ring.
    """
    config, spec = setting.config, setting.spec
    act, prepare, learn = made or functions(setting)
    key = jax.eval_shape(lambda: jax.random.key(0))
    train = jax.eval_shape(setting.train)
    replay = jax.eval_shape(lambda: setting.replay(rows))
    envs = config.actor.num_envs
    frames = jax.eval_shape(lambda: init_frames(spec, envs))
    number, flag = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), bool)
    step = jax.eval_shape(lambda: first_step(setting))
    variables, updates = train.variables, train.updates
    sums = jax.eval_shape(lambda: no_metrics(config))
    yield _placed(
        "acting", act, (variables, replay, sums, frames, step, key, number, flag, updates)
    )
    wanted = _placed("targets", prepare, (variables, replay, sums, key, updates))
    yield wanted
    group, _, _ = jax.eval_shape(prepare, *wanted[2])
    yield _placed("learning", learn, (train, replay, sums, key, group, updates))


def first_step(setting: Setting) -> TimeStep:
    """A time step of all environments."""
    spec, envs = setting.spec, setting.config.actor.num_envs
    reals, flags = jnp.zeros(envs), jnp.zeros(envs, bool)
    return TimeStep(
        observation=jnp.zeros((envs, *spec.observation_shape), spec.observation_dtype),
        **dict.fromkeys(("reward", "score", "discount"), reals),
        **dict.fromkeys(("is_first", "is_last", "game_over"), flags),
    )


def place_of(value: Any) -> Any:
    """How an argument lies on the devices: a tree of `PartitionSpec`."""
    if isinstance(value, Replay):
        return ring.placement(value)
    spec = devices.SPLIT if isinstance(value, Prepared) else devices.WHOLE
    return jax.tree.map(lambda _: spec, value)


def _placed(name: str, function: Any, args: tuple[Any, ...]) -> tuple[str, Any, tuple[Any, ...]]:
    if devices.everywhere() is None:
        return name, function, args
    places = devices.shardings(tuple(map(place_of, args)))
    shapes = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), args, places
    )
    return name, function, shapes
