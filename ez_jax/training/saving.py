"""What a checkpoint contains of a run, and how to restore it.

The recorded fields of the replay go into the journal, each row once. Policies, values and
priorities, which keep changing, and everything else are saved completely.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ez_jax.agent.replay import ring
from ez_jax.agent.replay.host_frames import HostFrames
from ez_jax.agent.state import place, placement
from ez_jax.config import BadInput
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.checkpoint_files import WEIGHTS
from ez_jax.storage.checkpoint_items import DamagedCheckpoint
from ez_jax.storage.replay_journal import MOST_ROWS, Journal, Rows
from ez_jax.structs import Clocks, Replay, RunState, TrainState
from ez_jax.system import devices, processes
from ez_jax.training.games import SavedGames

RECORD_BYTES = 2**22  # of a record before compression

_take = jax.jit(ring.recorded_rows, static_argnums=2)
_put = jax.jit(ring.put_rows, donate_argnums=0)


class SavedRun(NamedTuple):
    """What a run resumes from."""

    state: RunState
    games: SavedGames
    clocks: Clocks


def save(checkpointer: Checkpointer, run: SavedRun, frames: HostFrames | None = None) -> None:
    """Save a run, in the background. `frames` are given if the replay has none."""
    checkpointer.wait()  # the journal is also written in the background
    saved_rows = processes.by_first(lambda: checkpointer.journal.end)
    rows, oldest_row = _unsaved_rows(run.state.replay, saved_rows, frames)
    processes.check_same(run.state.train)
    if not processes.is_first():
        return  # it only helps to fetch the rows; all processes have the rest
    plain = run.games._asdict() | {"actions": len(run.games.actions)}
    meta = {"clocks": dataclasses.asdict(run.clocks), "games": plain}
    state = _items(run.state, run.games.actions)
    checkpointer.save(run.clocks.agent_steps, state, meta, rows, oldest_row)


def save_best(checkpointer: Checkpointer, train: TrainState, clocks: Clocks, score: float) -> None:
    """Keep these weights if none scored as much before; weights of a later clock do not count."""
    if not processes.is_first():
        return
    best = checkpointer.best() or {}
    before, updates = best.get("score"), best.get("updates")
    if not isinstance(updates, int) or updates > clocks.updates:
        before = None
    if not isinstance(before, float) or before < score:
        meta = {"clocks": dataclasses.asdict(clocks), "updates": clocks.updates, "score": score}
        checkpointer.save_best(clocks.agent_steps, {"train": train}, meta)


def restore(
    checkpointer: Checkpointer,
    init_state: Callable[[], RunState],
    actions: np.ndarray,
    frames: HostFrames | None = None,
) -> SavedRun | None:
    """The newest undamaged checkpoint of a run, if any.

    Args:
      checkpointer: of its folder.
      init_state: makes the state of a new run; traceable.
      actions: any array with the right type and number of environments.
      frames: an empty ring to fill, if the replay has none.
    """

    def template(meta: Mapping[str, Any]) -> dict[str, Any]:
        shape = (_plain(meta)["actions"], *actions.shape[1:])
        like = np.broadcast_to(np.empty((), actions.dtype), shape)  # no memory of its own
        return _items(jax.eval_shape(init_state), like)

    restored = checkpointer.restore_newest(template, rows=True)
    if restored is None:
        return None
    rest, train = restored.state["rest"], restored.state["train"]
    places = devices.shardings(_recorded(placement(jax.eval_shape(init_state)).replay))
    recorded = jax.jit(lambda: _recorded(init_state().replay), out_shardings=places)()
    recorded = _read_journal(checkpointer.journal, recorded, frames)
    replay = ring.with_recorded(rest["state"].replay, recorded)
    games = SavedGames(**_plain(restored.meta) | {"actions": rest["actions"]})
    clocks = restored.clocks
    state = place(rest["state"].replace(train=train, replay=replay))
    return SavedRun(state, games, clocks)


def _plain(meta: Mapping[str, Any]) -> dict[str, int]:
    """The description of the games in a checkpoint's meta; `actions` is the number of calls."""
    if WEIGHTS in meta:
        raise BadInput(
            "this folder has the weights of a trained agent and nothing else, so they can be used "
            "but not trained further: choose another name= or run_dir="
        )
    if meta.get("together"):
        raise BadInput("this run was trained together with others: resume it with the same seeds=")
    told = meta.get("games")
    if isinstance(told, dict) and "reported_at" not in told:
        raise BadInput(
            "the checkpoint is from an older version of ez_jax and cannot be resumed; its weights "
            "can still be used, and another name= starts a new run"
        )
    is_count = lambda n: type(n) is int and 0 <= n < 2**32  # noqa: E731
    names = set(SavedGames._fields)
    if not isinstance(told, dict) or told.keys() != names or not all(map(is_count, told.values())):
        raise DamagedCheckpoint(f"the games in a checkpoint are damaged: {told!r:.200}")
    return told


def _items(state: RunState, actions: np.ndarray) -> dict[str, Any]:
    """The items: what evaluation needs, and the rest; the journal has the recorded fields."""
    rest = state.replace(train=None, replay=ring.without_recorded(state.replay))
    return {"train": state.train, "rest": {"state": rest, "actions": actions}}


def _unsaved_rows(
    replay: Replay, first: int, frames: HostFrames | None = None
) -> tuple[list[Rows], int]:
    """Rows from number `first` on that are still in the ring, and the number of its oldest row."""
    count, recorded = int(replay.count), _with_frames(_recorded(replay), frames)
    oldest, at_once = max(0, count - len(replay.priority)), _rows_at_once(recorded)
    rows = []
    for start in range(max(first, oldest), count, at_once):
        fields = jax.device_get(_take(replay, start, at_once))
        if frames is not None:
            fields[ring.FRAMES] = frames.rows(start, at_once)
        names = ring.recorded_names(replay)
        rows.append(Rows(start, tuple(fields[name][: count - start] for name in names)))
    return rows, oldest


def _read_journal(
    journal: Journal, recorded: dict[str, jax.Array], frames: HostFrames | None = None
) -> dict[str, jax.Array]:
    """Fill the rings with the rows of the journal, one record in host memory at a time."""
    rings = _with_frames(recorded, frames)
    names = [name for name in ring.RECORDED if name in rings]
    like = [jax.ShapeDtypeStruct(rings[n].shape[1:], rings[n].dtype) for n in names]
    at_once = _rows_at_once(rings)
    for record in journal.read(like):
        count = len(record.fields[0])
        padding = max(0, at_once - count)  # a fixed size needs one program only
        padded = [np.pad(f, [(0, padding)] + [(0, 0)] * (f.ndim - 1)) for f in record.fields]
        rows = dict(zip(names, padded, strict=True))
        if frames is not None:
            frames.put(rows.pop(ring.FRAMES)[:count], record.first)
        recorded = _put(recorded, rows, record.first, count)
    return recorded


def _recorded(replay: Replay) -> dict[str, jax.Array]:
    fields = {name: getattr(replay.rows, name) for name in ring.RECORDED}
    return {name: field for name, field in fields.items() if field is not None}


def _with_frames(recorded: dict[str, jax.Array], frames: HostFrames | None) -> dict[str, Any]:
    return recorded if frames is None else recorded | {ring.FRAMES: frames.ring}


def _rows_at_once(recorded: Mapping[str, jax.Array]) -> int:
    """Number of rows of one record."""
    row_bytes = sum(field.nbytes // len(field) for field in recorded.values())
    return min(max(1, RECORD_BYTES // row_bytes), MOST_ROWS, len(recorded["reward"]))
