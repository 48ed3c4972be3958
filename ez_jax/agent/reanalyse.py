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

from ez_jax.agent.frames import chosen_stacks, roots_at
from ez_jax.agent.model import Model
from ez_jax.agent.search import SearchFn
from ez_jax.config import Config
from ez_jax.structs import Batch, Replay, Row, SearchOutput, Variables
from ez_jax.system import devices


class Reanalysed(NamedTuple):
    """What a reanalysis returns."""

    batch: Batch
    replay: Replay
    searches: Int[Array, ""]  # roots that were searched


# (target variables, key, batch, replay, updates made) -> Reanalysed; the key is consumed. The batch
# holds the samples of all updates that are searched together: first of each, second of each, ...
ReanalyseFn = Callable[[Variables, Array, Batch, Replay, Array], Reanalysed]


def make_no_mode(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """Everything stays as the actor's search found it."""
    del config, model, search

    def keep(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        del variables, key, updates
        return Reanalysed(batch, replay, jnp.zeros((), jnp.int32))

    return keep


def make_batch_mode(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """The share `reanalyse.ratio` of every update's samples is searched, at all positions."""
    size, num_positions = config.learner.batch_size, config.learner.unroll_steps + 1
    num_fresh = round(config.reanalyse.ratio * size)
    if not num_fresh:
        return make_no_mode(config, model, search)
    position = jnp.arange(num_positions)
    # Evenly among the samples, so that every device has as many: sample i where the count rises.
    risen = jnp.arange(size + 1) * num_fresh // size
    is_fresh = risen[1:] > risen[:-1]

    def search_some(
        variables: Variables, updates: Array, rows: tuple
    ) -> tuple[Array, Array, Array]:
        """Of some of the samples: policies, values, and when they were found."""
        batch, keys, wanted = rows
        count = -(-len(wanted) * num_fresh // size)  # at most, and where there are all, just so
        chosen = jnp.argsort(~wanted, stable=True)[:count]
        fresh = jax.tree.map(lambda x: x[chosen], batch)
        at = jnp.broadcast_to(position, (count, num_positions))
        roots = roots_at(model, variables, fresh, at)
        as_one_batch = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        found = search(
            variables,
            jax.tree.map(as_one_batch, roots),
            as_one_batch(
                jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(keys[chosen], position)
            ),
        )
        place = jnp.where(wanted[chosen], chosen, len(wanted))  # past the end: dropped

        def put(stored: Array, new: Array) -> Array:
            new = jnp.moveaxis(new.reshape(num_positions, count, *new.shape[1:]), 0, 1)
            return stored.at[place].set(new, mode="drop")

        when = jnp.broadcast_to(updates, found.value.shape)
        stored = batch.policy, batch.value, batch.searched
        return tuple(map(put, stored, (found.policy, found.value, when)))

    def reanalyse(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        samples = len(batch.index)
        wanted = jnp.repeat(is_fresh, samples // size)
        rows = batch, jax.random.split(key, samples), wanted
        policy, value, searched = devices.spread(search_some, variables, updates, rows=rows)
        batch = batch.replace(policy=policy, value=value, searched=searched)
        searches = jnp.int32(num_positions * num_fresh * (samples // size))
        return Reanalysed(batch, replay, searches)

    return reanalyse


def make_buffer_mode(config: Config, model: Model, search: SearchFn) -> ReanalyseFn:
    """Rows whose policy is older than `reanalyse.max_age` updates are searched, each once.

    As many as there are, `reanalyse.chunk` at a time, so that nothing is ever used that is older.
    """
    num_positions, max_age = config.learner.unroll_steps + 1, config.reanalyse.max_age
    stack = model.spec.frame_stack

    def search_stacks(variables: Variables, rows: tuple[Array, Array]) -> SearchOutput:
        frames, keys = rows
        return search(variables, model.root(variables, frames), keys)

    def reanalyse(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        count, samples = num_positions * len(batch.index), len(batch.index)
        chunk = min(config.reanalyse.chunk, count)
        row = batch.row[:, stack - 1 :][:, :num_positions].T  # [K+1, B], not past an episode's end
        env = jnp.broadcast_to(batch.index % replay.priority.shape[1], row.shape)
        flat = (row * replay.priority.shape[1] + env).reshape(-1)
        order, number = _stale(replay, flat, updates - max_age)
        order = jnp.pad(order, (0, -count % chunk))

        def search_some(state: tuple[Array, Row]) -> tuple[Array, Row]:
            i, rows = state
            chosen = jax.lax.dynamic_slice_in_dim(order, i * chunk, chunk)
            sample, position = chosen % samples, chosen // samples
            frames = chosen_stacks(batch.observation, sample, position, stack)
            keys = jax.random.split(jax.random.fold_in(key, i), chunk)
            found = devices.spread(search_stacks, variables, rows=(frames, keys))
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
