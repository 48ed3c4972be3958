"""What every way to reanalyse gives, and its type."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Int

from ez_jax.structs import Batch, Replay, Variables


class Reanalysed(NamedTuple):
    """What a reanalysis returns."""

    batch: Batch
    replay: Replay
    searches: Int[Array, ""]  # roots that were searched


# (target variables, key, batch, replay, updates made) -> Reanalysed; the key is consumed. The batch
# holds the samples of all updates that are searched together: first of each, second of each, ...
ReanalyseFn = Callable[[Variables, Array, Batch, Replay, Array], Reanalysed]
