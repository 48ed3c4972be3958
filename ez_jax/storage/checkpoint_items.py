"""The items of a checkpoint: from trees of arrays to orbax and back.

Orbax stores nested dictionaries of NumPy arrays, which any other program can read; the types (optax
states, PyTreeNodes, random keys) come from the caller's template.
"""

import contextlib
import gc
import logging
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from ez_jax.config import BadInput
from ez_jax.storage import safe_files

# Large arrays are cut into chunks of this size, so that several threads compress and read.
CHUNK_BYTES = 2**24

# The saved arrays are a copy already, so orbax need not make another. (No leaf is a jax.Array, but
# orbax warns if it would not know how to handle one.)
_HANDLERS = ocp.type_handlers.create_type_handler_registry(
    (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
    (jax.Array, ocp.type_handlers.ArrayHandler()),
)

PyTree = Any


class DamagedCheckpoint(BadInput):
    """A checkpoint whose files were changed."""


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree (also of ShapeDtypeStruct)."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _names(tree: PyTree) -> list[tuple[str, ...]]:
    """The path of every leaf, as the names along it."""
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    return [tuple(jax.tree_util.keystr((k,), simple=True) for k in path) for path in paths]


def describe(tree: PyTree) -> dict[str, str]:
    """`dtype[shape]` of every leaf by its path, which a template has to match."""
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if not hasattr(leaf, "dtype"):
            raise TypeError(f"only arrays can be saved, not {leaf!r}; plain values go into meta")
    kinds = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves]
    return dict(zip(map("/".join, _names(tree)), kinds, strict=True))


def to_host(tree: PyTree) -> PyTree:
    """Copies as NumPy, keys as their bits; independent of what happens to the source."""

    def copy(leaf: Any) -> np.ndarray:
        # On a CPU asarray is a view of a buffer that the caller may change or donate next, and
        # newer versions of JAX keep that view, so that the buffer could no longer be donated.
        return np.asarray(leaf) if on_device(leaf) else np.array(leaf)

    def on_device(leaf: Any) -> bool:
        return isinstance(leaf, jax.Array) and next(iter(leaf.devices())).platform != "cpu"

    tree = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
    for leaf in jax.tree.leaves(tree):
        if on_device(leaf):
            leaf.copy_to_host_async()
    return jax.tree.map(copy, tree)


def _nested(tree: PyTree) -> dict[str, Any]:
    """The leaves in nested dictionaries, without empty arrays, which orbax does not accept."""
    leaves = zip(_names(tree), jax.tree.leaves(tree), strict=True)
    return unflatten_dict({names: leaf for names, leaf in leaves if leaf.size})


def _orbax() -> tuple[ocp.Checkpointer, ocp.PyTreeCheckpointHandler]:
    """Orbax for this process alone: each has all the data, so one writes and all may read."""
    number = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=number, active_processes={number}, barrier_sync_key_prefix=f"alone{number}"
    )
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=True, type_handler_registry=_HANDLERS, multiprocessing_options=alone
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone), handler


@contextlib.contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """The same folder under a path without special characters, within the block.

    Orbax uses the whole path in file patterns and takes `gs:` for a bucket, and TensorStore accepts
    only UTF-8. The name of a user's folder must not matter.
    """
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = Path(f"/proc/self/fd/{parent}")
        # Only Linux has such a name.
        yield short / folder.name if short.exists() else folder
    finally:
        os.close(parent)


def save_item(folder: Path, tree: PyTree) -> None:
    """Write a tree of NumPy arrays as a new orbax folder, compressed."""
    nested = _nested(tree)
    chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), nested)
    with _failing_once(), _plainly_named(folder) as named, _orbax()[0] as orbax:
        orbax.save(named, args=ocp.args.PyTreeSave(nested, save_args=chunks))


