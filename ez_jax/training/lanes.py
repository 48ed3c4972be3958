"""Where the runs of one program are: every device has the same number of lanes, one for each run.

If the runs cannot be divided evenly, the last lanes are spare.
"""

import functools
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from ez_jax.config import BadInput

AXIS = "runs"  # of the mesh
BY_RUN, SHARED = PartitionSpec(AXIS), PartitionSpec()
Tree = TypeVar("Tree")


def make_mesh(count: int, wanted: str) -> Mesh:
    """The devices of so many runs.

    These are as few as possible without any device having more runs than necessary.

    Args:
      count: of the runs.
      wanted: the setting `devices`.

    Raises:
      BadInput: there are fewer devices than wanted.
    """
    there = jax.local_devices()
    most = int(wanted) if wanted.isdecimal() else len(there)
    if most > len(there):
        raise BadInput(
            f"devices={wanted}, but JAX sees {len(there)} on this machine: leave out devices= to "
            "use all of them"
        )
    lanes_each = -(-count // most)
    return Mesh(np.array(there[: -(-count // lanes_each)]), AXIS)


def number(count: int, mesh: Mesh) -> int:
    """The number of lanes for so many runs, with spare ones."""
    return count + -count % mesh.size


def take(runs: Tree, lane: int) -> Tree:
    """One run, on the device that has it."""
    parts = _parts(runs)
    device, place = _place(parts, lane)
    return _take(parts[device], np.int32(place))


def put(runs: Tree, lane: int, run: Tree) -> Tree:
    """Replace one run; `runs` must not be used any more."""
    parts = _parts(runs)
    device, place = _place(parts, lane)
    there = jax.tree.leaves(parts[device])[0].sharding
    parts[device] = _put(parts[device], np.int32(place), jax.device_put(run, there))

    def whole(old: jax.Array, *shards: jax.Array) -> jax.Array:
        return jax.make_array_from_single_device_arrays(old.shape, old.sharding, shards)

    return jax.tree.map(whole, runs, *parts)


def _place(parts: list[Tree], lane: int) -> tuple[int, int]:
    """The device that has a lane, and where."""
    return divmod(lane, len(jax.tree.leaves(parts[0])[0]))


def _parts(runs: Tree) -> list[Tree]:
    """What each device has, in the order of the lanes."""

    def of_device(i: int, x: jax.Array) -> jax.Array:
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return shards[i].data

    devices = len(jax.tree.leaves(runs)[0].addressable_shards)
    return [jax.tree.map(functools.partial(of_device, i), runs) for i in range(devices)]


# Jitted: one program each instead of one per array.


@jax.jit
def _take(part: Tree, place: ArrayLike) -> Tree:
    return jax.tree.map(lambda x: x[place], part)


@functools.partial(jax.jit, donate_argnums=0)
def _put(part: Tree, place: ArrayLike, run: Tree) -> Tree:
    return jax.tree.map(lambda x, one: x.at[place].set(one), part, run)
