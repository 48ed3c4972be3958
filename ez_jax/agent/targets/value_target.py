"""What all value targets share: their type, and where the targets of a sequence end."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ez_jax.structs import Batch, Variables

# (target variables, reanalysed batch, updates made) -> values of the unroll positions
ValueTargetFn = Callable[[Variables, Batch, Int[Array, ""]], Float[Array, "B K+1"]]


def target_end(batch: Batch, block_length: int) -> Int[Array, " B"]:
    """Time of the first row without a target: the episode's last row, or the end of its block.

    Official blocks begin with their episode and are `block_length` steps long; 0 means none.
    """
    # Deviates (episodes in replay): the official code always cuts them.
    if not block_length:
        return batch.last
    # An episode that continues after the last known row ends later.
    return jnp.minimum(batch.last + batch.goes_on, block_length - batch.position % block_length)
