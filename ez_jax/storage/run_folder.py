"""The readable part of a run folder: configuration, scores, and what produced them.

Everything here is YAML or JSON, written completely or not at all, and read as data only.
"""

import contextlib
import dataclasses
import datetime
import functools
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import yaml
from flax.traverse_util import flatten_dict

from ez_jax.config import BadInput, paths
from ez_jax.storage import safe_files
from ez_jax.structs import Clocks
from ez_jax.system import machine

CONFIG_FILE = "config.yaml"
SCORES_FILE = "scores.json"
BY_SIMULATIONS_FILE = "scores_by_simulations.json"
INSPECT_FILE = "inspect.html"
EVALUATIONS = "evaluations"  # one file per `ez_jax.evaluate`; SCORES_FILE is that of training

CHECKPOINTS = "checkpoints"
# The files of a run folder besides its checkpoints; others are left alone.
OWN_FILES = (
    *(CONFIG_FILE, SCORES_FILE, BY_SIMULATIONS_FILE, INSPECT_FILE, "metrics.jsonl", "wandb.json"),
)
OWN_FOLDERS = (CHECKPOINTS, "videos", "wandb", EVALUATIONS, "crashes")

# Keys that may change when a run is resumed, because they do not affect learning: the place of the
# folder, the name of the preset (its settings are compared one by one), when the run gives up, how
# often it is evaluated, logged and saved. Not total_agent_steps: schedules depend on it.
FREE_KEYS = ("name", "run_dir", "preset", "devices", "learner.max_skipped")
FREE_GROUPS = ("eval.", "log.", "checkpoint.")


def make_run_dir(run_dir: str | Path, key: str = "run_dir") -> Path:
    """Create a run folder and check that it can be written; returns the absolute path.

    Raises:
      BadInput: it cannot; `key` is the setting that would choose another one.
    """
    path = paths.expanded(run_dir).absolute()
    probe = path / f".write-test-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        check_links(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        reason = getattr(error, "strerror", error)
        raise BadInput(f"{path} cannot be written ({reason}); choose another {key}=") from error
    return path


def drop_empty(folders: Iterable[Path]) -> None:
    """Remove empty folders, the innermost first."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def check_writable(run_dir: Path) -> None:
    """Refuse a run folder that could not be created, without creating it.

    Raises:
      BadInput: the existing part of its path is not a folder, or cannot be written to.
    """
    there = nearest(run_dir)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise BadInput(f"{run_dir} cannot be written ({there}); choose another run_dir=")


def nearest(path: Path) -> Path:
    """The path, or its existing part."""
    return next(part for part in (path, *path.parents) if part.exists())


def check_links(run_dir: Path) -> None:
    """Refuse a run folder in which our files are links: writing would change other files.

    Raises:
      BadInput: names the first link, or the first folder in the place of a file, or the other way.
    """
    names = [name + end for name in OWN_FILES for end in ("", ".part")]
    checkpoints = run_dir / CHECKPOINTS
    inside = list(checkpoints.iterdir()) if checkpoints.is_dir() else []
    own = [run_dir / name for name in (*OWN_FOLDERS, *names)]
    safe_files.check_links(run_dir, [*own, *inside])
    for name in (*OWN_FILES, *OWN_FOLDERS):
        path, is_file = run_dir / name, name in OWN_FILES
        if path.exists() and path.is_dir() == is_file:
            there, wanted = ("folder", "file") if is_file else ("file", "folder")
            raise BadInput(f"{path} is a {there} where a {wanted} belongs; move it away")


def write_config(run_dir: str | Path, config: Mapping[str, Any]) -> None:
    """Write the whole configuration, a nested dictionary of plain values."""
    text = yaml.safe_dump(dict(config), sort_keys=False)
    safe_files.write_whole(Path(run_dir) / CONFIG_FILE, text)


def read_config(run_dir: str | Path) -> dict[str, Any]:
    """The configuration that a run was started with.

    Raises:
      BadInput: this is not a run folder, or its file is damaged.
    """
    path = paths.expanded(run_dir).absolute() / CONFIG_FILE
    try:
        check_links(path.parent)
        return safe_files.read_yaml(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        where, reason = path.parent, getattr(error, "strerror", error)
        raise BadInput(f"{where} is not a run folder: {CONFIG_FILE}: {reason}") from error


def is_new(run_dir: Path) -> bool:
    """Whether nothing has been trained in a folder yet.

    Raises:
      BadInput: there are checkpoints without their settings.
    """
    if (run_dir / CONFIG_FILE).exists():
        return False
    checkpoints = run_dir / CHECKPOINTS
    if checkpoints.is_dir() and any(path.name.isdecimal() for path in checkpoints.iterdir()):
        raise BadInput(
            f"{run_dir} has checkpoints but no {CONFIG_FILE}; "
            "put it back, or choose another name= or run_dir="
        )
    return True


def check_same_config(run_dir: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run with settings other than those it was started with.

    Raises:
      BadInput: settings differ that are not in FREE_KEYS or FREE_GROUPS; names the first.
    """
    there, here = _flat(read_config(run_dir)), _flat(config)
    keys = [key for key in sorted(there | here) if not is_free(key)]
    differing = [key for key in keys if there.get(key) != here.get(key)]
    if differing:
        shown = [f"{k} is {there.get(k)} there and {here.get(k)} here" for k in differing[:3]]
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise BadInput(
            f"{run_dir} has a run with another configuration: {', '.join(shown)}{more}; "
            "choose another name= or run_dir=, or delete the folder"
        )


def write_scores(
    run_dir: str | Path, scores: Mapping[str, Any], clocks: Clocks, name: str = SCORES_FILE
) -> None:
    """Write the result of an evaluation, with clocks and provenance, to `scores.json`."""
    content = dict(scores) | dataclasses.asdict(clocks) | provenance()
    text = json.dumps(content, indent=2, allow_nan=False)
    safe_files.write_whole(Path(run_dir) / name, text + "\n")


def write_evaluation(run_dir: str | Path, scores: Mapping[str, Any], clocks: Clocks) -> Path:
    """Write an evaluation after training to `evaluations/<UTC time>.json`."""
    folder = Path(run_dir) / EVALUATIONS
    folder.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    path = folder / f"{now:%Y-%m-%dT%H-%M-%S.%f}.json"
    write_scores(folder, dict(scores) | {"time": f"{now:%Y-%m-%d %H:%M:%S} UTC"}, clocks, path.name)
    return path


def evaluation_files(run_dir: str | Path) -> list[Path]:
    """The files of evaluations after training, oldest first."""
    return sorted((Path(run_dir) / EVALUATIONS).glob("*.json"))


@functools.cache
def provenance() -> dict[str, Any]:
    """The origin of a result: versions by package, device, and commit (None outside git)."""
    return {
        "device": machine.device_name(),
        "devices": jax.device_count(),
        "versions": machine.versions(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of this source tree, with `-dirty` if it was changed since."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():  # installed: an enclosing repository is not ours
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key; tuples as lists, as in YAML."""
    return {
        ".".join(map(str, path)): list(value) if isinstance(value, tuple) else value
        for path, value in flatten_dict(tree).items()
    }


def is_free(key: str) -> bool:
    """Whether a setting may change when a run is resumed."""
    return key in FREE_KEYS or key.startswith(FREE_GROUPS)
