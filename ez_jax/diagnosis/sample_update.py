"""All parts of an update, computed quickly from fixed data.

Replay contents, weights and keys are always the same, and the input of each part comes from `BASE`,
so a setting shows where it acts, not wherever its effect spreads. Only the results of searches are
passed on to the targets.

The functions are those of a run. The network is a stand-in: a few small layers compile in a fifth
of the time, and the switches do not affect the inside of the real ones.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ez_jax.agent.learner import make_optimizer, refresh_targets
from ez_jax.agent.losses import unroll_loss
from ez_jax.agent.model import Model, make_model
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.replay.draw import make_draw
from ez_jax.agent.search import make_search
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config, SearchConfig, override
from ez_jax.structs import (
    Batch,
    EnvSpec,
    LossOutput,
    Replay,
    Row,
    SearchOutput,
    Targets,
    TrainState,
    Variables,
)

ROWS, ENVS, ACTIONS, PIXELS, WIDTH, SUPPORT = 24, 2, 3, 16, 4, 5
UPDATES = 1  # number of updates before this one

# Everything is on and has something to act on: several steps of unroll and of reward, data of all
# ages, images that can be shifted.
BASE = override(
    Config(),
    {
        "discount": 0.9,
        "total_agent_steps": 40,
        "final_updates": 0,
        "actor.num_envs": ENVS,
        "env.image_size": PIXELS,
        "env.frame_stack": 1,
        "network.support": SUPPORT,
        "replay.capacity": ROWS * ENVS,
        "reanalyse.ratio": 1.0,
        "search.policy": "puct",
        "search.num_simulations": 8,
        "targets.td_steps": 3,
        "learner.batch_size": 8,
        "learner.unroll_steps": 3,
        "learner.lstm_horizon_len": 2,
        "learner.start": 22,
        "learner.warmup_updates": 0,
        "learner.target_period": UPDATES + 1,
        "learner.augment_shift": 1,
    },
)


def sample_update(config: Config) -> dict[str, np.ndarray]:
    """All parts of an update, by name, from fixed replay contents, weights and keys."""
    batch, (gradient, loss) = _drawn(config), _lost(config)
    parts = {
        "draw": {"index": batch.index, "weight": batch.weight},
        "search": _fields(_searched(config.search, _model(config), config.discount)),
        "targets": _fields(_targeted(config)),
        "loss": {"total": loss.loss, "priority": loss.priority, "gradient": gradient, **loss.terms},
        "update": _updated(config),
    }
    return {f"{part}/{name}": _flat(value) for part in parts for name, value in parts[part].items()}


def _fields(node: Any) -> dict[str, Any]:
    fields = {item.name: getattr(node, item.name) for item in dataclasses.fields(node)}
    return {name: value for name, value in fields.items() if value is not None}


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


# The parts, each computed once for a configuration.


@functools.cache
def _drawn(config: Config) -> Batch:
    draw = make_draw(config, _model(config))

    def drawn(replay: Replay, key: Any, updates: Any) -> Batch:
        return ring.with_frames(replay, draw(replay, key, updates))

    return _run(drawn, _replay(), jax.random.key(0), jnp.asarray(UPDATES))


@functools.cache
def _searched(config: SearchConfig, model: Model, discount: float) -> SearchOutput:
    """Search at every unroll position of the batch: [(K+1) * B, ...], as for reanalysis."""
    search = make_search(config, model, discount=discount, explore=True)
    frames = np.asarray(_drawn(BASE).observation[:, : BASE.learner.unroll_steps + 1])
    frames = np.moveaxis(frames, 1, 0).reshape(-1, 1, *model.spec.observation_shape)

    def searched(variables: Variables, frames: Any, key: Any) -> SearchOutput:
        return search(variables, model.root(variables, frames), key)

    return _run(searched, _variables(), frames, jax.random.key(1))


@functools.cache
def _targeted(config: Config) -> Targets:
    model = _model(config)
    found = _searched(config.search, model, config.discount)

    def targeted(
        variables: Variables, batch: Batch, replay: Replay, found: SearchOutput
    ) -> Targets:
        # Searches take by far the longest to compile, so the earlier results are used.
        updates = jnp.asarray(UPDATES)
        reanalyse = make_reanalyse(config, model, lambda *_: found)
        done = reanalyse(variables, jax.random.key(2), batch, replay, updates)
        return make_targets(config, model)(variables, done.batch, updates)

    return _run(targeted, _variables(), _drawn(BASE), _replay(), found)


@functools.cache
def _lost(config: Config) -> tuple[Any, LossOutput]:
    gradient = jax.grad(unroll_loss, has_aux=True)

    def lost(params: Any, key: Any, batch: Batch, targets: Targets) -> tuple[Any, LossOutput]:
        return gradient(params, {}, key, batch, targets, model=_model(config), config=config)

    return _run(lost, _variables()["params"], jax.random.key(3), _drawn(BASE), _targeted(BASE))


@functools.cache
def _updated(config: Config) -> dict[str, Variables]:
    optimizer = make_optimizer(config.learner)
    variables = _variables()
    older, oldest = (jax.tree.map(lambda x, by=by: x - by, variables) for by in (1, 2))

    def updated(gradient: Any, variables: Variables) -> dict[str, Variables]:
        params = variables["params"]
        step, opt_state = optimizer.update(gradient, optimizer.init(params), params)
        train = TrainState(
            variables={"params": jax.tree.map(jnp.add, params, step)},
            next_target=older,
            target=oldest,
            opt_state=opt_state,
            updates=jnp.asarray(UPDATES),
            skipped=jnp.zeros((), jnp.int32),
            skipped_in_a_row=jnp.zeros((), jnp.int32),
        )
        train = refresh_targets(train, config.learner.target_period)
        return {"params": train.variables, "target": train.target}

    return _run(updated, _lost(BASE)[0], variables)


# Their inputs.


@functools.cache
def _replay() -> Replay:
    """Two episodes per environment, with rewards and unequal priorities everywhere."""
    rng, shape = np.random.default_rng(0), (ROWS, ENVS)
    normal = lambda: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    first = np.zeros(shape, bool)
    first[[0, ROWS // 2]] = True
    rows: dict[str, Any] = dict(
        observation=rng.integers(0, 256, (*shape, PIXELS, PIXELS, 1), np.uint8),
        reward=normal() + 3,
        discount=np.roll(~first, -1, axis=0).astype(np.float32),
        is_first=first,
        action=rng.integers(0, ACTIONS, shape, np.int32),
        policy=rng.dirichlet(np.ones(ACTIONS), shape).astype(np.float32),
        value=normal(),
        searched=np.zeros(shape, np.int32),
    )
    others: dict[str, Any] = {"priority": np.exp(normal()), "count": np.int32(ROWS)}
    return Replay(rows=Row(**rows), **others)


@functools.cache
def _variables() -> Variables:
    """Weights that make every output depend on its input."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(_model(BASE).init, jax.random.key(0))
    scaled = lambda x: rng.normal(size=x.shape, scale=2 / x.shape[0] ** 0.5)  # noqa: E731
    return jax.tree.map(lambda x: scaled(x).astype(np.float32), shapes)


