"""Run folders as records: settings, evaluations, protocol, and whether the run is finished.

This file defines the final score: the mean return over the last `last` evaluations of a run
(`final=training`), or the mean of its newest evaluation by `ez_jax.evaluate`, or else of its own
scores.json (`final=scores`).
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ez_jax.config import (
    BadInput,
    Config,
    errors,
    flatten,
    from_dict,
    override,
    paths,
    validate,
)
from ez_jax.evaluation.on_track import deciding
from ez_jax.evaluation.scores import LIMIT, protocol
from ez_jax.storage import run_folder, safe_files
from ez_jax.storage.metrics import FILE_NAME, read_metrics

RETURN = "eval/return_mean"
LARGEST_RETURN = 1e12  # so that sums of squares do not overflow
NOT_BELOW = (
    "checkpoints",
    "videos",
    "crashes",
    "wandb",
    run_folder.EVALUATIONS,
)  # folders of a run that do not contain other runs
ABLATION_FILE = "ablation.json"  # the request of an ablation, in a folder above its runs
LARGEST_ABLATION = 2**27  # bytes
BASELINE = "baseline"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """The evaluations of one run in order, at most one per value of agent_steps."""

    agent_steps: np.ndarray  # i64[T], increasing
    updates: np.ndarray  # i64[T]
    seconds: np.ndarray  # f64[T]
    returns: np.ndarray  # f64[T], mean return of the episodes of an evaluation

    def __len__(self) -> int:
        """The number of evaluations."""
        return len(self.agent_steps)


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """One run folder."""

    folder: Path
    config: Config
    settings: dict[str, Any]  # by dotted key: those that affect results, without game and seed
    protocol: dict[str, Any]  # of the final score
    evaluations: Evaluations
    final: float | None  # None if the run has no evaluation yet
    is_finished: bool
    progress: str  # in words
    scores: dict[str, Any]  # of scores.json; empty if there is none
    evaluated: tuple[tuple[str, dict[str, Any]], ...]  # name and content of evaluations/*.json
    by_simulations: dict[str, Any]  # of scores_by_simulations.json; likewise
    notes: tuple[str, ...]  # remarks on the run, a sentence each

    @property
    def provenance(self) -> dict[str, str]:
        """Device, commit and versions as text; UNKNOWN if scores.json is missing."""
        versions = self.scores.get("versions")
        versions = versions if isinstance(versions, dict) else {}
        shown = ", ".join(f"{name} {_told(versions[name])}" for name in versions if versions[name])
        device, commit = (_told(self.scores.get(name)) for name in ("device", "commit"))
        return {"device": device, "commit": commit, "versions": shown or UNKNOWN}


def _told(value: Any) -> str:
    return UNKNOWN if value is None else value if isinstance(value, str) else errors.shown(value)


def find_runs(folders: Iterable[str]) -> list[Path]:
    """Run folders at or below these folders, each once, in the order of their paths.

    Raises:
        BadInput: one of them is not a folder, or there is no run in any.
    """
    found: dict[Path, Path] = {}
    folders = list(folders)
    for name in folders:
        root = paths.expanded(name)
        if not root.is_dir():
            raise BadInput(f"{name} is not a folder; name folders that contain runs, such as runs/")
        for path in _walk(root):
            found.setdefault(path.resolve(), path)
    if not found:
        raise BadInput(
            f"there is no run below {', '.join(folders)}: "
            f"a run folder has {run_folder.CONFIG_FILE} and {FILE_NAME}"
        )
    return sorted(found.values())


def _walk(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root, onerror=_unreadable):
        below[:] = [name for name in below if name not in NOT_BELOW]
        if {run_folder.CONFIG_FILE, FILE_NAME} <= set(files):
            yield Path(folder)


def _unreadable(error: OSError) -> None:
    raise BadInput(f"{error.filename} cannot be read: {error.strerror}") from error


def read_run(folder: Path, *, last: int, final: str) -> RunRecord:
    """Read a run folder; `last` and `final` define its final score.

    Raises:
        BadInput: a file in it is damaged, or `final=scores` and it has none.
    """
    try:
        config = validate(from_dict(run_folder.read_config(folder)))
    except BadInput as error:
        raise BadInput(f"{folder}: {error}") from error
    lines = read_metrics(folder)
    evaluations = _evaluations(lines)
    if np.any(np.abs(evaluations.returns) > LARGEST_RETURN):
        raise BadInput(f"{folder / FILE_NAME} is damaged: no game has such large returns")
    scores = _read_optional(folder / run_folder.SCORES_FILE)
    played = protocol(config, _limit_by_hand(config)) | {"episodes": config.eval.episodes}
    played |= _limits(lines, last)
    score = float(evaluations.returns[-last:].mean()) if len(evaluations) else None
    evaluated = tuple((p.name, _read_optional(p)) for p in run_folder.evaluation_files(folder))
    newest = (run_folder.SCORES_FILE, scores)
    for name, content in evaluated:
        if _epsilon(content) == config.eval.epsilon:  # with another it is no score of the run
            newest = (f"{run_folder.EVALUATIONS}/{name}", content)
    if final == "scores":
        played, score = _from_scores(folder, config, *newest)
    simulations = _read_optional(folder / run_folder.BY_SIMULATIONS_FILE)
    used = {run_folder.BY_SIMULATIONS_FILE: simulations}
    if final == "scores":
        used |= dict([newest])
    return RunRecord(
        folder=folder,
        config=config,
        settings=deciding(config),
        protocol=played,
        evaluations=evaluations,
        final=score,
        is_finished=_is_finished(config, evaluations),
        progress=_progress(config, lines),
        scores=scores,
        evaluated=evaluated,
        by_simulations=simulations,
        notes=tuple(_of_other_weights(folder, evaluations, used)),
    )


def _epsilon(scores: dict[str, Any]) -> Any:
    """The share of random actions in the evaluation."""
    played = scores.get("protocol")
    return played.get("epsilon", 0.0) if isinstance(played, dict) else 0.0


def _evaluations(lines: list[dict[str, float]]) -> Evaluations:
    """The last evaluation per value of agent_steps: updates may continue after the last step."""
    newest = {line["agent_steps"]: line for line in lines if RETURN in line}
    kept = [newest[step] for step in sorted(newest)]
    column = lambda name, kind: np.array([line.get(name, 0) for line in kept], kind)  # noqa: E731
    return Evaluations(
        agent_steps=column("agent_steps", np.int64),
        updates=column("updates", np.int64),
        seconds=column("seconds", np.float64),
        returns=column(RETURN, np.float64),
    )


def _is_finished(config: Config, evaluations: Evaluations) -> bool:
    """Whether all steps, updates and evaluations are done."""
    if not len(evaluations):
        return False
    is_played = evaluations.agent_steps[-1] >= config.total_agent_steps
    return bool(is_played and evaluations.updates[-1] >= config.total_updates)


def _progress(config: Config, lines: list[dict[str, float]]) -> str:
    steps, updates = (lines[-1][name] if lines else 0 for name in ("agent_steps", "updates"))
    return (
        f"{steps:,} of {config.total_agent_steps:,} agent steps, "
        f"{updates:,} of {config.total_updates:,} updates"
    )


def _of_other_weights(
    folder: Path, evaluations: Evaluations, used: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """A sentence for every file whose scores are not those of the final weights."""
    end = int(evaluations.agent_steps[-1]) if len(evaluations) else None
    for name, content in used.items():
        if content and content.get("agent_steps") != end:
            yield f"{folder / name} is of other weights than those at the end of the run"


def _limits(lines: list[dict[str, float]], last: int) -> dict[str, Any]:
    """The limit of episodes of the last evaluations in agent steps, if recorded."""
    told = [int(line[LIMIT]) for line in lines if RETURN in line and LIMIT in line][-last:]
    limits = sorted(set(told))
    return {"max_episode_steps": limits if limits[1:] else limits[0]} if limits else {}


def _limit_by_hand(config: Config) -> int:
    """The limit if it was not recorded: gymnax cut MinAtar."""
    limit = config.env.eval_max_episode_steps
    if not config.game.endswith("-MinAtar"):
        return limit
    return min(limit, 2_500 if "Freeway" in config.game else 1_000)


def _from_scores(
    folder: Path, config: Config, name: str, scores: dict[str, Any]
) -> tuple[dict[str, Any], float]:
    played, mean, episodes = (scores.get(name) for name in ("protocol", "mean", "episodes"))
    if not (isinstance(played, dict) and is_number(mean) and type(episodes) is int):
        raise BadInput(
            f"{folder} has no score and protocol in {name}: "
            f"play with python -m ez_jax.evaluate run={folder}, or leave out final=scores"
        )
    if "limit" not in scores:  # from before limits and noise were recorded
        played = played | {"max_episode_steps": _limit_by_hand(config), "epsilon": 0.0}
    return played | {"episodes": episodes}, float(mean)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value from an untrusted file can be a return."""
    return type(value) in (int, float) and abs(value) <= LARGEST_RETURN


def _read_optional(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder; empty if there is none."""
    try:
        return safe_files.read_json(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error


@functools.cache
def read_baseline(folder: Path, game: str) -> dict[str, Any]:
    """The settings of a game's baseline in the nearest ablation.json in or above a folder.

    Returns:
        Values by dotted key; empty if there is none for this game.

    Raises:
        BadInput: it is damaged.
    """
    path = folder / ABLATION_FILE
    if not path.is_file():
        return {} if folder.parent == folder else read_baseline(folder.parent, game)
    try:
        plan = safe_files.read_json(path, LARGEST_ABLATION)["plans"].get(game)
        if plan is None:
            return {}
        (settings,) = (arm["settings"] for arm in plan["arms"] if arm["name"] == BASELINE)
        return flatten(override(from_dict(plan["base"]), settings))
    except BadInput:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: it has no baseline for {game}") from error
