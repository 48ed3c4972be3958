"""Search results are kept in the replay until they are too old (as ReZero argues, Xuan, 2024)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ez_jax.agent.frames import chosen_stacks
from ez_jax.agent.model import Model
from ez_jax.agent.reanalyse.result import Reanalysed, ReanalyseFn
from ez_jax.agent.search import SearchFn, forbidden
from ez_jax.config import Config
from ez_jax.structs import Batch, Replay, Row, SearchOutput, Variables
from ez_jax.system import devices


def make_buffer(config: Config, model: Model, search: SearchFn[SearchOutput]) -> ReanalyseFn:
    """Search sampled rows whose results are older than `reanalyse.max_age` updates, each once.

    All of them, `reanalyse.chunk` at a time, so that no older result is ever used.
    """
    num_positions, max_age = config.learner.unroll_steps + 1, config.reanalyse.max_age
    stack = model.spec.frame_stack

    def search_stacks(variables: Variables, rows: tuple) -> SearchOutput:
        frames, keys, legal = rows
        root = model.root(variables, frames)
        return search(variables, root, keys, **forbidden(legal))

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
            legal = None if batch.legal is None else batch.legal[sample, position]
            found = devices.spread(search_stacks, variables, rows=(frames, keys, legal))
            is_wanted = i * chunk + jnp.arange(chunk) < number
            at = jnp.where(is_wanted, flat[chosen], replay.priority.size)  # past the end: dropped
            return i + 1, _store(rows, at, found, updates)

        # Carry only what is written: a loop that carries the frames might copy them.
        written = replay.rows.replace(observation=jnp.zeros(()))
        _, written = jax.lax.while_loop(
            lambda state: state[0] * chunk < number, search_some, (jnp.int32(0), written)
        )
        rows = written.replace(observation=replay.rows.observation)
        at = row.T, env.T
        batch = batch.replace(
            policy=rows.policy[at],
            value=rows.value[at],
            candidates=None if rows.candidates is None else rows.candidates[at],
            searched=rows.searched[at],
        )
        return Reanalysed(batch, replay.replace(rows=rows), number)

    return reanalyse


def _stale(
    replay: Replay, flat: Int[Array, " P"], oldest: Int[Array, ""]
) -> tuple[Int[Array, " P"], Int[Array, ""]]:
    """Order the places `flat`, first those searched before `oldest`; also returns their number.

    If several places are the same row, only the first counts.
    """
    places = jnp.arange(len(flat))
    first = jnp.full(replay.priority.size, len(flat)).at[flat].min(places)
    is_stale = (replay.rows.searched.reshape(-1)[flat] < oldest) & (first[flat] == places)
    return jnp.argsort(~is_stale, stable=True), jnp.sum(is_stale)


def _store(rows: Row, at: Int[Array, " C"], found: SearchOutput, updates: Array) -> Row:
    place = at // rows.value.shape[1], at % rows.value.shape[1]

    def put(ring: Array | None, new: Array | None) -> Array | None:
        return None if ring is None or new is None else ring.at[place].set(new, mode="drop")

    return rows.replace(
        policy=put(rows.policy, found.policy),
        value=put(rows.value, found.value),
        candidates=put(rows.candidates, found.candidates),
        searched=put(rows.searched, updates),
    )
