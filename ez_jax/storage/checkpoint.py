"""Saves and restores a run: arrays by orbax, everything else as JSON, no pickles.

A checkpoint is a folder that gets its name only when it is complete:

    <run>/checkpoints/<step>/<item>/   one orbax tree of arrays per item (train, rest, ...)
                            /meta.json   format, clocks, shape of every array, state of the journal
                            /SHA256SUMS  of every file (for `sha256sum -c`)
                     /best/    as above, the weights of the best evaluation
                     /rows/    the journal: replay rows that all checkpoints share

Items can be restored one by one, so evaluation does not read the replay. The rows of the replay are
by far the largest part; each is written once (`replay_journal.py`), so a checkpoint only writes
what is new.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ez_jax.config import BadInput, paths
from ez_jax.config.errors import Fault
from ez_jax.storage.checkpoint_files import (
    BEST,
    OVERHEAD,
    check_disk,
    check_folder,
    check_shapes,
    check_sums,
    describe_content,
    journal_of,
    read_meta,
    write_folder,
)
from ez_jax.storage.checkpoint_items import (
    DamagedCheckpoint,
    describe,
    restore_item,
    to_host,
    tree_bytes,
)
from ez_jax.storage.replay_journal import DamagedJournal, Journal, Rows, sync
from ez_jax.storage.run_folder import make_run_dir
from ez_jax.structs import Clocks
from ez_jax.system import watchdog

_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # the name of a complete checkpoint


class Restored(NamedTuple):
    """The content of a checkpoint."""

    step: int  # agent steps
    state: dict[str, Any]  # by item, like the template
    meta: dict[str, Any]  # as given to save

    @property
    def clocks(self) -> Clocks:
        """The clocks saved in `meta`.

        Raises:
          BadInput: they are damaged, or those of another checkpoint.
        """
        told = self.meta.get("clocks")
        found = told if isinstance(told, dict) else {}
        counts = [found.get(name) for name in ("agent_steps", "env_frames", "updates")]
        learned = getattr(self.state.get("train"), "updates", None)
        is_sound = (
            len(found) == len(dataclasses.fields(Clocks))
            and all(type(count) is int for count in counts)
            and type(found.get("seconds")) in (int, float)
            and all(0 <= number < 2**53 for number in found.values())
            and counts[0] == self.step
            and learned in (None, counts[2])
        )
        if not is_sound:
            raise BadInput(f"the clocks of checkpoint {self.step} are damaged: {told!r}")
        return Clocks(**found)


# Trees of arrays or of ShapeDtypeStruct by item, or a function from a checkpoint's meta to them.
Template = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]


class Checkpointer(contextlib.AbstractContextManager["Checkpointer"]):
    """The checkpoints of one run folder. One process may save; any number may restore."""

    def __init__(
        self, run_dir: str | Path, keep: int = 1, warn: Callable[[str], None] = warnings.warn
    ):
        """Keep the `keep` (1 or more) newest checkpoints; call `warn` about damaged ones."""
        self._dir = paths.expanded(run_dir).absolute() / "checkpoints"  # orbax needs absolute
        self._keep = keep
        self._warn = warn
        self._is_prepared = False
        self._given_up: set[int] = set()  # what is later than where this process went on
        self.journal = Journal(self._dir / "rows")
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

    @watchdog.at("writing the checkpoint")
    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        meta: Mapping[str, Any],
        rows: Sequence[Rows] = (),
        oldest_row: int = 0,
    ) -> None:
        """Save `state`, arrays by item, and `meta`, JSON, in the background.

        The arrays are copied to the host before this returns, so the caller may donate them. It
        waits for the previous save, and raises its error. Once the new checkpoint is complete and
        was read back, older ones beyond `keep` are deleted, and so are later ones: a run that went
        back to `step` has abandoned them.

        Args:
          step: agent steps.
          state: trees of arrays.
          meta: plain values.
          rows: those that follow the rows in the journal.
          oldest_row: this checkpoint does not need earlier rows.

        Raises:
          BadInput: the folder cannot be written.
          Fault: the disk is too full.
        """
        added = sum(array.nbytes for record in rows for array in record.fields)
        content, host_state = self._prepare(step, state, meta, added)

        def write() -> None:
            with self._counting_when_read(step):
                if rows:
                    self.journal.append(rows)
                files = self.journal.mark(oldest_row)
                content["journal"] = {"files": files, "oldest_row": oldest_row}
                self._write(str(step), host_state, content)
            self._drop_others(step)

        self._pending = self._executor.submit(write)

    def save_best(self, step: int, state: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """As `save`, under the name `best`; all other checkpoints are kept."""
        content, host_state = self._prepare(step, state, meta)

        def write() -> None:
            with self._counting_when_read(step):
                self._write(BEST, host_state, content)

        self._pending = self._executor.submit(write)

    def _prepare(
        self, step: int, state: Mapping[str, Any], meta: Mapping[str, Any], added: int = 0
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of meta.json and a copy of the state on the host, if the disk has room."""
        self.wait()
        if not self._is_prepared:
            make_run_dir(self._dir)
            self.tidy_up()
            self._is_prepared = True
        content = describe_content(step, state, meta)
        check_disk(self._dir, state, added)
        return content, {item: to_host(tree) for item, tree in state.items()}

    def best(self) -> dict[str, Any] | None:
        """The `meta` of the best weights; None if there are none, or if they are damaged."""
        self.wait()  # they may still be being written
        if not (self._dir / BEST).is_dir():
            return None
        try:
            return read_meta(self._dir / BEST)["meta"]
        except DamagedCheckpoint as error:
            self._warn(f"{error}; it is left out")
            return None

    @watchdog.at("reading the checkpoint")
    def restore(self, step: int | str, template: Template) -> Restored:
        """Restore the items named in `template`, trees of arrays or of ShapeDtypeStruct.

        A leaf is returned as NumPy if the template has NumPy, otherwise as a JAX array (with the
        template's sharding, if it has one). So int64 and float64 need a NumPy template.

        Args:
          step: agent steps, or `BEST`.
          template: by item, or a function from the checkpoint's meta to it.

        Raises:
          DamagedCheckpoint: files are missing or changed.
          BadInput: another format, or arrays of another configuration.
        """
        folder = self._dir / str(step)
        content = read_meta(folder)
        if callable(template):
            template = template(content["meta"])
        for item, tree in template.items():
            check_shapes(folder, item, content["items"].get(item), describe(tree))
            check_sums(folder, item, 2 * tree_bytes(tree) + OVERHEAD)
        state = {item: restore_item(folder / item, tree) for item, tree in template.items()}
        return Restored(content["step"], state, content["meta"])

    def restore_newest(self, template: Template, *, rows: bool = False) -> Restored | None:
        """Restore the newest undamaged checkpoint; None if there is no checkpoint at all.

        With `rows` the journal is set back to it, too, for reading and appending.

        Raises:
          BadInput: every checkpoint is damaged, or as in `restore`.
        """
        steps = self.steps()
        for i, step in reversed(list(enumerate(steps))):
            try:
                if rows:
                    files, _ = journal_of(self._dir / str(step))
                    self.journal.go_back(files)
                    self._given_up = set(steps[i + 1 :])
                return self.restore(step, template)
            except (DamagedCheckpoint, DamagedJournal) as error:
                self._warn(f"{error}; it is left out, and the one before is tried")
        if steps:
            raise BadInput(f"every checkpoint in {self._dir} is damaged; start in a new run_dir=")
        return None

    def check(self) -> None:
        """Raise the error of a finished save, without waiting."""
        if self._pending is not None and self._pending.done():
            self.wait()

    @watchdog.at("writing the checkpoint")
    def wait(self) -> None:
        """Wait until the last save is on the disk; raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the last save and end the background thread."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, name: str, host_state: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        """Write a complete folder, read it back, then name it (on the background thread)."""
        part, final, old = (self._dir / f"{name}{end}" for end in (".part", "", ".old"))
        try:
            write_folder(part, host_state, json.dumps(content, allow_nan=False))
            check_folder(part, host_state)
            if final.exists():
                final.rename(old)
            part.rename(final)
        finally:
            # After a failure, perhaps a full disk, nothing of it stays.
            shutil.rmtree(part, ignore_errors=True)
        sync(self._dir)
        shutil.rmtree(old, ignore_errors=True)

    @contextlib.contextmanager
    def _counting_when_read(self, step: int) -> Iterator[None]:
        """Explain the error if a checkpoint that was just written does not read back equal."""
        try:
            yield
        except (DamagedCheckpoint, DamagedJournal) as error:
            raise Fault(
                f"the checkpoint of {step:,} agent steps does not read back as it was written and "
                f"does not count ({error}); check the disk; the same command resumes from the "
                "checkpoint before"
            ) from error

    def _drop_others(self, step: int) -> None:
        """Delete the checkpoints that the one at `step` replaces, and their rows."""
        there = self.steps()
        past = [other for other in there if other <= step and other not in self._given_up - {step}]
        keep = past[-self._keep :]
        for other in set(there) - set(keep):
            shutil.rmtree(self._dir / str(other))
        self._given_up = set()
        self.journal.drop_before(min(map(self._oldest_row, keep)))

    def _oldest_row(self, step: int) -> int:
        """The oldest row that a checkpoint needs; a damaged one needs none, so the last."""
        try:
            return journal_of(self._dir / str(step))[1]
        except DamagedCheckpoint:
            return self.journal.end

    def tidy_up(self) -> None:
        """Remove what a killed save left behind; for the process that saves."""
        for old in self._dir.glob("*.old"):
            if not old.with_suffix("").exists():
                old.rename(old.with_suffix(""))
        for leftover in [*self._dir.glob("*.part"), *self._dir.glob("*.old")]:
            shutil.rmtree(leftover)
