"""The crash bundle of a failed run: a folder with everything that its last update needs.

    <run>/crashes/<utc time>/traceback.txt   of the failure
                            /crash.json      clocks, settings, versions; which arrays are there
                            /arrays/         orbax, as in a checkpoint, no pickles

`report` writes it, `read` reads it, `python -m ez_jax.replay_crash` repeats that update.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from ez_jax import config as configs
from ez_jax.config import BadInput, Config, paths, search_budget
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint_items import describe, restore_item, save_item, to_host
from ez_jax.storage.metrics import read_metrics
from ez_jax.structs import Clocks, EnvSpec, Prepared, TrainState

FORMAT = 1
FOLDER, FACTS_FILE, TRACEBACK_FILE, ARRAYS = "crashes", "crash.json", "traceback.txt", "arrays"
KEEP = 3  # bundles per run
CLOCKS = ("agent_steps", "env_frames", "updates")  # the fourth is in the last line of metrics
TIME = "%Y-%m-%dT%H-%M-%S.%fZ"


class LastUpdate(NamedTuple):
    """The newest update that was dispatched."""

    number: int  # updates made before it
    group: Prepared  # the group to which it belongs
    i: int  # its place in the group
    key: jax.Array  # from which the random numbers of every update come


class FailedRun(NamedTuple):
    """What is known about a failed run; less if it was still starting."""

    folder: Path
    config: Config
    spec: EnvSpec | None = None
    clocks: Clocks | None = None
    train: TrainState | None = None  # before or after the last update
    last_update: LastUpdate | None = None


class Bundle(NamedTuple):
    """A bundle that was read: untrusted data, but its files are unchanged."""

    folder: Path
    facts: dict[str, Any]  # crash.json
    traceback: str
    config: Config
    spec: EnvSpec | None  # None: it failed before the environment existed
    arrays: dict[str, np.ndarray]  # by path: train/..., batch/..., targets/..., learn_key


def report(run: FailedRun, error: BaseException | None) -> None:
    """Write a bundle for a run that ended with this error, and print where.

    Bad input and interrupts leave none. An error in here is reported and hides nothing.
    """
    if not isinstance(error, Exception) or isinstance(error, BadInput):
        return
    try:
        told = _write(run, error)
    except Exception as fault:  # noqa: BLE001 reported, and the error that matters follows
        told = f"no crash bundle could be written: {_in_short(fault)}"
    sys.stderr.write(told + "\n")


def _write(run: FailedRun, error: Exception) -> str:
    """Write a complete folder, then name it; returns the line that reports it."""
    now = datetime.datetime.now(datetime.UTC)
    final = run.folder / FOLDER / _name(_bundles(run.folder), now)
    part = final.with_name(final.name + ".part")
    part.mkdir(parents=True)
    try:
        text = "".join(traceback.format_exception(error))
        (part / TRACEBACK_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
        there, left_out = _save_arrays(part / ARRAYS, run)
        facts = {"format": FORMAT, "time": now.isoformat(), "error": _in_short(error)}
        facts |= _facts(run) | {"arrays": there, "left_out": left_out}
        (part / FACTS_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        os.replace(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # after a failure, nothing of it stays
    for old in _bundles(run.folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    less = f" ({len(left_out)} arrays could not be saved: {FACTS_FILE} says why)"
    return f"crash bundle: {final}{less if left_out else ''}"


def _name(older: list[Path], now: datetime.datetime) -> str:
    """The time, or a little after the newest bundle where the clock went back: names are sorted."""
    if older and older[-1].name >= now.strftime(TIME):
        with contextlib.suppress(ValueError):  # renamed by hand
            newest = datetime.datetime.strptime(older[-1].name, TIME)
            now = newest + datetime.timedelta(microseconds=1)
    return now.strftime(TIME)


def _facts(run: FailedRun) -> dict[str, Any]:
    spec, config, clocks, last = None, configs.to_dict(run.config), run.clocks, run.last_update
    if run.spec is not None:
        spec = dataclasses.asdict(run.spec)
        spec["observation_dtype"] = spec["observation_dtype"].name
        config["search"] |= search_budget(run.config.search, run.spec.num_actions)._asdict()
    return {
        "clocks": None if clocks is None else {k: getattr(clocks, k) for k in CLOCKS},
        "update": None if last is None else last.number,
        "config": config,
        "env": spec,
        "metrics": _last_metrics(run.folder),
        **run_folder.provenance(),
    }


def _last_metrics(folder: Path) -> dict[str, float] | None:
    try:
        lines = read_metrics(folder)
        return lines[-1] if lines else None
    except BadInput:  # missing or damaged: then the traceback is about that
        return None


def _save_arrays(folder: Path, run: FailedRun) -> tuple[dict[str, Any], dict[str, str]]:
    """Save what is available of an update: digests of its arrays, reasons for missing ones."""
    last = run.last_update
    if run.train is None or last is None:
        return {}, {}
    arrays, left_out = _readable({"train": run.train, "learn_key": last.key})
    both, reasons = _readable({"batch": last.group.batch, "targets": last.group.targets})
    arrays |= {name: array[:, last.i] for name, array in both.items()}
    left_out |= reasons
    try:
        save_item(folder, unflatten_dict(arrays, sep="/"))
    except Exception as fault:  # noqa: BLE001 for example a full disk: the text may still fit
        shutil.rmtree(folder, ignore_errors=True)
        return {}, left_out | dict.fromkeys(arrays, _in_short(fault))
    there = {
        name: {"is": described, "sha256": _digest(arrays[name])}
        for name, described in describe(arrays).items()
    }
    return there, left_out


def _readable(tree: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The leaves on the host by path, and reasons for missing ones."""
    arrays, left_out = {}, {}
    for name, leaf in zip(describe(tree), jax.tree.leaves(tree), strict=True):
        if leaf.is_deleted():
            left_out[name] = "donated to a computation that did not return"
            continue
        try:
            arrays[name] = to_host(leaf)
        except Exception as fault:  # noqa: BLE001 recorded: its computation failed
            left_out[name] = _in_short(fault)
    return arrays, left_out


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _in_short(error: BaseException) -> str:
    """The last line of a traceback, cut if it is long."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:500]


def _bundles(run_dir: str | Path) -> list[Path]:
    """The complete bundles of a run, oldest first."""
    return sorted(path.parent for path in (Path(run_dir) / FOLDER).glob(f"*Z/{FACTS_FILE}"))


def read(path: str | Path) -> Bundle:
    """Read a bundle, or the newest one of a run folder.

    Raises:
      BadInput: there is none, or it is damaged.
    """
    folder = paths.expanded(path).absolute()
    if not (folder / FACTS_FILE).is_file():
        bundles = _bundles(folder)
        if not bundles:
            raise BadInput(f"there is no crash bundle in {folder}; name a run or <run>/crashes/...")
        folder = bundles[-1]
    try:
        return _read(folder)
    except Exception as fault:  # orbax and JSON raise many kinds of errors
        raise BadInput(f"the crash bundle {folder} is damaged: {_in_short(fault)}") from fault


def _read(folder: Path) -> Bundle:
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    if facts["format"] != FORMAT:
        raise ValueError(f"its format is {facts['format']!r}, and this version reads {FORMAT}")
    there, number, told = facts["arrays"], facts["update"], ("time", "error", "device")
    if not (number is None or type(number) is int) or not all(type(facts[k]) is str for k in told):
        raise ValueError(f"{FACTS_FILE} was changed")
    template = {name: _template(str(entry["is"])) for name, entry in there.items()}
    arrays = {}
    if template:
        nested = restore_item(folder / ARRAYS, unflatten_dict(template, sep="/"))
        arrays = dict(zip(describe(nested), jax.tree.leaves(nested), strict=True))
    for name, array in arrays.items():
        if _digest(array) != there[name]["sha256"]:
            raise ValueError(f"{name} was changed")
    return Bundle(
        folder=folder,
        facts={"clocks": None, "commit": None, **facts, "left_out": dict(facts["left_out"])},
        traceback=(folder / TRACEBACK_FILE).read_text(encoding="utf-8"),
        config=configs.validate(configs.from_dict(facts["config"])),
        spec=None if facts["env"] is None else _spec(facts["env"]),
        arrays=arrays,
    )


def _template(described: str) -> np.ndarray:
    """An array without memory of its own, from the text of `describe`."""
    found = re.fullmatch(r"((?:bool|u?int|float|bfloat)\d*)\[([\d, ]*)\]", described)
    if not found:
        raise ValueError(f"no array can be {described}")
    shape = tuple(int(size) for size in found[2].split(",") if size.strip())
    return np.broadcast_to(np.empty((), jax.numpy.dtype(found[1])), shape)


def _spec(values: dict[str, Any]) -> EnvSpec:
    shape, dtype = tuple(values["observation_shape"]), values["observation_dtype"]
    # Bundles of older versions know no continuous actions.
    number, size = values["num_actions"], values.get("action_size", 0)
    sizes = [*shape, number or size, *(values[name] for name in ("frame_stack", "frame_skip"))]
    is_known = dtype in ("uint8", "float32") and type(values.get("has_masks", False)) is bool
    is_known = is_known and (number == 0) != (size == 0)
    if not is_known or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError("it describes an impossible environment")
    both = {"observation_shape": shape, "observation_dtype": np.dtype(dtype)}
    return EnvSpec(**{**values, **both})
