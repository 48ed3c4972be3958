"""Acting: N environments stepped by search, every decision written to the replay."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import mctx
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key

from ez_jax.agent import diagnostics
from ez_jax.agent.frames import init_frames, push_frame
from ez_jax.agent.model import Model
from ez_jax.agent.replay import ring
from ez_jax.agent.search import SearchFn, forbidden, make_tree_search
from ez_jax.config import Config
from ez_jax.structs import NEVER, EnvSpec, Replay, Row, SearchOutput, TimeStep, Variables
from ez_jax.system import devices

Found = TypeVar("Found")  # what a search returns
DECIDE, EPSILON = 1_000, 1  # streams of a game's seed, and of one of its decisions


class Playing(flax.struct.PyTreeNode, kw_only=True):
    """What the policy of evaluation knows of the games that it plays."""

    frames: Array  # dtype[N, F, *obs], the stacks
    seed: Int[ArrayLike, " N"]  # of each game
    step: Int[ArrayLike, " N"]  # decisions in the episode before this one


# (variables, playing, step) -> what was found, playing
EvalPolicy = Callable[[Variables, Playing, TimeStep], tuple[Found, Playing]]


def init_playing(spec: EnvSpec, seed: int, num_envs: int) -> Playing:
    """Games about to begin, game i from seed + i."""
    seeds = (seed + np.arange(num_envs)) % 2**31
    return Playing(
        frames=init_frames(spec, num_envs),
        seed=seeds.astype(np.int32),
        step=np.zeros(num_envs, np.int32),
    )


def decision_keys(playing: Playing) -> Key[Array, " N"]:
    """Keys that follow from the seed of the game and the step in the episode alone."""

    def of_one(seed: Array, step: Array) -> Array:
        stream = jax.random.fold_in(jax.random.key(seed), DECIDE)
        return jax.random.fold_in(stream, step)

    return jax.vmap(of_one)(jnp.asarray(playing.seed), jnp.asarray(playing.step))


def make_policy(model: Model, search: SearchFn[Found]) -> Callable[..., tuple[Found, Array]]:
    """Observe and search: `(variables, frames, step, key, temperature) -> (found, frames)`.

    The key is one of each root, key[N], or one from which they are made.
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
    """The policy of evaluation: the search's choice but for a share `eval.epsilon` of random ones.

    What it draws follows from the seed of the game and the step, whatever games are beside it.

    Args:
      config: of the run.
      model: of the game.
      num_simulations: instead of `eval.num_simulations`; 0 means as in training.
    """
    policy, epsilon = make_eval_tree_policy(config, model, num_simulations), config.eval.epsilon

    def perhaps_random(key: Array, action: Array, legal: ArrayLike | None) -> Array:
        which, what = jax.random.split(jax.random.fold_in(key, EPSILON))
        random = jax.random.randint(what, (), 0, model.spec.num_actions, action.dtype)
        if legal is not None:
            random = jax.random.categorical(what, jnp.where(legal, 0.0, -jnp.inf))
        return jnp.where(jax.random.bernoulli(which, epsilon), random, action)

    def without_tree(variables: Variables, playing: Playing, step: TimeStep):
        keys = decision_keys(_begun(playing, step))
        (found, _), playing = policy(variables, playing, step)
        if epsilon:
            found = found.replace(action=jax.vmap(perhaps_random)(keys, found.action, step.legal))
        return found, playing

    return without_tree


def _begun(playing: Playing, step: TimeStep) -> Playing:
    """With the decisions counted anew where an episode begins."""
    return playing.replace(step=jnp.where(step.is_first, 0, playing.step))


def make_eval_tree_policy(
    config: Config, model: Model, num_simulations: int | None = None
) -> EvalPolicy[tuple[SearchOutput, mctx.Tree]]:
    """As `make_eval_policy` without epsilon, and the tree beside what was found in it."""
    search = make_tree_search(
        config.search,
        model,
        discount=config.discount,
        explore=False,
        num_simulations=config.eval.num_simulations if num_simulations is None else num_simulations,
    )
    policy = make_policy(model, search)

    def with_tree(variables: Variables, playing: Playing, step: TimeStep):
        # Deviates (ties in evaluation, V1): drawn from the game's seed and the step.
        playing = _begun(playing, step)
        no_temperature = jnp.zeros(())  # none is used without noise
        keys = decision_keys(playing)
        found, frames = policy(variables, playing.frames, step, keys, no_temperature)
        return found, playing.replace(frames=frames, step=playing.step + 1)

    return with_tree


class Decided(NamedTuple):
    """One decision in every environment."""

    row: Row  # of the replay, which records it; its actions are to be executed
    frames: Array  # dtype[N, F, *obs], the stacks
    metrics: dict[str, Array]  # f32[] sums over the searches


def make_decide(model: Model, search: SearchFn[SearchOutput]) -> Callable[..., Decided]:
    """One decision of the training actor.

    `decide(variables, count, frames, step, key, temperature, explore, updates)`: with `explore` the
    actions are uniform and no search is made (the published start). The draws depend on the key and
    on `count`, the number of rows in the replay, alone.
    """
    policy = make_policy(model, search)
    num_actions = model.spec.num_actions

    def at_random(variables, frames, step, key, temperature) -> tuple[SearchOutput, Array]:
        del variables, temperature
        envs = frames.shape[0]
        if step.legal is None:
            action = jax.random.randint(key, (envs,), 0, num_actions)
            policy = jnp.full((envs, num_actions), 1 / num_actions)
        else:
            action = jax.random.categorical(key, jnp.where(step.legal, 0.0, -jnp.inf))
            policy = step.legal / jnp.sum(step.legal, axis=-1, keepdims=True)
        found = SearchOutput(
            action=action,
            policy=policy,
            value=jnp.zeros(envs),
            gain=jnp.zeros(envs),
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
        )
        # On a final observation nothing is executed.
        return Decided(row, frames, diagnostics.searched(found, ~step.is_last & ~explore))

    return decide


def make_act(
    model: Model, search: SearchFn[SearchOutput]
) -> Callable[..., tuple[Array, Replay, Array, Any]]:
    """One decision, recorded in the replay, jitted.

    `act(variables, replay, sums, frames, step, key, temperature, explore, updates)` returns the
    actions i32[N], replay, metrics and frame stacks; the last three are donated.
    """
    decide = make_decide(model, search)

    def act(variables, replay, sums, *given):
        row, frames, metrics = decide(variables, replay.count, *given)
        row, sums, frames = devices.whole((row, sums.add(metrics), frames))
        return row.action, ring.placed(ring.add(replay, row)), sums, frames

    return jax.jit(act, donate_argnums=(1, 2, 3))
