"""All results of a report, measured once; tables, figures and page only show them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ez_jax.evaluation import references
from ez_jax.evaluation.references import Curve, Score
from ez_jax.reports import curves, effects, simulations
from ez_jax.reports.aggregates import Aggregates, aggregate
from ez_jax.reports.arms import Panel
from ez_jax.reports.collect import RunRecord
from ez_jax.reports.curves import ArmCurve
from ez_jax.reports.effects import AREA, FINAL, Effect
from ez_jax.reports.estimates import Estimate, contrast

Scores = dict[tuple[Panel, str], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class ArmScore:
    """One arm of one game in one measure."""

    panel: Panel
    arm: str
    measure: str
    estimate: Estimate  # mean over seeds


@dataclasses.dataclass(frozen=True)
class Results:
    """All results."""

    runs: tuple[RunRecord, ...]
    panels: tuple[Panel, ...]
    curves: dict[Panel, tuple[ArmCurve, ...]]
    scores: Scores  # f64[seeds] by panel and measure, then by arm
    rows: tuple[ArmScore, ...]
    aggregates: Aggregates
    effects: tuple[Effect, ...]
    lines: tuple[simulations.Line, ...]
    published: dict[Panel, tuple[tuple[Score, ...], tuple[Curve, ...]]]
    warnings: tuple[str, ...]
    final_means: str  # what the final score is, as a sentence


def measure_all(runs: Sequence[RunRecord], panels: Sequence[Panel], final_means: str) -> Results:
    """Measure everything."""
    scores: Scores = {}
    for panel in panels:
        scores[panel, FINAL] = {arm.name: arm.finals for arm in panel.arms if arm.runs}
        scores[panel, AREA] = curves.areas(panel)
    rows = [
        ArmScore(panel, name, measure, contrast([(values, 1.0)]))
        for (panel, measure), by_arm in scores.items()
        for name, values in by_arm.items()
        if len(values)
    ]
    return Results(
        runs=tuple(runs),
        panels=tuple(panels),
        curves={
            panel: tuple(curve for arm in panel.arms if (curve := curves.arm_curve(arm)))
            for panel in panels
        },
        scores=scores,
        rows=tuple(rows),
        aggregates=aggregate(panels),
        effects=effects.effects(panels, scores),
        lines=simulations.lines(panels),
        published={
            panel: (references.scores(panel.game), references.curves(panel.game))
            for panel in panels
        },
        warnings=_warnings(panels, runs),
        final_means=final_means,
    )


def _warnings(panels: Sequence[Panel], runs: Sequence[RunRecord]) -> tuple[str, ...]:
    told = [f"{panel.title}, {warning}" for panel in panels for warning in panel.warnings]
    told += [f"{panel.title}, {note}" for panel in panels for note in simulations.missing(panel)]
    told += [note for run in runs for note in run.notes]
    for name in ("commit", "device"):
        different = {run.provenance[name] for run in runs}
        if len(different) > 1:
            told.append(f"the runs were made with {len(different)} different {name}s (see below)")
    return tuple(told)
