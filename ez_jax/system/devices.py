"""Several devices as one: where arrays are, and what each device computes.

There is one mesh axis, `data`, over all devices. It is JAX's ambient mesh (`jax.set_mesh`), so it
is not passed around; without a mesh, everything is as on one device. Three rules:

- Parameters, optimiser, priorities and everything else that is small is copied to every device.
- The frames of the replay, which take most memory, are split by rows (`padded_length`).
- A batch is split by samples. Computations that treat samples one by one, above all searches, run
  on each device separately (`spread`): a loop that ends early on one need not wait for the others.
  What mixes samples (gradients, the statistics of BatchNorm) is left to the compiler.

Random numbers are drawn for the whole batch before it is split, so they do not depend on devices.
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
    """A mesh of these devices, for `jax.set_mesh`."""
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: the devices of the ambient mesh, or else those that JAX found."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def count() -> int:
    """Number of devices of the ambient mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape.get(AXIS, 1)


def everywhere() -> NamedSharding | None:
    """A sharding for `jax.device_put`: a copy on every device."""
    return shardings(WHOLE)


def shardings(specs: Any) -> Any:
    """A tree of `PartitionSpec` as shardings on the ambient mesh; None without a mesh."""
    mesh = jax.sharding.get_mesh()
    place = lambda spec: None if mesh.empty else NamedSharding(mesh, spec)  # noqa: E731
    return jax.tree.map(place, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def whole(tree: Tree) -> Tree:
    """Inside a program: copy these arrays to every device from here on."""
    return tree if count() == 1 else jax.lax.with_sharding_constraint(tree, WHOLE)


def split(tree: Tree) -> Tree:
    """Inside a program: split these arrays by their first axis from here on."""
    return tree if count() == 1 else jax.lax.with_sharding_constraint(tree, SPLIT)


def spread(function: Callable[..., Tree], *shared: Any, rows: Any) -> Tree:
    """Call `function(*shared, rows)` with each device's part of the rows.

    Every array of `rows` and of the result has a leading axis of rows, which the function treats
    one by one. If the number of devices does not divide it, some rows are computed twice.
    """
    number = count()
    if number == 1:
        return function(*shared, rows)
    size = jax.tree.leaves(rows)[0].shape[0]
    more = -size % number
    padded = jax.tree.map(lambda x: _longer(x, more), rows) if more else rows
    specs = (*(WHOLE for _ in shared), SPLIT)
    # Not checked: copies are equal by construction, and mctx's loops cannot be annotated.
    found = jax.shard_map(function, in_specs=specs, out_specs=SPLIT, check_vma=False)(
        *shared, padded
    )
    return jax.tree.map(lambda x: x[:size], found) if more else found


def _longer(x: Array, more: int) -> Array:
    return jnp.concatenate([x, jnp.broadcast_to(x[-1:], (more, *x.shape[1:]))])


# A long array is split by rows: its first axis is padded to a multiple of the number of devices.


def padded_length(length: int) -> int:
    """The number of rows of a long array that can be split."""
    return length + -length % count()


def read(long: Shaped[Array, "T ..."], row: Int[Array, "B W"], *column: Array) -> Array:
    """`long[row, *column]` for an array split by its first axis: each device adds its part."""
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
    """Replace some rows of `long`; indices at its length and beyond are dropped."""
    if count() == 1:
        return long.at[at].set(rows, mode="drop")

    def into_mine(long: Array, at: Array, rows: Array) -> Array:
        at, is_mine = _mine(long, at)
        return long.at[jnp.where(is_mine, at, len(long))].set(rows, mode="drop")

    specs = (SPLIT, WHOLE, WHOLE)
    into = jax.shard_map(into_mine, in_specs=specs, out_specs=SPLIT, check_vma=False)
    return into(long, at, rows)


def _mine(long: Array, row: Array) -> tuple[Array, Array]:
    """The places of rows in this device's part, and whether they are in it."""
    at = row - jax.lax.axis_index(AXIS) * len(long)
    return at, (at >= 0) & (at < len(long))
