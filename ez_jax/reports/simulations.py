"""Score by number of simulations: for runs trained with several, and for runs evaluated with
several (`python -m ez_jax.evaluate run=DIR simulations=1,4,16,50`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ez_jax.config import BadInput, checks
from ez_jax.reports import estimates
from ez_jax.reports.arms import Panel
from ez_jax.reports.collect import RunRecord, is_number
from ez_jax.reports.estimates import Estimate
from ez_jax.storage import run_folder

KEY = "search.num_simulations"
TRAINED, PLAYED = "trained with", "evaluated with"


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the figure."""

    game: str
    how: str  # TRAINED or PLAYED
    arm: str
    counts: tuple[int, ...]  # numbers of simulations, rising
    scores: tuple[Estimate, ...]


def lines(panels: Sequence[Panel]) -> tuple[Line, ...]:
    """All lines with at least two numbers of simulations."""
    found = [line for panel in panels for line in (*_trained(panel), *_played(panel))]
    return tuple(line for line in found if len(line.counts) > 1)


def _trained(panel: Panel) -> Iterator[Line]:
    """The arms that differ from the baseline only in the number of simulations."""
    base = panel.baseline.values
    arms = {
        arm.values[KEY]: arm
        for arm in panel.arms
        if arm.runs
        and KEY in panel.keys
        and all(arm.values[key] == base[key] for key in panel.keys if key != KEY)
    }
    counts = tuple(sorted(arms))
    scores = tuple(estimates.contrast([(arms[count].finals, 1.0)]) for count in counts)
    yield Line(panel.title, TRAINED, panel.baseline.name, counts, scores)


def _played(panel: Panel) -> Iterator[Line]:
    for arm in panel.arms:
        measured = [(run, found) for run in arm.runs if (found := _measured(run))]
        _check_same_protocol([run for run, _ in measured])
        if not measured:
            continue
        counts = sorted(set.intersection(*(set(found) for _, found in measured)))
        scores = tuple(
            estimates.contrast([(np.array([found[count] for _, found in measured]), 1.0)])
            for count in counts
        )
        yield Line(panel.title, PLAYED, arm.name, tuple(counts), scores)


def missing(panel: Panel) -> Iterator[str]:
    """A sentence for every arm of which only some runs were evaluated in this way."""
    for arm in panel.arms:
        lacking = [run for run in arm.runs if not run.by_simulations]
        if lacking and len(lacking) < len(arm.runs):
            names = ", ".join(str(run.config.seed) for run in lacking)
            yield f"{arm.name}: seed {names} was not evaluated at several numbers of simulations"


def _measured(run: RunRecord) -> dict[int, float]:
    """Mean return by number of simulations.

    Raises:
        BadInput: the file has something else.
    """
    if not run.by_simulations:
        return {}
    rows, found = run.by_simulations.get("rows"), {}
    for row in rows if isinstance(rows, list) else [None]:
        count, mean = (_entry(row, name) for name in ("num_simulations", "mean"))
        is_sound = type(count) is int and 0 < count <= checks.LARGEST and is_number(mean)
        if not is_sound or not isinstance(run.by_simulations.get("protocol"), dict):
            path = run.folder / run_folder.BY_SIMULATIONS_FILE
            raise BadInput(f"{path} is damaged: delete it, or evaluate the run again")
        found[count] = float(mean)
    return found


def _entry(row: Any, name: str) -> Any:
    return row.get(name) if isinstance(row, dict) else None


def _check_same_protocol(runs: Sequence[RunRecord]) -> None:
    seen: dict[str, RunRecord] = {}
    for run in runs:
        played = run.by_simulations["protocol"] | {"episodes": run.by_simulations.get("episodes")}
        seen.setdefault(repr(sorted(played.items())), run)
    if len(seen) > 1:
        folders = " and ".join(str(run.folder) for run in list(seen.values())[:2])
        raise BadInput(
            f"{folders} were evaluated at several numbers of simulations under different "
            "protocols; evaluate them again in the same way, with simulations="
        )
