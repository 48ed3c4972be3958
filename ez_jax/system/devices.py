"""Many devices as one: where arrays lie, and what each device does with its part.

There is one mesh axis, `data`, over all devices. It is JAX's ambient mesh (`jax.set_mesh`), so that
nobody hands it around; without one, all of this is what it is on one device. Three rules:

- Parameters, optimiser, priorities and everything else that is small is whole on every device.
- The frames of the replay, which are most of it, lie row by row on the devices (`padded_length`).
- A batch is split by its samples. What treats samples one by one, searches above all, runs on each
  device by itself (`spread`): a loop that ends early on one need not wait for the others. What
  mixes them, gradients and the statistics of BatchNorm, is left to the compiler.

Draws are made for all samples before they are split, so that they do not depend on the devices.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

AXIS = "data"
SPLIT, WHOLE = PartitionSpec(AXIS), PartitionSpec()
Tree = TypeVar("Tree")


def make_mesh(devices: Any) -> Mesh:
    """The mesh of some devices, for `jax.set_mesh`."""
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: the devices of the ambient mesh, else those that JAX found."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def count() -> int:
    """Devices of the ambient mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[AXIS]


def everywhere() -> NamedSharding | None:
    """For `jax.device_put`: whole on every device."""
    return shardings(WHOLE)


def shardings(specs: Any) -> Any:
    """A tree of `PartitionSpec` on the ambient mesh; None, for anywhere, without one."""
    mesh = jax.sharding.get_mesh()
    place = lambda spec: None if mesh.empty else NamedSharding(mesh, spec)  # noqa: E731
    return jax.tree.map(place, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def whole(tree: Tree) -> Tree:
    """Arrays of a program that are to be whole on every device from here on."""
    return tree if count() == 1 else jax.lax.with_sharding_constraint(tree, WHOLE)


def split(tree: Tree) -> Tree:
    """Arrays of a program that are to be split by their first axis from here on."""
    return tree if count() == 1 else jax.lax.with_sharding_constraint(tree, SPLIT)


def spread(function: Callable[..., Tree], *shared: Any, rows: Any) -> Tree:
    """`function(*shared, rows)`, each device with its part of the rows.

    Every array of `rows` and of the result has a leading axis of rows, which the function treats
    one by one. Where the devices do not divide them, some of the rows are computed twice.
    """
    number = count()
    if number == 1:
        return function(*shared, rows)
    size = jax.tree.leaves(rows)[0].shape[0]
    more = -size % number
    padded = jax.tree.map(lambda x: _longer(x, more), rows) if more else rows
    specs = (*(WHOLE for _ in shared), SPLIT)
    # Not checked: what is whole is so by construction, and loops of mctx cannot be annotated.
    found = jax.shard_map(function, in_specs=specs, out_specs=SPLIT, check_vma=False)(
        *shared, padded
    )
    return jax.tree.map(lambda x: x[:size], found) if more else found


def _longer(x: Array, more: int) -> Array:
    return jnp.concatenate([x, jnp.broadcast_to(x[-1:], (more, *x.shape[1:]))])


# A long array lies row by row on the devices: its first axis is the longer, and a multiple of them.


def padded_length(length: int) -> int:
    """Rows of a long array that can be split."""
    return length + -length % count()


def read(long: Shaped[Array, "T ..."], row: Int[Array, "B W"], *column: Array) -> Array:
    """`long[row, *column]`, split by its first axis: each device adds what it has."""
    number = count()
    if number == 1:
        return long[row, *column]
    size = len(row)
    padded = [_longer(x, -size % number) for x in (row, *column)]

    def of_mine(long: Array, row: Array, *column: Array) -> Array:
        at, is_mine = _mine(long, row)
        found = long[jnp.where(is_mine, at, 0), *column]
        is_mine = is_mine.reshape(*is_mine.shape, *(1,) * (found.ndim - is_mine.ndim))
        found = jnp.where(is_mine, found, jnp.zeros_like(found))
        return jax.lax.psum_scatter(found, AXIS, scatter_dimension=0, tiled=True)

    specs = (SPLIT, WHOLE, *(WHOLE for _ in column))
    found = jax.shard_map(of_mine, in_specs=specs, out_specs=SPLIT, check_vma=False)
    return found(long, *padded)[:size]


def write(long: Shaped[Array, "T ..."], at: Int[Array, " R"], rows: Array) -> Array:
    """`long` with some rows replaced; those at its length and beyond are dropped."""
    if count() == 1:
        return long.at[at].set(rows, mode="drop")

    def into_mine(long: Array, at: Array, rows: Array) -> Array:
        at, is_mine = _mine(long, at)
        return long.at[jnp.where(is_mine, at, len(long))].set(rows, mode="drop")

    specs = (SPLIT, WHOLE, WHOLE)
    into = jax.shard_map(into_mine, in_specs=specs, out_specs=SPLIT, check_vma=False)
    return into(long, at, rows)


def _mine(long: Array, row: Array) -> tuple[Array, Array]:
    """Where rows lie in the part of this device, and whether they lie there."""
    at = row - jax.lax.axis_index(AXIS) * len(long)
    return at, (at >= 0) & (at < len(long))
