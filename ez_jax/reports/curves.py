"""Learning curves of arms on a grid that their seeds share, and the area under a run's curve.

Seeds are evaluated at slightly different clocks: several environments step at once, so a multiple
of `eval.every` is overshot by a few steps. The grid of an arm is that of its run with the most
evaluations. Other runs are interpolated linearly between their own evaluations, over the range that
all runs cover.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ez_jax.reports import estimates
from ez_jax.reports.arms import Arm, Panel
from ez_jax.reports.collect import Evaluations

INTERPOLATED = (
    "Runs are interpolated linearly between their own evaluations onto the evaluation steps of one "
    "run of their arm, over the range that all of them cover."
)


@dataclasses.dataclass(frozen=True)
class ArmCurve:
    """The learning curve of an arm."""

    arm: Arm
    agent_steps: np.ndarray  # i64[T]
    updates: np.ndarray  # f64[T], median over runs
    seconds: np.ndarray  # f64[T], likewise
    returns: np.ndarray  # f64[seeds, T]
    mean: np.ndarray  # f64[T]
    mean_bounds: np.ndarray | None  # f64[2, T]; None with too few seeds
    median: np.ndarray  # f64[T]
    median_bounds: np.ndarray | None  # f64[2, T]
    iqm: np.ndarray  # f64[T]
    iqm_bounds: np.ndarray | None  # f64[2, T]


def arm_curve(arm: Arm) -> ArmCurve | None:
    """The curve of an arm; None if its runs share no evaluation step."""
    if not arm.runs:
        return None
    own = [run.evaluations for run in arm.runs]
    first, last = _shared(own)
    longest = max(own, key=len)
    if first > last or not len(longest):
        return None
    inside = longest.agent_steps[(longest.agent_steps > first) & (longest.agent_steps < last)]
    grid = np.unique([first, *inside, last])
    returns = np.stack([np.interp(grid, run.agent_steps, run.returns) for run in own])
    (mean, median, iqm), bounds = _middle(returns)
    return ArmCurve(
        arm=arm,
        agent_steps=grid,
        updates=np.median([np.interp(grid, run.agent_steps, run.updates) for run in own], axis=0),
        seconds=np.median([np.interp(grid, run.agent_steps, run.seconds) for run in own], axis=0),
        returns=returns,
        mean=mean,
        mean_bounds=None if bounds is None else bounds[:, 0],
        median=median,
        median_bounds=None if bounds is None else bounds[:, 1],
        iqm=iqm,
        iqm_bounds=None if bounds is None else bounds[:, 2],
    )


def areas(panel: Panel) -> dict[str, np.ndarray]:
    """Per arm f64[seeds]: the mean of each run's curve over the steps that all runs cover.

    Empty if that range is empty, for example if runs were evaluated only at the end.
    """
    every = [run.evaluations for arm in panel.arms for run in arm.runs]
    if not every:
        return {}
    first, last = _shared(every)
    if first >= last:
        return {}
    return {
        arm.name: np.array([_area(run.evaluations, first, last) for run in arm.runs])
        for arm in panel.arms
    }


def _area(run: Evaluations, first: int, last: int) -> float:
    inside = run.agent_steps[(run.agent_steps > first) & (run.agent_steps < last)]
    grid = np.array([first, *inside, last])
    heights = np.interp(grid, run.agent_steps, run.returns)
    return float(np.trapezoid(heights, grid) / (last - first))


def _shared(runs: Sequence[Evaluations]) -> tuple[int, int]:
    """The first and the last agent step that all runs cover; an empty range without evaluations."""
    if not all(len(run) for run in runs):
        return 1, 0
    first = max(int(run.agent_steps[0]) for run in runs)
    return first, min(int(run.agent_steps[-1]) for run in runs)


def _middle(returns: Float[np.ndarray, "seeds T"]) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean, median, interquartile mean [3, T], and the bounds of their intervals [2, 3, T]."""
    middle = (lambda x: np.mean(x, axis=0), lambda x: np.median(x, axis=0), estimates.iqm)
    together = lambda sample: np.concatenate([of(sample[:, 0]) for of in middle])  # noqa: E731
    values, bounds = estimates.interval([returns[:, None]], together)
    return values.reshape(3, -1), None if bounds is None else bounds.reshape(2, 3, -1)
