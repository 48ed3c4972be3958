"""A common scale for the scores of different games, so that they can be averaged.

Atari games are human-normalised. For other games, 0 is random play if a published score of it is
known, or else the lowest final score of any run in the report, and 1 is the mean of the best arm in
the report. The page says which.
"""

import dataclasses

import numpy as np

from ez_jax.evaluation import references
from ez_jax.evaluation.scores import human_normalised
from ez_jax.reports.arms import Panel


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """(score - zero) / (one - zero)."""

    zero: float
    one: float
    told: str  # a sentence on the meaning of 0 and 1

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Normalised scores."""
        return (scores - self.zero) / (self.one - self.zero)


def normaliser(panel: Panel) -> Normaliser | None:
    """The scale of a game; None if all runs score the same or nothing is known."""
    at_zero, at_one = (human_normalised(panel.game, score) for score in (0.0, 1.0))
    if at_zero is not None and at_one is not None:
        slope = at_one - at_zero
        zero = -at_zero / slope
        one = zero + 1 / slope
        told = f"{panel.title}: human-normalised, 0 is random play ({zero:g}), 1 human ({one:g})."
        return Normaliser(zero, one, told)
    finals = [arm.finals for arm in panel.arms if len(arm.finals)]
    if not finals:
        return None
    best = max(float(scores.mean()) for scores in finals)
    random = [s.score for s in references.scores(panel.game) if s.method.lower() == "random"]
    zero = random[0] if random else min(float(scores.min()) for scores in finals)
    if not best > zero:
        return None
    lowest = "random play" if random else "the lowest final score of any run here"
    told = f"{panel.title}: 0 is {lowest} ({zero:.4g}), 1 the mean of the best arm ({best:.4g})."
    return Normaliser(zero, best, told)