@contextlib.contextmanager
def _failing_once() -> Iterator[None]:
    """Have one failure raised and nothing printed, however many arrays cannot be written.

    Orbax ends with the first that fails. Of the others its threads, asyncio and TensorStore, which
    has nobody left to tell, would print a traceback each, now or later.
    """
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    levels, usual = [logger.level for logger in loggers], sys.unraisablehook

    def told(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = told
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    sys.unraisablehook = usual  # all this stays after a failure
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def restore_item(folder: Path, template: PyTree) -> PyTree:
    """Read an orbax folder into the types and onto the devices of `template`.

    Raises:
      DamagedCheckpoint: orbax cannot read it, or its arrays differ from `template`.
    """
    nested = _read(folder, _nested(jax.tree.map(_stored, template)))
    leaves, structure = jax.tree.flatten(template)
    arrays = [
        _like(leaf, _take(nested, names) if leaf.size else np.empty(leaf.shape, leaf.dtype))
        for names, leaf in zip(_names(template), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


def check_item(folder: Path, tree: PyTree) -> None:
    """Check that an orbax folder equals a tree of NumPy arrays, bit by bit.

    Raises:
      DamagedCheckpoint: it cannot be read, or differs.
    """
    there = jax.tree.leaves(restore_item(folder, tree))
    for names, leaf, found in zip(_names(tree), jax.tree.leaves(tree), there, strict=True):
        if _raw(leaf) != _raw(found):
            raise DamagedCheckpoint(f"{folder} is damaged: {'/'.join(names)} was changed")


def _raw(array: np.ndarray) -> memoryview:
    """The bytes of an array, without a copy if it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read(folder: Path, wanted: PyTree) -> PyTree:
    """The arrays of an orbax folder as NumPy, if they match `wanted`."""
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    asyncio = logging.getLogger("asyncio")
    level, told = asyncio.level, ""
    # If several arrays cannot be read, orbax reports one; asyncio would print the rest.
    asyncio.setLevel(logging.CRITICAL)
    try:
        _check_layout(folder)
        orbax, handler = _orbax()
        with _plainly_named(folder) as named, orbax:
            _check_stored(folder, handler.metadata(named).tree, wanted)
            return orbax.restore(named, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    except (DamagedCheckpoint, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 an untrusted file can cause any exception
        told = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    finally:
        if told:
            gc.collect()  # otherwise they are printed later
        asyncio.setLevel(level)
    raise DamagedCheckpoint(f"{folder} is damaged: it cannot be read ({told})")


def _stored(leaf: Any) -> Any:
    """Shape and type of a leaf as stored in the folder."""
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _check_layout(folder: Path) -> None:
    """Refuse a folder whose arrays orbax would take from elsewhere or read differently."""
    told = safe_files.read_json(folder / "_METADATA")
    leaves = told["tree_metadata"].values()
    kinds = {leaf["value_metadata"]["value_type"] for leaf in leaves}
    if told["use_ocdbt"] is not True or told["use_zarr3"] is not False or kinds - {"np.ndarray"}:
        raise DamagedCheckpoint(f"{folder} is damaged: it was not written by ez_jax")


def _check_stored(folder: Path, there: PyTree, wanted: PyTree) -> None:
    """Refuse other arrays before reading: orbax would allocate what the folder says."""
    paths = [[path for path, _ in jax.tree.leaves_with_path(tree)] for tree in (there, wanted)]
    if paths[0] != paths[1]:
        raise DamagedCheckpoint(f"{folder} is damaged: its arrays have other names")
    found = zip(_names(wanted), jax.tree.leaves(there), jax.tree.leaves(wanted), strict=True)
    for names, array, leaf in found:
        chunk = math.prod(array.storage.chunk_shape) * leaf.dtype.itemsize
        is_same = (tuple(array.shape), array.dtype) == (leaf.shape, leaf.dtype)
        if not is_same or chunk > max(CHUNK_BYTES, tree_bytes(leaf)):
            raise DamagedCheckpoint(
                f"{folder} is damaged: {'/'.join(names)} is {array.dtype}{list(array.shape)} in "
                f"chunks of {chunk:,} bytes, unlike in meta.json"
            )


def _take(nested: dict[str, Any], names: tuple[str, ...]) -> np.ndarray:
    """Remove one leaf, so that no second copy of it stays in memory."""
    *parents, last = names
    for name in parents:
        nested = nested[name]
    return np.asarray(nested.pop(last))


def _like(template: Any, array: np.ndarray) -> Any:
    """Convert a restored array to the kind of the template."""
    if _is_key(template):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=_key_impl(template))
    if isinstance(template, np.ndarray | np.generic):
        return array
    return jax.device_put(array, getattr(template, "sharding", None))


def _key_impl(template: Any) -> Any:
    """The implementation of a key, also for a ShapeDtypeStruct, which needs tracing."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), template)
    return found[0]
