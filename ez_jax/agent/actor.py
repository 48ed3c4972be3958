"""Acting: search in N environments, and write every decision to the replay."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import mctx
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key, Shaped

from ez_jax.agent import diagnostics
from ez_jax.agent.frames import init_frames, push_frame
from ez_jax.agent.model import Model
from ez_jax.agent.replay import ring
from ez_jax.agent.search import SearchFn, forbidden, make_tree_search
from ez_jax.config import Config
from ez_jax.structs import NEVER, EnvSpec, Replay, Row, SearchOutput, TimeStep, Variables
from ez_jax.system import devices

Found = TypeVar("Found")  # the result of a search
DECIDE, EPSILON = 1_000, 1  # random streams of an episode's seed, and of one of its decisions


class Playing(flax.struct.PyTreeNode, kw_only=True):
    """State of the evaluation policy for the episodes that it plays."""

    frames: Array  # dtype[N, F, *obs], the frame stacks
    seed: Int[ArrayLike, " N"]  # of each episode
    step: Int[ArrayLike, " N"]  # decisions so far in the episode


# (variables, playing, step) -> result of the search, playing
EvalPolicy = Callable[[Variables, Playing, TimeStep], tuple[Found, Playing]]


def init_playing(spec: EnvSpec, seed: int, num_envs: int) -> Playing:
    """The state before the first step; episode i has the seed `seed + i`."""
    seeds = (seed + np.arange(num_envs)) % 2**31
    return Playing(
        frames=init_frames(spec, num_envs),
        seed=seeds.astype(np.int32),
        step=np.zeros(num_envs, np.int32),
    )


def decision_keys(playing: Playing) -> Key[Array, " N"]:
    """Keys that depend only on the seed and the step of each episode."""

    def of_one(seed: Array, step: Array) -> Array:
        stream = jax.random.fold_in(jax.random.key(seed), DECIDE)
        return jax.random.fold_in(stream, step)

    return jax.vmap(of_one)(jnp.asarray(playing.seed), jnp.asarray(playing.step))


def random_action(
    spec: EnvSpec, key: Key[Array, ""], legal: ArrayLike | None
) -> Shaped[Array, "*act"]:
    """A uniformly random action, among those that are allowed; the key is consumed."""
    if spec.is_continuous:
        return jax.random.uniform(key, spec.action_shape, minval=-1.0)
    if legal is None:
        return jax.random.randint(key, (), 0, spec.num_actions)
    return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))


def make_policy(model: Model, search: SearchFn[Found]) -> Callable[..., tuple[Found, Array]]:
    """Observe and search: `(variables, frames, step, key, temperature) -> (found, frames)`.

    The key is one per root, key[N], or a single one that is split.
    """

    def think(variables: Variables, temperature: Array, rows: tuple) -> Found:
        frames, keys, legal = rows
        root = model.root(variables, frames)
        return search(variables, root, keys, temperature, **forbidden(legal))

    def policy(
        variables: Variables, frames: Array, step: TimeStep, key: Array, temperature: Array
    ) -> tuple[Found, Array]:
        frames = push_frame(frames, step)
        keys = key if key.ndim else jax.random.split(key, len(frames))
        rows = frames, keys, step.legal
        return devices.spread(think, variables, temperature, rows=rows), frames

    return policy


def make_eval_policy(
    config: Config, model: Model, num_simulations: int | None = None
) -> EvalPolicy[SearchOutput]:
    """The evaluation policy: the choice of the search, and random for a share `eval.epsilon`.

    Its random numbers depend on the seed of the episode and the step, not on other episodes.

    Args:
      config: of the run.
      model: of the game.
      num_simulations: replaces `eval.num_simulations`; 0 means as in training.
    """
    policy, epsilon = make_eval_tree_policy(config, model, num_simulations), config.eval.epsilon

    def perhaps_random(key: Array, action: Array, legal: ArrayLike | None) -> Array:
        which, what = jax.random.split(jax.random.fold_in(key, EPSILON))
        random = random_action(model.spec, what, legal)
        return jnp.where(jax.random.bernoulli(which, epsilon), random, action)

    def without_tree(variables: Variables, playing: Playing, step: TimeStep):
        keys = decision_keys(_begun(playing, step))
        (found, _), playing = policy(variables, playing, step)
        if epsilon:
            found = found.replace(action=jax.vmap(perhaps_random)(keys, found.action, step.legal))
        return found, playing

    return without_tree


def _begun(playing: Playing, step: TimeStep) -> Playing:
    """Reset the count of decisions where an episode begins."""
    return playing.replace(step=jnp.where(step.is_first, 0, playing.step))


def make_eval_tree_policy(
    config: Config, model: Model, num_simulations: int | None = None
) -> EvalPolicy[tuple[SearchOutput, mctx.Tree]]:
    """As `make_eval_policy` without epsilon, but also returns the search tree."""
    search = make_tree_search(
        config.search,
        model,
        discount=config.discount,
        explore=False,
        num_simulations=config.eval.num_simulations if num_simulations is None else num_simulations,
    )
    policy = make_policy(model, search)

    def with_tree(variables: Variables, playing: Playing, step: TimeStep):
        # Deviates (ties in evaluation, V1): broken by the seed of the episode and the step.
        playing = _begun(playing, step)
        no_temperature = jnp.zeros(())  # not used without noise
        keys = decision_keys(playing)
        found, frames = policy(variables, playing.frames, step, keys, no_temperature)
        return found, playing.replace(frames=frames, step=playing.step + 1)

    return with_tree


class Decided(NamedTuple):
    """One decision in every environment."""

    row: Row  # for the replay; its actions are to be executed
    frames: Array  # dtype[N, F, *obs], the frame stacks
    metrics: dict[str, Array]  # f32[] sums over the searches


def make_decide(
    model: Model, search: SearchFn[SearchOutput], num_candidates: int = 0
) -> Callable[..., Decided]:
    """Make the training actor's decision function.

    With continuous actions, `num_candidates` is that of the search.

    `decide(variables, count, frames, step, key, temperature, explore, updates)`: with `explore`,
    actions are uniformly random and there is no search (the published start). Random numbers depend
    only on the key and on `count`, the number of rows in the replay.
    """
    policy, spec = make_policy(model, search), model.spec

    def at_random(variables, frames, step, key, temperature) -> tuple[SearchOutput, Array]:
        del variables, temperature
        envs, candidates = frames.shape[0], None
        if spec.is_continuous:
            # All candidates are random and equally good; the first is executed.
            shape = (envs, num_candidates, spec.action_size)
            candidates = jax.random.uniform(key, shape, minval=-1.0)
            action, policy = candidates[:, 0], jnp.full(shape[:2], 1 / num_candidates)
        elif step.legal is None:
            action = jax.random.randint(key, (envs,), 0, spec.num_actions)
            policy = jnp.full((envs, spec.num_actions), 1 / spec.num_actions)
        else:
            action = jax.random.categorical(key, jnp.where(step.legal, 0.0, -jnp.inf))
            policy = step.legal / jnp.sum(step.legal, axis=-1, keepdims=True)
        zeros = jnp.zeros(envs)
        found = SearchOutput(
            action=action, policy=policy, value=zeros, gain=zeros, candidates=candidates
        )
        return found, push_frame(frames, step)

    def decide(variables, count, frames, step, key, temperature, explore, updates):
        key = jax.random.fold_in(key, count)
        found, frames = jax.lax.cond(
            explore, at_random, policy, variables, frames, step, key, temperature
        )
        row = Row(
            observation=step.observation,
            reward=step.reward,
            discount=step.discount,
            is_first=step.is_first,
            action=found.action,
            policy=found.policy,
            value=found.value,
            searched=jnp.broadcast_to(jnp.where(explore, NEVER, updates), found.value.shape),
            legal=step.legal,
            candidates=found.candidates,
        )
        # On a final observation nothing is executed.
        return Decided(row, frames, diagnostics.searched(found, ~step.is_last & ~explore))

    return decide


def make_act(
    model: Model, search: SearchFn[SearchOutput], num_candidates: int = 0
) -> Callable[..., tuple[Array, Replay, Array, Any]]:
    """Make the jitted function that decides once and records the decision in the replay.

    `act(variables, replay, sums, frames, step, key, temperature, explore, updates)` returns the
    actions [N, *act], replay, metrics and frame stacks; the last three are donated.
    """
    decide = make_decide(model, search, num_candidates)

    def act(variables, replay, sums, *given):
        row, frames, metrics = decide(variables, replay.count, *given)
        row, sums, frames = devices.whole((row, sums.add(metrics), frames))
        return row.action, ring.placed(ring.add(replay, row)), sums, frames

    return jax.jit(act, donate_argnums=(1, 2, 3))
