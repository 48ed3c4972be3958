"""Workloads that are parts of a run: search, update, reanalysis, replay, environments."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.measure import Case, Cost, compiled_call, counted
from ez_jax.agent.learner import init_train_state, make_update
from ez_jax.agent.model import Model, make_model
from ez_jax.agent.networks.winograd import in_parts, plain, winograd
from ez_jax.agent.reanalyse import ReanalyseFn, make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.replay.draw import make_draw
from ez_jax.agent.replay.host_frames import HostFrames
from ez_jax.agent.search import make_recurrent_fn, make_search
from ez_jax.agent.targets import TargetsFn, make_targets
from ez_jax.config import Config, override, search_budget
from ez_jax.envs import make_env
from ez_jax.structs import (
    Batch,
    Embedding,
    EnvSpec,
    Replay,
    Root,
    Row,
    Targets,
    TrainState,
    Variables,
)

ACTIONS = 18  # of the free model: as many as an Atari game can have
SEARCHES = (("puct_ez", 50), ("puct", 50), ("gumbel", 16))
TREES = (*SEARCHES, ("gumbel", 50))
OF_CANDIDATES = (("gumbel", 32),)  # of continuous actions


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a workload measures: a configuration and the environment it is for."""

    config: Config
    spec: EnvSpec
    batches: tuple[int, ...]  # empty: those of the workload

    @functools.cached_property
    def model(self) -> Model:
        """The network of the configuration."""
        return make_model(self.config, self.spec)

    def frames(self, batch: int) -> jax.Array:
        """Noise that looks like stacked frames."""
        shape = (batch, self.spec.frame_stack, *self.spec.observation_shape)
        noise = np.random.default_rng(0).integers(0, 256, shape)
        return jnp.asarray(noise, self.spec.observation_dtype)

    def actions(self, batch: int) -> jax.Array:
        """The first action of a discrete game, the middle of a continuous one's bounds."""
        return jnp.zeros((batch, *self.spec.action_shape), self.spec.action_dtype)

    def train(self) -> TrainState:
        """A learner before its first update."""
        init = functools.partial(init_train_state, self.config, self.model)
        return jax.jit(init)(jax.random.key(0))

    def replay(self, rows: int) -> Replay:
        """A full ring of noise with episodes of some hundred steps."""
        rng, envs = np.random.default_rng(0), self.config.actor.num_envs
        candidates = self.config.search.root_candidates
        replay = ring.init_replay(self.spec, rows=rows, num_envs=envs, candidates=candidates)
        first = rng.random((rows, envs)) < 1 / 300
        content = Row(
            observation=replay.rows.observation
            + rng.integers(0, 200, (rows, envs))
            .astype(self.spec.observation_dtype)
            .reshape(rows, envs, *(1,) * len(self.spec.observation_shape)),
            reward=rng.normal(size=first.shape).astype(np.float32),
            discount=np.ones(first.shape, np.float32),
            is_first=first,
            action=self._actions(rng, first.shape),
            policy=np.full(replay.rows.policy.shape, 1 / replay.rows.policy.shape[-1]),
            value=rng.normal(size=first.shape).astype(np.float32),
            searched=np.zeros(first.shape, np.int32),
            candidates=self._candidates(rng, replay.rows.candidates),
        )
        content = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), content, replay.rows)
        priority = jnp.asarray(rng.exponential(size=first.shape), jnp.float32)
        return Replay(rows=content, priority=priority, count=jnp.int32(rows))

    def _actions(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self.spec.is_continuous:
            return rng.uniform(-1, 1, (*shape, *self.spec.action_shape))
        return rng.integers(0, self.spec.num_actions, shape)

    def _candidates(self, rng: np.random.Generator, like: jax.Array | None) -> np.ndarray | None:
        return None if like is None else rng.uniform(-1, 1, like.shape)

    def batch(self) -> Batch:
        """A batch of the configured size."""
        learner = self.config.learner
        window = self.spec.frame_stack + learner.unroll_steps + self.config.targets.td_steps
        rows = ring.num_rows(2 * learner.batch_size, self.config.actor.num_envs, window)
        sample = jax.jit(make_sample(self.config, self.model))
        return sample(self.replay(rows), jax.random.key(0), jnp.int32(0))

    def of_batch(self, size: int, changes: dict[str, Any] | None = None) -> "Setting":
        """The same with another batch size, and other changes."""
        changed = override(self.config, {"learner.batch_size": size, **(changes or {})})
        return dataclasses.replace(self, config=changed)


def make_sample(config: Config, model: Model) -> Callable[..., Batch]:
    """`sample(replay, key, updates)`: what is drawn, with its frames."""
    draw = make_draw(config, model)
    return lambda replay, *given: ring.with_frames(replay, draw(replay, *given))


def make_setting(config: Config, batches: tuple[int, ...]) -> Setting:
    """The setting of a configuration, whose environment is opened to look at it."""
    env = make_env(config.game, config.env, num_envs=1, seed=0, training=True)
    env.close()
    return Setting(config, env.spec, batches)


def search(setting: Setting) -> Iterator[Case]:
    """Searches with the configured network: simulations per second."""
    model, variables = setting.model, jax.jit(setting.model.init)(jax.random.key(0))
    for batch in setting.batches or (1, 16, 64, 256):
        root = jax.jit(model.root)(variables, setting.frames(batch))
        searches = OF_CANDIDATES if setting.spec.is_continuous else SEARCHES
        actions = setting.actions(batch)
        yield from _searches(setting.config, model, variables, root, searches, actions)


def tree(setting: Setting) -> Iterator[Case]:
    """Searches whose model costs next to nothing: what the tree itself takes."""
    model = FreeModel()
    for batch in setting.batches or (32,):
        numbers = np.random.default_rng(0).normal(size=(batch, 1))
        root = model.root({}, jnp.asarray(numbers, jnp.float32))
        yield from _searches(setting.config, model, {}, root, TREES, jnp.zeros(batch, jnp.int32))


def _searches(
    config: Config, model: Any, variables: Any, root: Root, searches: Any, action: jax.Array
) -> Iterator[Case]:
    batch, key, step = len(root.value), jax.random.key(0), make_recurrent_fn(model, config.discount)
    cost = counted(jax.jit(step).lower(variables, key, action, root.embedding).compile())
    for policy, simulations in searches:
        changes = {"search.policy": policy, "search.num_simulations": simulations}
        chosen = override(config, changes).search
        run = make_search(chosen, model, discount=config.discount, explore=True)
        call, _ = compiled_call(run, variables, root, key)
        name = f"{policy} {simulations}, batch {batch}"
        yield Case(name, call, batch * simulations, "simulations", cost * simulations)


def update(setting: Setting) -> Iterator[Case]:
    """The unrolled update on given targets: samples per second."""
    for size in setting.batches or (32, 256):
        sized = setting.of_batch(size)
        batch, train, key = sized.batch(), sized.train(), jax.random.key(0)
        targets_for = make_targets(override(sized.config, {"targets.value": "td"}), sized.model)
        targets = jax.jit(targets_for)(train.target, batch, train.updates)
        step = make_update(sized.config, sized.model)
        call, cost = compiled_call(step, train, key, batch, targets)
        yield Case(f"update, batch {size}", call, size, "samples", cost)


def reanalyse(setting: Setting) -> Iterator[Case]:
    """Making targets, searches included: roots per second."""
    for size in setting.batches or (setting.config.learner.batch_size,):
        sized = setting.of_batch(size, {"reanalyse.mode": "batch"})
        config, model, key = sized.config, sized.model, jax.random.key(0)
        batch, train = sized.batch(), sized.train()
        run = make_search(config.search, model, discount=config.discount, explore=True)
        renew = functools.partial(
            _renew, make_reanalyse(config, model, run), make_targets(config, model)
        )
        call, _ = compiled_call(renew, train.target, key, batch, train.updates)
        roots = (config.learner.unroll_steps + 1) * round(config.reanalyse.ratio * size)
        budget = search_budget(config.search, model.spec.num_actions)
        name = f"{config.search.policy} {budget.num_simulations}, batch {size}"
        yield Case(name, call, roots, "roots", _reanalysis_cost(sized, roots))


def _renew(
    reanalyse: ReanalyseFn,
    targets_for: TargetsFn,
    variables: Variables,
    key: jax.Array,
    batch: Batch,
    updates: jax.Array,
) -> Targets:
    done = reanalyse(variables, key, batch, None, updates)
    return targets_for(variables, done.batch, updates)


def _reanalysis_cost(setting: Setting, roots: int) -> Cost:
    """Every root encoded and searched, and every bootstrap observation encoded."""
    config, model = setting.config, setting.model
    variables = jax.eval_shape(model.init, jax.random.key(0))
    root = jax.eval_shape(model.root, variables, setting.frames(1))
    key, action = jax.random.key(0), setting.actions(1)
    step = make_recurrent_fn(model, config.discount)
    shapes = variables, key, action, root.embedding
    per_step = counted(jax.jit(step).lower(*shapes).compile())
    per_root = counted(jax.jit(model.root).lower(variables, setting.frames(1)).compile())
    positions = (config.learner.unroll_steps + 1) * config.learner.batch_size
    budget = search_budget(config.search, model.spec.num_actions)
    searches = (per_root + per_step * budget.num_simulations) * roots
    return searches + per_root * positions


def replay(setting: Setting) -> Iterator[Case]:
    """Writing a row and drawing a batch, at full capacity."""
    config, model = setting.config, setting.model
    window = setting.spec.frame_stack + config.learner.unroll_steps + config.targets.td_steps
    rows = ring.num_rows(config.replay.capacity, config.actor.num_envs, window)
    full = setting.replay(rows)
    row = jax.tree.map(lambda x: x[0], full.rows)
    sample, add = make_sample(config, model), jax.jit(ring.add, donate_argnums=0)
    size, envs = config.learner.batch_size, config.actor.num_envs
    call, cost = compiled_call(sample, full, jax.random.key(0), jnp.int32(0))
    yield Case(f"sample {size} of {rows * envs:,}", call, size, "samples", cost)
    kept = [jax.tree.map(jnp.copy, full)]

    def add_one() -> jax.Array:
        kept[0] = add(kept[0], row)
        return kept[0].count

    yield Case(f"add {envs} to {rows * envs:,}", add_one, envs, "agent_steps")
    frames = HostFrames(setting.spec, rows=rows, num_envs=envs)
    frames.put(np.asarray(full.rows.observation[:rows]), 0)
    bare = full.replace(rows=full.rows.replace(observation=None))
    choose, _ = compiled_call(make_draw(config, model), bare, jax.random.key(0), jnp.int32(0))
    fetch = lambda: frames.fetch(choose()).result()  # noqa: E731
    yield Case(f"sample {size}, frames on the host", fetch, size, "samples")
    new = np.asarray(row.observation)
    yield Case(f"add {envs}, frames on the host", lambda: frames.add(new), envs, "agent_steps")


def env(setting: Setting) -> Iterator[Case]:
    """The environments alone, with random actions."""
    config, rng = setting.config, np.random.default_rng(0)
    for envs in setting.batches or (config.actor.num_envs,):
        games = make_env(config.game, config.env, num_envs=envs, seed=0, training=True)
        games.reset()
        actions = rng.integers(0, setting.spec.num_actions, (100, envs)).astype(np.int32)

        def play(games: Any = games, actions: np.ndarray = actions) -> None:
            for action in actions:
                games.step(action)

        yield Case(f"{envs} environments", play, actions.size, "agent_steps")


def convolution(setting: Setting) -> Iterator[Case]:
    """A chain of four 3x3 convolutions, plain and by Winograd, forward and with gradients."""
    channels, rng = setting.config.network.channels, np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, channels)), jnp.float32)
    for batch, side in itertools.product(setting.batches or (16, 64, 256), (6, 24)):
        images = jnp.asarray(rng.normal(size=(batch, side, side, channels)), jnp.float32)
        outputs = 4 * images.size
        for name, convolve in (("plain", plain), ("winograd", winograd), ("in parts", in_parts)):

            def chain(kernel: Any, images: Any, convolve: Any = convolve) -> jax.Array:
                for _ in range(4):
                    images = jax.nn.relu(convolve(images, kernel))
                return images

            def loss(kernel: Any, images: Any, chain: Any = chain) -> jax.Array:
                return jnp.sum(chain(kernel, images))

            for what, function, passes in (
                ("forward", chain, 1),
                ("gradient", jax.grad(loss, argnums=(0, 1)), 3),
            ):
                call, _ = compiled_call(function, kernel, images)
                # Both are told what the plain one computes.
                cost = Cost(flops=2.0 * passes * outputs * 9 * channels)
                title = f"{name} {what}, {batch}x{side}x{side}x{channels}"
                yield Case(title, call, passes * outputs, "outputs", cost)


class FreeModel:
    """Looks like a model; rewards, values and priors are cheap hashes of a number."""

    def root(self, variables: Any, frames: jax.Array) -> Root:
        """As `Model.root`, of numbers [B, 1]."""
        del variables
        zeros = jnp.zeros(len(frames))
        embedding = Embedding(
            state=frames[:, 0], carry=(zeros, zeros), value_prefix=zeros, step=zeros.astype(int)
        )
        logits, value = self.predict(None, embedding)
        return Root(embedding=embedding, policy_logits=logits, value=value)

    def dynamics(self, variables: Any, embedding: Embedding, action: jax.Array):
        """As `Model.dynamics`."""
        del variables
        state = jnp.sin(embedding.state * 1.7 + action)
        return embedding.replace(state=state), 0.1 * jnp.cos(5 * state)

    def predict(self, variables: Any, embedding: Embedding):
        """As `Model.predict`."""
        del variables
        return jnp.sin(embedding.state[:, None] * jnp.arange(1, ACTIONS + 1)), embedding.state


PARTS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "search": search,
    "tree": tree,
    "update": update,
    "reanalyse": reanalyse,
    "replay": replay,
    "env": env,
    "convolution": convolution,
}
