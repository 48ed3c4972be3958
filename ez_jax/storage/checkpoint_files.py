"""The files of one checkpoint: writing them, and checking that they are unchanged."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ez_jax.config import BadInput
from ez_jax.config.errors import Fault
from ez_jax.storage import safe_files
from ez_jax.storage.checkpoint_items import (
    DamagedCheckpoint,
    check_item,
    describe,
    save_item,
    tree_bytes,
)
from ez_jax.storage.replay_journal import sync
from ez_jax.system.free_memory import gigabytes

FORMAT = 2
BEST = "best"
WEIGHTS = "weights"  # the only item of a checkpoint that cannot be trained further; also in `meta`
META_FILE = "meta.json"
SUMS_FILE = "SHA256SUMS"
BESIDE = 2**11  # bytes that are written of an array beside its numbers
OVERHEAD = 2**26  # bytes of an item's files beside its arrays, far more than there are


def describe_content(
    step: int, state: Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of meta.json without the journal; fails now if something cannot be saved."""
    index = {item: describe(tree) for item, tree in state.items()}
    json.dumps(meta, allow_nan=False)
    return {"format": FORMAT, "step": step, "items": index, "meta": dict(meta)}


def write_folder(folder: Path, host_state: Mapping[str, Any], meta_text: str) -> None:
    """Write a whole checkpoint into a new folder, and flush it to the disk."""
    folder.mkdir()
    for item, tree in host_state.items():
        save_item(folder / item, tree)
    safe_files.write_whole(folder / META_FILE, meta_text)
    sums = "".join(f"{sha}  {name}\n" for name, sha in sorted(_sums(folder).items()))
    safe_files.write_whole(folder / SUMS_FILE, sums)
    sync(folder)


def check_folder(folder: Path, host_state: Mapping[str, Any]) -> None:
    """Read back a checkpoint that was just written, as a restore would, and compare it.

    Raises:
      DamagedCheckpoint: it is not equal.
    """
    check_sums(folder, META_FILE, safe_files.LARGE)
    for item, tree in host_state.items():
        check_sums(folder, item, 2 * tree_bytes(tree) + OVERHEAD)
        check_item(folder / item, tree)


def check_disk(folder: Path, state: Mapping[str, Any], added: int) -> None:
    """Fail before anything is written if there is no room for a checkpoint and `added` bytes.

    Compression only makes it less.

    Raises:
      Fault: the disk is too full.
    """
    needed = sum(map(tree_bytes, state.values())) + added
    needed += BESIDE * sum(len(jax.tree.leaves(tree)) for tree in state.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Fault(
            f"a checkpoint needs up to {gigabytes(needed)}, but {folder} has {gigabytes(free)} "
            "left; make room and give the same command again: a run goes on from its last "
            "checkpoint"
        )


def read_meta(folder: Path) -> dict[str, Any]:
    """The content of meta.json.

    Raises:
      DamagedCheckpoint: it is missing or was changed.
      BadInput: there is no such checkpoint, or it is of another format.
    """
    if not folder.is_dir():
        raise BadInput(f"there is no checkpoint {folder}")
    check_sums(folder, META_FILE, safe_files.LARGE)
    try:
        content = safe_files.read_json(folder / META_FILE)
    except BadInput as error:
        raise DamagedCheckpoint(str(error)) from error
    written = content.get("format")
    if type(written) is int and written != FORMAT:
        raise BadInput(
            f"{folder} was written in checkpoint format {written}, "
            f"and this version of ez_jax reads format {FORMAT}"
        )
    items, meta = content.get("items"), content.get("meta")
    is_index = isinstance(items, dict) and all(isinstance(item, dict) for item in items.values())
    if type(written) is not int or not is_index or not isinstance(meta, dict):
        raise DamagedCheckpoint(f"{folder} is damaged: {META_FILE} was not written by ez_jax")
    if folder.name not in (str(content.get("step")), BEST):
        raise DamagedCheckpoint(f"{folder} is damaged: it is that of step {content.get('step')!r}")
    return content


def journal_of(folder: Path) -> tuple[list[Any], int]:
    """The files of the journal that a checkpoint needs, and the number of its oldest row.

    Raises:
      DamagedCheckpoint: the checkpoint is damaged, or does not describe a journal.
    """
    told = read_meta(folder).get("journal")
    if isinstance(told, dict) and told.keys() == {"files", "oldest_row"}:
        files, oldest_row = told["files"], told["oldest_row"]
        if isinstance(files, list) and type(oldest_row) is int:
            return files, oldest_row
    raise DamagedCheckpoint(f"{folder} is damaged: {META_FILE} does not describe a journal")


def check_shapes(folder: Path, item: str, there: Any, here: dict[str, str]) -> None:
    """Refuse arrays of another configuration before any is read."""
    there = there or {}
    differing = [name for name in sorted(there | here) if there.get(name) != here.get(name)]
    if differing:
        name = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise BadInput(
            f"{folder} has another configuration: {item}/{name} is {there.get(name, 'absent')} "
            f"there and {here.get(name, 'absent')} here{more}"
        )


def _sums(folder: Path, under: str = "", limit: float = math.inf) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint at or below `under`, by name relative to `folder`."""
    root, size = folder / under, 0
    paths = [folder, root] if root.is_file() else [folder, root, *root.rglob("*")]
    sums = {}
    for path in paths:
        if path.is_symlink():
            raise DamagedCheckpoint(f"{folder} is damaged: {path.name} is a link")
        if path.is_dir() or not path.exists():
            continue
        size += path.stat().st_size
        if not path.is_file() or size > limit:
            raise DamagedCheckpoint(f"{folder} is damaged: {path.name} is not a file, or too large")
        with path.open("rb") as file:
            name = path.relative_to(folder).as_posix()
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def check_sums(folder: Path, under: str, limit: int) -> None:
    """Check that the files at or below `under` are unchanged.

    Raises:
      DamagedCheckpoint: they were changed, or have more than `limit` bytes.
      BadInput: they cannot be read.
    """
    sums_file = folder / SUMS_FILE
    if not sums_file.exists():
        raise DamagedCheckpoint(f"{folder} is damaged: {SUMS_FILE} is missing")
    try:
        lines = safe_files.read_bytes(sums_file, safe_files.LARGE).decode(errors="replace")
        found = _sums(folder, under, limit)
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}") from error
    except BadInput as error:
        raise DamagedCheckpoint(str(error)) from error
    written = {name: sha for sha, _, name in (ln.partition("  ") for ln in lines.splitlines())}
    written = {n: sha for n, sha in written.items() if n == under or n.startswith(under + "/")}
    if not written or found != written:
        names = sorted(n for n in written | found if written.get(n) != found.get(n)) or [under]
        raise DamagedCheckpoint(f"{folder} is damaged: {names[0]} is missing or was changed")
