"""Groups the runs of a game into arms (seeds with the same settings) and finds the baseline."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ez_jax import config
from ez_jax.config import errors, from_dict, presets
from ez_jax.reports import protocols
from ez_jax.reports.collect import BASELINE, RunRecord, read_baseline
from ez_jax.reports.estimates import count_text


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """Runs that differ only by their seeds."""

    name: str  # what differs from the baseline
    values: dict[str, Any]  # of the settings that differ anywhere in the panel, by dotted key
    runs: tuple[RunRecord, ...]  # included, by seed
    left_out: tuple[RunRecord, ...]  # unfinished, without evaluation, or a seed's second run

    @property
    def all_runs(self) -> tuple[RunRecord, ...]:
        """Included runs and those left out."""
        return self.runs + self.left_out

    @property
    def finals(self) -> np.ndarray:
        """f64[seeds], final scores."""
        return np.array([run.final for run in self.runs], np.float64)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the included runs."""
        return tuple(run.config.seed for run in self.runs)


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """One game under one protocol; its arms are comparable."""

    game: str
    label: str  # distinguishes its protocol from others; usually empty
    keys: tuple[str, ...]  # settings that differ between arms
    arms: tuple[Arm, ...]  # the baseline first
    warnings: tuple[str, ...]  # a sentence each

    @property
    def title(self) -> str:
        """The game, and its protocol if there are several."""
        return f"{self.game} ({self.label})" if self.label else self.game

    @property
    def all_runs(self) -> list[RunRecord]:
        """Of all arms."""
        return [run for arm in self.arms for run in arm.all_runs]

    @property
    def baseline(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]


def group(runs: Sequence[RunRecord], *, mix: bool, partial: bool) -> tuple[Panel, ...]:
    """Panels by game and protocol, in order of their names.

    Raises:
        BadInput: protocols differ within a game and `mix` is false.
    """
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for run, label in zip(runs, protocols.labels(runs, mix=mix), strict=True):
        found.setdefault((run.config.game, label), []).append(run)
    return tuple(_panel(*key, found[key], partial=partial) for key in sorted(found))


def value_text(value: Any) -> str:
    """A setting as written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    return errors.one_line(value)


def _panel(game: str, label: str, runs: Sequence[RunRecord], *, partial: bool) -> Panel:
    first = runs[0].settings
    keys = tuple(sorted(k for k in first if any(run.settings[k] != first[k] for run in runs)))
    by_point: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_point.setdefault(repr([run.settings[key] for key in keys]), []).append(run)
    points = [{key: same[0].settings[key] for key in keys} for same in by_point.values()]
    base = _choose_baseline(points, runs)
    arms = [
        _arm(_name(point, base), point, same, partial=partial)
        for point, same in zip(points, by_point.values(), strict=True)
    ]
    order = lambda arm: (arm.values != base, len(arm.name.split(", ")), arm.name)  # noqa: E731
    arms.sort(key=order)
    return Panel(game, label, keys, tuple(arms), _warnings(arms))


def _name(point: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    changed = [key for key in point if point[key] != base[key]]
    text = ", ".join(f"{key}={value_text(point[key])}" for key in changed)
    return text or BASELINE


def _arm(name: str, point: dict[str, Any], same: list[RunRecord], *, partial: bool) -> Arm:
    """Include the finished run of each seed; with `partial`, also unfinished ones."""
    ordered = sorted(same, key=lambda r: (r.config.seed, not r.is_finished, str(r.folder)))
    chosen: dict[int, RunRecord] = {}
    for run in ordered:
        if run.final is not None and (run.is_finished or partial):
            chosen.setdefault(run.config.seed, run)
    left_out = [run for run in ordered if chosen.get(run.config.seed) is not run]
    return Arm(name, point, tuple(chosen.values()), tuple(left_out))


def _choose_baseline(points: Sequence[dict[str, Any]], runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The baseline: that of the ablation, or the most common values; defaults break ties."""
    asked = read_baseline(runs[0].folder.absolute().parent, runs[0].config.game)
    named = [
        point
        for point in points
        if asked and all(value_text(point[key]) == value_text(asked[key]) for key in point)
    ]
    keys = points[0]
    counts = {key: collections.Counter(repr(point[key]) for point in points) for key in keys}
    usual = config.flatten(from_dict(presets.PRESETS.get(runs[0].config.preset, {})))

    def rank(point: Mapping[str, Any]) -> tuple[int, int, str]:
        common = sum(counts[key][repr(point[key])] for key in keys)
        default = sum(point[key] == usual[key] for key in keys)
        return -common, -default, repr(point)

    return min(named or points, key=rank)


def _warnings(arms: Sequence[Arm]) -> tuple[str, ...]:
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    told = []
    for arm in arms:
        missing = [str(seed) for seed in seeds if seed not in arm.seeds]
        told += [_why_left_out(arm, run) for run in arm.left_out]
        if missing:
            told.append(f"{arm.name}: seed {', '.join(missing)} is missing")
        told += [
            f"{arm.name}: {run.folder} is not finished ({run.progress}) and is included as it is"
            for run in arm.runs
            if not run.is_finished
        ]
        if len(arm.runs) < 3:
            told.append(f"{arm.name}: {count_text([len(arm.runs)])}, too few for an interval")
    return tuple(told)


def _why_left_out(arm: Arm, run: RunRecord) -> str:
    if run.config.seed in arm.seeds:
        reason = f"seed {run.config.seed} occurs twice"
    elif run.final is None:
        reason = "it has no evaluation yet"
    else:
        reason = f"it is not finished ({run.progress}; partial=true includes it as it is)"
    return f"{arm.name}: {run.folder} is left out: {reason}"
