"""Searching anew with the target network: policies and root values of old data (MuZero Reanalyse).

A mode is one function in `MODES`: it brings the stored policies and values of a batch up to date.
`none` leaves them as they are. `batch` searches for every update and forgets what it found, as
published. `buffer` keeps what was found in the replay until it is older than `reanalyse.max_age`
updates (as ReZero argues, Xuan et al., 2024): the same row is drawn again long before the network
has changed much.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ez_jax.config import Config
from ez_jax.model import Model
from ez_jax.search import SearchFn
from ez_jax.structs import Batch, Replay, Root, Row, Variables


class Reanalysed(NamedTuple):
    """What a reanalysis returns."""

    batch: Batch
    replay: Replay
    searches: Int[Array, ""]  # roots that were searched


# (target variables, key, batch, replay, updates made) -> Reanalysed; the key is consumed. The batch
# holds the samples of all updates that are searched together, one update after another.
ReanalyseFn = Callable[[Variables, Array, Batch, Replay, Array], Reanalysed]


def roots_at(
    model: Model, variables: Variables, batch: Batch, position: Int[Array, "B K+1"]
) -> Root:
    """Roots [K+1, B, ...] of the samples at the positions given.

    One unroll position at a time bounds the memory of large images, and a batch still fills a
    device; vectors go through at once.
    """

    def roots(at: Int[Array, " B"]) -> Root:
        return model.root(variables, _stacks(model, batch.observation, at))

    over_positions = jax.lax.map if model.spec.is_image else lambda f, xs: jax.vmap(f)(xs)
    return over_positions(roots, position.T)


def _stacks(model: Model, frames: Array, at: Int[Array, " B"]) -> Array:
    """The stack of frames that ends each sample's position."""
    stack = model.spec.frame_stack
    one = lambda frames, at: jax.lax.dynamic_slice_in_dim(frames, at, stack)  # noqa: E731
    return jax.vmap(one)(frames, at)


def make_no_mode(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """Everything stays as the actor's search found it."""
    del config, model, search

    def keep(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        del variables, key, updates
        return Reanalysed(batch, replay, jnp.zeros((), jnp.int32))

    return keep


def make_batch_mode(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """The first `reanalyse.ratio` of every update's samples are searched, at all positions."""
    size, num_positions = config.learner.batch_size, config.learner.unroll_steps + 1
    num_fresh = round(config.reanalyse.ratio * size)
    if not num_fresh:
        return make_no_mode(config, model, search)

    def reanalyse(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        by_update = lambda x: x.reshape(-1, size, *x.shape[1:])  # noqa: E731
        fresh = jax.tree.map(lambda x: by_update(x)[:, :num_fresh].reshape(-1, *x.shape[1:]), batch)
        count = len(fresh.index)
        position = jnp.broadcast_to(jnp.arange(num_positions), (count, num_positions))
        roots = roots_at(model, variables, fresh, position)
        as_one_batch = lambda x: x.reshape(num_positions * count, *x.shape[2:])  # noqa: E731
        found = search(variables, jax.tree.map(as_one_batch, roots), key)

        def put(stored: Array, new: Array) -> Array:
            new = jnp.moveaxis(new.reshape(num_positions, count, *new.shape[1:]), 0, 1)
            new = new.reshape(-1, num_fresh, *new.shape[1:])
            return by_update(stored).at[:, :num_fresh].set(new).reshape(stored.shape)

        searched = jnp.broadcast_to(updates, num_positions * count)
        batch = batch.replace(
            policy=put(batch.policy, found.policy),
            value=put(batch.value, found.value),
            searched=put(batch.searched, searched),
        )
        return Reanalysed(batch, replay, jnp.int32(num_positions * count))

    return reanalyse


def make_buffer_mode(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """Rows whose policy is older than `reanalyse.max_age` updates are searched, each once.

    As many as there are, `reanalyse.chunk` at a time, so that nothing is ever used that is older.
    """
    num_positions, max_age = config.learner.unroll_steps + 1, config.reanalyse.max_age

    def reanalyse(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        count, samples = num_positions * len(batch.index), len(batch.index)
        chunk = min(config.reanalyse.chunk, count)
        row, env = _places(batch, replay, num_positions)  # [K+1, B]
        flat = (row * replay.priority.shape[1] + env).reshape(-1)
        order, number = _stale(replay, flat, updates - max_age)
        order = jnp.pad(order, (0, -count % chunk))

        def search_some(state: tuple[Array, Row]) -> tuple[Array, Row]:
            i, rows = state
            chosen = jax.lax.dynamic_slice_in_dim(order, i * chunk, chunk)
            frames = batch.observation[chosen % samples]
            roots = model.root(variables, _stacks(model, frames, chosen // samples))
            found = search(variables, roots, jax.random.fold_in(key, i))
            is_wanted = i * chunk + jnp.arange(chunk) < number
            at = jnp.where(is_wanted, flat[chosen], replay.priority.size)  # past the end: dropped
            return i + 1, _store(rows, at, found.policy, found.value, updates)

        # Only what is written: a loop that carries the frames might copy them.
        written = replay.rows.replace(observation=jnp.zeros(()))
        _, written = jax.lax.while_loop(
            lambda state: state[0] * chunk < number, search_some, (jnp.int32(0), written)
        )
        rows = written.replace(observation=replay.rows.observation)
        at = row.T, env.T
        batch = batch.replace(
            policy=rows.policy[at], value=rows.value[at], searched=rows.searched[at]
        )
        return Reanalysed(batch, replay.replace(rows=rows), number)

    return reanalyse


def _places(batch: Batch, replay: Replay, num_positions: int) -> tuple[Array, Array]:
    """Ring row and environment of every position; past an episode's end those of its last row."""
    size, num_envs = replay.priority.shape
    position = jnp.minimum(jnp.arange(num_positions)[:, None], batch.last)
    row = (batch.index // num_envs + position) % size
    return row, jnp.broadcast_to(batch.index % num_envs, row.shape)


def _stale(
    replay: Replay, flat: Int[Array, " P"], oldest: Int[Array, ""]
) -> tuple[Int[Array, " P"], Int[Array, ""]]:
    """Order of the places `flat`, those first that were searched before `oldest`, and their number.

    Of places that are the same row only the first counts.
    """
    places = jnp.arange(len(flat))
    first = jnp.full(replay.priority.size, len(flat)).at[flat].min(places)
    is_stale = (replay.rows.searched.reshape(-1)[flat] < oldest) & (first[flat] == places)
    return jnp.argsort(~is_stale, stable=True), jnp.sum(is_stale)


def _store(rows: Row, at: Int[Array, " C"], policy: Array, value: Array, updates: Array) -> Row:
    place = at // rows.value.shape[1], at % rows.value.shape[1]
    return rows.replace(
        policy=rows.policy.at[place].set(policy, mode="drop"),
        value=rows.value.at[place].set(value, mode="drop"),
        searched=rows.searched.at[place].set(updates, mode="drop"),
    )


MODES: dict[str, Callable[[Config, Model, SearchFn], ReanalyseFn]] = {
    "none": make_no_mode,
    "batch": make_batch_mode,
    "buffer": make_buffer_mode,
}


def make_reanalyse(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """The configured reanalysis."""
    return MODES[config.reanalyse.mode](config, model, search)
