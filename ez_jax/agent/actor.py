"""Acting: N environments stepped by search, every decision written to the replay."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array

from ez_jax.agent import diagnostics
from ez_jax.agent.frames import push_frame
from ez_jax.agent.model import Model
from ez_jax.agent.replay import ring
from ez_jax.agent.search import SearchFn, make_tree_search
from ez_jax.config import Config
from ez_jax.structs import NEVER, Replay, Row, SearchOutput, TimeStep, Variables
from ez_jax.system import devices

Found = TypeVar("Found")  # what a search returns
# (variables, frames, step) -> what was found, frames
EvalPolicy = Callable[[Variables, Array, TimeStep], tuple[Found, Array]]


def make_policy(model: Model, search: SearchFn[Found]) -> Callable[..., tuple[Found, Array]]:
    """Observe and search: `(variables, frames, step, key, temperature) -> (found, frames)`."""

    def think(variables: Variables, temperature: Array, rows: tuple[Array, Array]) -> Found:
        frames, keys = rows
        return search(variables, model.root(variables, frames), keys, temperature)

    def policy(
        variables: Variables, frames: Array, step: TimeStep, key: Array, temperature: Array
    ) -> tuple[Found, Array]:
        frames = push_frame(frames, step)
        rows = frames, jax.random.split(key, len(frames))
        return devices.spread(think, variables, temperature, rows=rows), frames

    return policy


def make_eval_policy(
    config: Config, model: Model, num_simulations: int | None = None
) -> EvalPolicy[SearchOutput]:
    """The policy of evaluation, without noise.

    Args:
      config: of the run.
      model: of the game.
      num_simulations: instead of `eval.num_simulations`; 0 means as in training.
    """
    policy = make_eval_tree_policy(config, model, num_simulations)

    def without_tree(variables: Variables, frames: Array, step: TimeStep):
        (found, _), frames = policy(variables, frames, step)
        return found, frames

    return without_tree


def make_eval_tree_policy(
    config: Config, model: Model, num_simulations: int | None = None
) -> EvalPolicy[tuple[SearchOutput, mctx.Tree]]:
    """As `make_eval_policy`, and the tree beside what was found in it."""
    search = make_tree_search(
        config.search,
        model,
        discount=config.discount,
        explore=False,
        num_simulations=config.eval.num_simulations if num_simulations is None else num_simulations,
    )
    policy = make_policy(model, search)
    # Neither is used without noise.
    return lambda *given: policy(*given, jax.random.key(0), jnp.zeros(()))


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
        found = SearchOutput(
            action=jax.random.randint(key, (envs,), 0, num_actions),
            policy=jnp.full((envs, num_actions), 1 / num_actions),
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
