"""No reanalysis: policies and values stay as stored."""

import jax.numpy as jnp
from jaxtyping import Array

from ez_jax.agent.model import Model
from ez_jax.agent.reanalyse.result import Reanalysed, ReanalyseFn
from ez_jax.agent.search import SearchFn
from ez_jax.config import Config
from ez_jax.structs import Batch, Replay, SearchOutput


def make_none(config: Config, model: Model, search: SearchFn[SearchOutput]) -> ReanalyseFn:
    """Keep the results of the actor's search."""
    del config, model, search

    def keep(variables, key, batch: Batch, replay: Replay, updates: Array) -> Reanalysed:
        del variables, key, updates
        return Reanalysed(batch, replay, jnp.zeros((), jnp.int32))

    return keep
