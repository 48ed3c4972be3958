"""Search old data again with the target network, for policies and root values (MuZero Reanalyse).

A mode is one function in `MODES` that refreshes the stored policies and values of a batch. `none`
does nothing. `batch` searches for every update and does not keep the results, as published.
`buffer` keeps the results in the replay until they are older than `reanalyse.max_age` updates: the
same row is sampled again long before the network has changed much.
"""

from collections.abc import Callable

from ez_jax.agent.model import Model
from ez_jax.agent.reanalyse.batch import make_batch
from ez_jax.agent.reanalyse.buffer import make_buffer
from ez_jax.agent.reanalyse.none import make_none
from ez_jax.agent.reanalyse.result import ReanalyseFn
from ez_jax.agent.search import SearchFn
from ez_jax.config import Config
from ez_jax.structs import SearchOutput

MODES: dict[str, Callable[[Config, Model, SearchFn[SearchOutput]], ReanalyseFn]] = {
    "none": make_none,
    "batch": make_batch,
    "buffer": make_buffer,
}


def make_reanalyse(config: Config, model: Model, search: SearchFn[SearchOutput]) -> ReanalyseFn:
    """The configured reanalysis."""
    return MODES[config.reanalyse.mode](config, model, search)
