"""Scores over games and seeds, by rliable: mean, median, IQM, optimality gap, P(improvement)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ez_jax.reports import estimates
from ez_jax.reports.arms import Panel
from ez_jax.reports.estimates import Estimate
from ez_jax.reports.normalise import Normaliser, normaliser

MEASURES = ("mean", "median", "IQM", "optimality gap")
IMPROVES = "P(improvement)"


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """One arm over all games of one protocol."""

    label: str  # of the protocol
    arm: str
    games: tuple[str, ...]
    seeds: int  # per game
    measures: Mapping[str, Estimate]  # by name; P(improvement) is missing for the baseline

    @property
    def title(self) -> str:
        """The arm, and the protocol if there are several."""
        return f"{self.arm} ({self.label})" if self.label else self.arm


@dataclasses.dataclass(frozen=True)
class Aggregates:
    """All arms, and notes on them."""

    rows: tuple[Aggregate, ...]
    notes: tuple[str, ...]  # a sentence each


def aggregate(panels: Sequence[Panel]) -> Aggregates:
    """Every arm over the games in which it and the baseline have runs, for each protocol."""
    rows: list[Aggregate] = []
    notes: list[str] = []
    for label in sorted({panel.label for panel in panels}):
        normalisers = {}
        for panel in (panel for panel in panels if panel.label == label):
            known = normaliser(panel)
            if known is None:
                notes.append(
                    f"{panel.title} is left out of the aggregates: "
                    "its runs score the same and no scale is known."
                )
            else:
                normalisers[panel] = known
                notes.append(known.told)
        rows += _rows(label, normalisers, notes)
    return Aggregates(tuple(rows), tuple(notes))


def _rows(label: str, normalisers: Mapping[Panel, Normaliser], notes: list[str]) -> list[Aggregate]:
    scored = {
        panel: {arm.name: normalise(arm.finals) for arm in panel.arms if arm.runs}
        for panel, normalise in normalisers.items()
    }
    scored = {panel: scores for panel, scores in scored.items() if panel.baseline.name in scores}
    names = list(dict.fromkeys(name for scores in scored.values() for name in scores))
    base = [scores[panel.baseline.name] for panel, scores in scored.items()]
    rows = []
    for name in names:
        lacking = [panel.title for panel, scores in scored.items() if name not in scores]
        if lacking:
            notes.append(f"{name} is left out of the aggregates: no run of {', '.join(lacking)}.")
            continue
        matrix = _rectangle([scores[name] for scores in scored.values()], name, notes)
        measures = dict(zip(MEASURES, estimates.estimates([matrix], _measures), strict=True))
        if any(name != panel.baseline.name for panel in scored):
            against = _rectangle(base, "", [])
            chance = lambda *two: np.array([estimates.probability_of_improvement(*two)])  # noqa: E731
            measures[IMPROVES] = estimates.estimates([matrix, against], chance)[0]
        games = tuple(panel.game for panel in scored)
        rows.append(Aggregate(label, name, games, len(matrix), measures))
    return rows


def _rectangle(columns: Sequence[np.ndarray], name: str, notes: list[str]) -> np.ndarray:
    """f64[seeds, games]; of games with more seeds than others, only the first ones."""
    least = min(len(column) for column in columns)
    if any(len(column) > least for column in columns):
        notes.append(f"{name}: the first {least} seeds of each game are aggregated.")
    return np.stack([column[:least] for column in columns], axis=1)


def _measures(scores: Float[np.ndarray, "seeds games"]) -> np.ndarray:
    from rliable import metrics

    return np.array(
        [
            metrics.aggregate_mean(scores),
            metrics.aggregate_median(scores),
            estimates.iqm(scores.ravel()),
            metrics.aggregate_optimality_gap(scores),
        ]
    )
