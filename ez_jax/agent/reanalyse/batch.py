"""Searches for every update, without keeping the results, as published."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ez_jax.agent.frames import roots_at
from ez_jax.agent.model import Model
from ez_jax.agent.reanalyse.none import make_none
from ez_jax.agent.reanalyse.result import Reanalysed, ReanalyseFn
from ez_jax.agent.search import SearchFn, forbidden
from ez_jax.config import Config
from ez_jax.structs import Batch, Replay, SearchOutput, Variables
from ez_jax.system import devices


def make_batch(config: Config, model: Model, search: SearchFn[SearchOutput]) -> ReanalyseFn:
    """Search a share `reanalyse.ratio` of every update's samples, at all positions."""
    size, num_positions = config.learner.batch_size, config.learner.unroll_steps + 1
    num_fresh = round(config.reanalyse.ratio * size)
    if not num_fresh:
        return make_none(config, model, search)
    position = jnp.arange(num_positions)
    # Spread evenly over the samples, and so over the devices: sample i where the count rises.
    risen = jnp.arange(size + 1) * num_fresh // size
    is_fresh = risen[1:] > risen[:-1]

    def search_some(variables: Variables, updates: Array, rows: tuple) -> tuple[Array | None, ...]:
        """Search some of the samples, and replace what `Batch` keeps of their searches."""
        batch, keys, wanted = rows
        count = -(-len(wanted) * num_fresh // size)  # an upper limit; exact on one device
        chosen = jnp.argsort(~wanted, stable=True)[:count]
        fresh = jax.tree.map(lambda x: x[chosen], batch)
        at = jnp.broadcast_to(position, (count, num_positions))
        roots = roots_at(model, variables, fresh, at)
        as_one_batch = functools.partial(jax.lax.collapse, start_dimension=0, stop_dimension=2)
        legal = None if fresh.legal is None else as_one_batch(jnp.moveaxis(fresh.legal, 1, 0))
        found = search(
            variables,
            jax.tree.map(as_one_batch, roots),
            as_one_batch(
                jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(keys[chosen], position)
            ),
            **forbidden(legal),
        )
        place = jnp.where(wanted[chosen], chosen, len(wanted))  # past the end: dropped

        def put(stored: Array | None, new: Array | None) -> Array | None:
            if stored is None or new is None:
                return None
            new = jnp.moveaxis(new.reshape(num_positions, count, *new.shape[1:]), 0, 1)
            return stored.at[place].set(new, mode="drop")

        when = jnp.broadcast_to(updates, found.value.shape)
        candidates = put(batch.candidates, found.candidates)
        policy, value = put(batch.policy, found.policy), put(batch.value, found.value)
        return policy, value, candidates, put(batch.searched, when)

    def reanalyse(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        samples = len(batch.index)
        wanted = jnp.repeat(is_fresh, samples // size)
        rows = batch, jax.random.split(key, samples), wanted
        policy, value, candidates, searched = devices.spread(
            search_some, variables, updates, rows=rows
        )
        batch = batch.replace(policy=policy, value=value, candidates=candidates, searched=searched)
        searches = jnp.int32(num_positions * num_fresh * (samples // size))
        return Reanalysed(batch, replay, searches)

    return reanalyse
