"""What each switch does: main effects and interactions, with a sentence each.

Arms are points in a grid of switches. A main effect is the mean difference between pairs of arms
that differ only in that switch: one pair if ideas are left out or added one at a time, and in a
factorial design the average over all settings of the other switches. An interaction is how much the
effect of one switch changes with another.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ez_jax.evaluation import on_track
from ez_jax.reports import estimates, words
from ez_jax.reports.arms import Panel, value_text
from ez_jax.reports.estimates import Estimate, count_text
from ez_jax.reports.normalise import normaliser

ROUNDING = 1e-9
FINAL, AREA = "final score", "area under the curve"

Point = tuple[int, ...]  # of an arm: the level of every switch, 0 for the baseline's
Parts = list[tuple[np.ndarray, float]]  # scores of some seeds and the weight of their mean


@dataclasses.dataclass(frozen=True)
class Switch:
    """Settings that change together."""

    keys: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]  # values as text, by level; the baseline's first

    @property
    def name(self) -> str:
        """As written on the command line."""
        return " + ".join(self.keys)

    def change(self, level: int) -> str:
        """The change from the baseline's level of a switch to another, in words."""
        old, new = self.levels[0], self.levels[level]
        if (old, new) == (("true",), ("false",)):
            return "turning it off"
        if (old, new) == (("false",), ("true",)):
            return "turning it on"
        return f"{','.join(new)} instead of {','.join(old)}"


@dataclasses.dataclass(frozen=True)
class Effect:
    """One contrast between arms, with its sentence."""

    game: str  # or the number of games, if it is averaged over games
    games: int
    measure: str
    switch: str
    change: str
    is_interaction: bool
    pairs: int  # of arms that were compared
    estimate: Estimate

    @property
    def seeds(self) -> str:
        """The number of seeds per arm."""
        return count_text(self.estimate.seeds)

    @property
    def verdict(self) -> str:
        """Whether the effect is clear, or the reason why not."""
        if self.estimate.low is None:
            return "too few seeds for an interval"
        if self.estimate.is_clear:
            return "clear"
        if self.estimate.excludes_zero:
            return "not clear with so few seeds"
        return "no clear effect"

    @property
    def sentence(self) -> str:
        """A sentence: size, interval, and data."""
        over = f", {self.pairs} pairs of arms" if self.pairs > 1 else ""
        told = f"({self.seeds}{over}); {self.verdict}"
        size = self.estimate if self.estimate.value >= 0 else self.estimate.scaled(-1)
        by = f"{number(size.value)}{bracket(size)}"
        name = words.of_keys(self.switch)
        if self.is_interaction:
            more = "more" if size is self.estimate else "less"
            return (
                f"{name}: both changes together give {by} {more} {self.measure} "
                f"than each by itself adds up to {told}"
            )
        verb = "raises" if size is self.estimate else "lowers"
        verb = "changes" if number(size.value) == "0" else verb
        return f"{name}: {self.change} {verb} the {self.measure} by {by} {told}"


def effects(
    panels: Sequence[Panel], scores: Mapping[tuple[Panel, str], Mapping[str, np.ndarray]]
) -> tuple[Effect, ...]:
    """All effects: per game in its own unit, and over games on a common scale.

    Args:
        panels: games.
        scores: f64[seeds] per arm, by panel and measure.
    """
    found: list[Effect] = []
    joint: dict[tuple[str, ...], list[tuple[Effect, Parts]]] = {}
    for panel in panels:
        known = normaliser(panel)
        for measure in (FINAL, AREA):
            for effect, parts in _of_panel(panel, measure, scores[panel, measure]):
                found.append(effect)
                if known is not None:
                    factor = 1 / (known.one - known.zero)
                    key = (panel.label, measure, effect.switch, effect.change)
                    parts = [(sample, weight * factor) for sample, weight in parts]
                    joint.setdefault(key, []).append((effect, parts))
    return tuple(found) + tuple(
        _joint(label, members) for (label, *_), members in joint.items() if len(members) > 1
    )


