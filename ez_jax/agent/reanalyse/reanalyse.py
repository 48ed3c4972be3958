"""Searching anew with the target network: policies and root values of old data (MuZero Reanalyse).

A mode is one function in `MODES`: it brings the stored policies and values of a batch up to date.
`none` leaves them as they are. `batch` searches for every update and forgets what it found, as
published. `buffer` keeps what was found in the replay until it is older than `reanalyse.max_age`
updates: the same row is drawn again long before the network has changed much.
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
