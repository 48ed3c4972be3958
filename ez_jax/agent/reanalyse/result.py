"""The result of a mode of reanalysis, and the type of a mode."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Int

from ez_jax.structs import Batch, Replay, Variables


class Reanalysed(NamedTuple):
    """The result of a reanalysis."""

    batch: Batch
    replay: Replay
    searches: Int[Array, ""]  # number of searched roots


# (target variables, key, batch, replay, updates made) -> Reanalysed; the key is consumed. The batch
# has the samples of all updates that are searched together: first of each, second of each, ...
ReanalyseFn = Callable[[Variables, Array, Batch, Replay, Array], Reanalysed]