def _joint(label: str, members: Sequence[tuple[Effect, Parts]]) -> Effect:
    """An effect averaged over games."""
    count = len(members)
    parts = [(sample, weight / count) for _, parts in members for sample, weight in parts]
    game = f"{count} games ({label})" if label else f"{count} games"
    return dataclasses.replace(
        members[0][0],
        game=game,
        games=count,
        measure=f"normalised {members[0][0].measure}",
        pairs=sum(effect.pairs for effect, _ in members),
        estimate=estimates.contrast(parts),
    )


def switches(panel: Panel) -> tuple[Switch, ...]:
    """Settings that differ between arms; those that always change together are one switch."""
    return tuple(_switch(panel, pattern, keys) for pattern, keys in _patterns(panel).items())


def _patterns(panel: Panel) -> dict[tuple[int, ...], list[str]]:
    """Settings by the levels that they have in the arms."""
    patterns: dict[tuple[int, ...], list[str]] = {}
    for key in panel.keys:
        values = list(dict.fromkeys(value_text(arm.values[key]) for arm in panel.arms))
        pattern = tuple(values.index(value_text(arm.values[key])) for arm in panel.arms)
        patterns.setdefault(pattern, []).append(key)
    return patterns


def _switch(panel: Panel, pattern: Point, keys: Sequence[str]) -> Switch:
    levels = [panel.arms[pattern.index(level)].values for level in range(max(pattern) + 1)]
    texts = tuple(tuple(value_text(values[key]) for key in keys) for values in levels)
    return Switch(tuple(keys), texts)


def _of_panel(
    panel: Panel, measure: str, scores: Mapping[str, np.ndarray]
) -> Iterator[tuple[Effect, Parts]]:
    known = switches(panel)
    points = zip(*_patterns(panel), strict=True)  # empty if arms do not differ
    grid = {
        point: scores[arm.name]
        for point, arm in zip(points, panel.arms, strict=False)
        if len(scores.get(arm.name, ()))
    }
    axes = [(i, level) for i, s in enumerate(known) for level in range(1, len(s.levels))]
    for axis in axes:
        yield from _effect(panel, measure, known, grid, (axis,))
    for one, other in itertools.combinations(axes, 2):
        if one[0] != other[0]:
            yield from _effect(panel, measure, known, grid, (one, other))


def _effect(
    panel: Panel,
    measure: str,
    known: Sequence[Switch],
    grid: Mapping[Point, np.ndarray],
    axes: Sequence[tuple[int, int]],
) -> Iterator[tuple[Effect, Parts]]:
    """The effect along one axis, or the interaction of two; None without arms."""
    parts, pairs = _parts(grid, axes)
    if not parts:
        return
    yield (
        Effect(
            game=panel.title,
            games=1,
            measure=measure,
            switch=" and ".join(known[i].name for i, _ in axes),
            change=" and ".join(known[i].change(level) for i, level in axes),
            is_interaction=len(axes) > 1,
            pairs=pairs,
            estimate=estimates.contrast(parts),
        ),
        parts,
    )


def _parts(grid: Mapping[Point, np.ndarray], axes: Sequence[tuple[int, int]]) -> tuple[Parts, int]:
    """Corners of every complete square (or line) along the axes, and the number of these."""
    parts: Parts = []
    squares = 0
    for point in grid:
        if any(point[i] for i, _ in axes):
            continue
        corners = {}
        for ups in itertools.product((False, True), repeat=len(axes)):
            corner = list(point)
            for (i, level), up in zip(axes, ups, strict=True):
                corner[i] = level if up else 0
            corners[tuple(corner)] = (-1.0) ** (len(axes) - sum(ups))
        if all(corner in grid for corner in corners):
            squares += 1
            parts += [(grid[corner], sign) for corner, sign in corners.items()]
    return [(sample, sign / squares) for sample, sign in parts], squares


def number(value: float) -> str:
    """Three digits, without an exponent; rounding errors become 0."""
    return "0" if abs(value) < ROUNDING else on_track.number(value)


def bracket(estimate: Estimate) -> str:
    """An interval as ` [low, high]`; empty if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{number(estimate.low)}, {number(estimate.high)}]"