def _model(config: Config) -> Model:
    spec = EnvSpec(
        game="Game",
        backend="gymnasium",
        task_id="Game-v0",
        num_actions=ACTIONS,
        observation_shape=(PIXELS, PIXELS, 1),
        observation_dtype=np.dtype(np.uint8),
        frame_stack=config.env.frame_stack,
        frame_skip=1,
    )
    model = make_model(config, spec)
    stand_in = _Network(WIDTH, ACTIONS, 2 * config.network.support + 1, model.network.dtype)
    return dataclasses.replace(model, network=stand_in)


class _Network(nn.Module):
    """The methods of `networks.Network` with one layer each."""

    width: int
    num_actions: int
    bins: int
    dtype: Any

    def setup(self) -> None:
        layer = functools.partial(nn.Dense, self.width, dtype=self.dtype)
        self.encoder, self.imagined, self.memory = layer(), layer(), layer()
        self.prefix_logits, self.value_logits = nn.Dense(self.bins), nn.Dense(self.bins)
        self.policy_logits = nn.Dense(self.num_actions)
        self.projector, self.predictor = nn.Dense(self.width), nn.Dense(self.width)

    def represent(self, observation, train):
        return jnp.tanh(self.encoder(observation.reshape(len(observation), -1)))

    def transition(self, state, action, train):
        action = jax.nn.one_hot(action, self.num_actions)
        return jnp.tanh(self.imagined(jnp.concatenate([state, action], axis=-1)))

    def value_prefix(self, state, carry, train):
        memory = jnp.tanh(self.memory(jnp.concatenate([state, *carry], axis=-1)))
        return self.prefix_logits(memory), (memory, memory)

    def predict(self, state, train):
        return self.policy_logits(state), self.value_logits(state)

    def project(self, state, train):
        return self.projector(state)

    def predict_projection(self, projection, train):
        return self.predictor(projection)

    @nn.nowrap
    def initial_carry(self, batch):
        zeros = jnp.zeros((batch, self.width), self.dtype)
        return zeros, zeros

    def __call__(self, observation, train=False):
        state = self.represent(observation, train)
        self.predict(state, train)
        state = self.transition(state, jnp.zeros(len(state), jnp.int32), train)
        self.value_prefix(state, self.initial_carry(len(state)), train)
        self.predict_projection(self.project(state, train), train)


# Running it.

_COMPILED: dict[str, Callable[..., Any]] = {}  # by text: equal programs are compiled once
_IN_HURRY: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": True,
}


def _run(function: Callable[..., Any], *args: Any) -> Any:
    """Compile quickly and run, always on the CPU; returns NumPy arrays."""
    with _on_cpu():
        lowered = jax.jit(function).lower(*args)
        text = lowered.as_text()
        if text not in _COMPILED:
            _COMPILED[text] = lowered.compile(compiler_options=_IN_HURRY)
        return jax.device_get(_COMPILED[text](*args))


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        return contextlib.nullcontext()
