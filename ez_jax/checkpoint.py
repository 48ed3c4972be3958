"""Saves and restores a run: arrays by orbax, everything else as JSON, no pickles.

A checkpoint is a folder that appears under its name only when it is complete:

    <run>/checkpoints/<step>/<item>/   one orbax tree of arrays per item (train, rest, ...)
                            /meta.json   format, clocks and shape of every array
                            /SHA256SUMS  of every file (`sha256sum -c` understands it)

Items can be restored one by one, so evaluation does not read the replay.
"""

import concurrent.futures
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ez_jax import safe_files
from ez_jax.arrays import (
    DamagedCheckpoint,
    describe,
    restore_item,
    save_item,
    to_host,
    tree_bytes,
)
from ez_jax.config import BadInput
from ez_jax.run_folder import make_run_dir

FORMAT = 1
META_FILE = "meta.json"
SUMS_FILE = "SHA256SUMS"
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # the name of a complete checkpoint
_OVERHEAD = 2**26  # bytes of an item's files beside its arrays, far more than there are


class Restored(NamedTuple):
    """What a checkpoint held."""

    step: int  # agent steps
    state: dict[str, Any]  # by item, as the template
    meta: dict[str, Any]  # as given to save


class Checkpointer:
    """The checkpoints of one run folder. One process may save; any number may restore."""

    def __init__(
        self, run_dir: str | Path, keep: int = 1, warn: Callable[[str], None] = warnings.warn
    ):
        """`keep` is how many of the newest checkpoints stay; `warn` is told of damaged ones."""
        if keep < 1:
            raise BadInput(f"checkpoint.keep must be at least 1, not {keep}")
        self._dir = Path(run_dir).expanduser().absolute() / "checkpoints"  # orbax wants absolute
        self._keep = keep
        self._warn = warn
        self._is_prepared = False
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        if not self._dir.is_dir():
            return []
        names = [path.name for path in self._dir.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def latest(self) -> int | None:
        """The newest complete checkpoint; None if there is none yet."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Save `state`, arrays by item, and `meta`, JSON; the writing goes on in the background.

        The arrays are copied to the host before this returns, so the caller may donate them. It
        waits for the save before, and raises what went wrong there. Once the new checkpoint
        stands, older ones beyond `keep` go, and so do later ones: a run that went back to `step`
        has given them up.

        Raises:
          BadInput: the folder cannot be written or the disk may be too small.
        """
        self.wait()
        if not self._is_prepared:
            make_run_dir(self._dir)
            self._clear_leftovers()
            self._is_prepared = True
        index = {item: describe(tree) for item, tree in state.items()}
        check_disk(self._dir, sum(map(tree_bytes, state.values())))
        content = {"format": FORMAT, "step": step, "items": index, "meta": dict(meta)}
        meta_text = json.dumps(content, allow_nan=False)
        host_state = {item: to_host(tree) for item, tree in state.items()}
        self._pending = self._executor.submit(self._write, step, host_state, meta_text)

    def restore(self, step: int, template: Mapping[str, Any]) -> Restored:
        """Restore the items named in `template`, trees of arrays or of ShapeDtypeStruct.

        A leaf comes back as NumPy where the template has NumPy, else as a JAX array (on the
        template's sharding, if it has one). int64 and float64 therefore need a NumPy template.

        Raises:
          DamagedCheckpoint: files are missing or changed.
          BadInput: another format, or arrays of another configuration.
        """
        folder = self._dir / str(step)
        content = _read_meta(folder)
        for item, tree in template.items():
            _check_shapes(folder, item, content["items"].get(item), describe(tree))
            _check_sums(folder, item, 2 * tree_bytes(tree) + _OVERHEAD)
        state = {item: restore_item(folder / item, tree) for item, tree in template.items()}
        return Restored(step, state, content["meta"])

    def restore_newest(self, template: Mapping[str, Any]) -> Restored | None:
        """Restore the newest checkpoint that is sound; None if there is no checkpoint at all.

        Raises:
          BadInput: every checkpoint is damaged, or as `restore` does.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, template)
            except DamagedCheckpoint as error:
                self._warn(f"{error}; it is left out, and the one before is tried")
        if steps:
            raise BadInput(f"no sound checkpoint is left in {self._dir}; start in a new run_dir=")
        return None

    def wait(self) -> None:
        """Wait until the last save stands on the disk; raises what went wrong in it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the last save and end the background thread."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def __enter__(self) -> "Checkpointer":
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the last save."""
        self.close()

    def _write(self, step: int, host_state: Mapping[str, Any], meta_text: str) -> None:
        """Write a complete folder, then give it its name (on the background thread)."""
        part, final, old = (self._dir / f"{step}{end}" for end in (".part", "", ".old"))
        try:
            _write_folder(part, host_state, meta_text)
            if final.exists():
                final.rename(old)
            part.rename(final)
        finally:
            # If it failed, perhaps on a full disk: nothing of it stays.
            shutil.rmtree(part, ignore_errors=True)
        _sync_folder(self._dir)
        shutil.rmtree(old, ignore_errors=True)
        keep = [other for other in self.steps() if other <= step][-self._keep :]
        for other in set(self.steps()) - set(keep):
            shutil.rmtree(self._dir / str(other))

    def _clear_leftovers(self) -> None:
        """Tidy up after a save that was killed."""
        for old in self._dir.glob("*.old"):
            if not old.with_suffix("").exists():
                old.rename(old.with_suffix(""))
        for leftover in [*self._dir.glob("*.part"), *self._dir.glob("*.old")]:
            shutil.rmtree(leftover)


def _write_folder(folder: Path, host_state: Mapping[str, Any], meta_text: str) -> None:
    folder.mkdir()
    for item, tree in host_state.items():
        save_item(folder / item, tree)
    _write_durably(folder / META_FILE, meta_text)
    sums = "".join(f"{sha}  {name}\n" for name, sha in sorted(_sums(folder).items()))
    _write_durably(folder / SUMS_FILE, sums)
    _sync_folder(folder)


def check_disk(folder: Path, needed: int) -> None:
    """Refuse if fewer than `needed` bytes are free; compression only makes it less.

    Raises:
      BadInput: the disk is too small.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BadInput(
            f"a checkpoint needs up to {needed / 1e9:.3g} GB, but {folder} has {free / 1e9:.3g} GB "
            "left; make room, or choose a run_dir= on another disk or a smaller replay.capacity="
        )


def _read_meta(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise BadInput(f"there is no checkpoint {folder}")
    _check_sums(folder, META_FILE, safe_files.LARGE)
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
        raise DamagedCheckpoint(f"{folder} is damaged: {META_FILE} is none of ez_jax")
    if str(content.get("step")) != folder.name:
        raise DamagedCheckpoint(f"{folder} is damaged: it is that of step {content.get('step')!r}")
    return content


def _check_shapes(folder: Path, item: str, there: Any, here: dict[str, str]) -> None:
    """Refuse arrays of another configuration before any is read."""
    there = there or {}
    differing = [name for name in sorted(there | here) if there.get(name) != here.get(name)]
    if differing:
        name = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise BadInput(
            f"{folder} holds another configuration: {item}/{name} is {there.get(name, 'absent')} "
            f"there and {here.get(name, 'absent')} here{more}"
        )


def _sums(folder: Path, under: str = "", limit: float = math.inf) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint at or below `under`, by name relative to `folder`.

    Raises:
      DamagedCheckpoint: something is no file or folder, or there are more than `limit` bytes.
    """
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
            raise DamagedCheckpoint(f"{folder} is damaged: {path.name} is no file, or too large")
        with path.open("rb") as file:
            name = path.relative_to(folder).as_posix()
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _check_sums(folder: Path, under: str, limit: int) -> None:
    """Make sure that the files at or below `under` are those that were written.

    Raises:
      DamagedCheckpoint: they are not, or have more than `limit` bytes.
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


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
