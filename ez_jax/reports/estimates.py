"""Estimates with intervals: rliable's stratified bootstrap over seeds, widened for few seeds.

A percentile interval of few samples is too narrow: it lacks the factor sqrt(n / (n - 1)) and the
tails of Student's t. As Hesterberg (2015, "What teachers should know about the bootstrap", section
on expanded percentiles) proposes, the percentiles are moved outwards by exactly that. With three
seeds the interval is the whole range of the resamples; with fewer there is none.

For 600 pairs of equal arms (normal, 3 / 4 / 5 / 10 seeds each) plain percentiles exclude zero in
21, 15, 12, 6 %, these in 11, 6, 5, 4 %: so with three seeds nothing is called clear.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

LEAST_SEEDS = 3  # for an interval
LEAST_CLEAR = 4  # for an effect to be called clear
CONFIDENCE = 0.95
REPETITIONS = 2_000
SEED = 0  # of the resampling: the same runs give the same intervals

Statistic = Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its interval, which is missing with too few seeds."""

    value: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]  # number in each group

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero and there are enough seeds to say so."""
        return self.excludes_zero and min(self.seeds) >= LEAST_CLEAR

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and it excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def scaled(self, factor: float) -> "Estimate":
        """Multiplied by a number, which may be negative."""
        ends = [end and end * factor for end in (self.low, self.high)]
        low, high = ends if factor >= 0 else ends[::-1]
        return Estimate(self.value * factor, low, high, self.seeds)


def count_text(seeds: Collection[int]) -> str:
    """The number of seeds in words: `1 seed`, `3 to 5 seeds`."""
    least, most = min(seeds), max(seeds)
    count = f"{least}" if least == most else f"{least} to {most}"
    return f"{count} seed{'s' * (most != 1)}"


def interval(
    samples: Sequence[Float[np.ndarray, "seeds games ..."]], statistic: Statistic
) -> tuple[np.ndarray, np.ndarray | None]:
    """A statistic of samples, and the bounds [2, ...] of its interval over seeds.

    Args:
        samples: one array per group; groups and games are resampled independently.
        statistic: from these arrays to an array.
    """
    if min(len(sample) for sample in samples) < LEAST_SEEDS:
        return statistic(*samples), None
    # Imported late: it loads pandas.
    from rliable import library

    with _seeded():
        values, bounds = library.get_interval_estimates(
            {"": list(samples)},
            statistic,
            reps=REPETITIONS,
            confidence_interval_size=_expanded(samples),
        )
    return values[""], bounds[""]


def contrast(parts: Sequence[tuple[Float[np.ndarray, " seeds"], float]]) -> Estimate:
    """The weighted sum of the means of some groups of seeds."""
    samples = [sample[:, None] * weight for sample, weight in parts]
    total = lambda *groups: np.array([sum(group.mean() for group in groups)])  # noqa: E731
    return estimates(samples, total)[0]


def estimates(
    samples: Sequence[Float[np.ndarray, "seeds games"]], statistic: Statistic
) -> list[Estimate]:
    """One estimate per entry of a statistic that returns a vector."""
    values, bounds = interval(samples, statistic)
    lows, highs = [[None] * len(values)] * 2 if bounds is None else bounds.tolist()
    seeds = tuple(len(sample) for sample in samples)
    return [
        Estimate(value, low, high, seeds)
        for value, low, high in zip(values.tolist(), lows, highs, strict=True)
    ]


def iqm(scores: Float[np.ndarray, "seeds ..."]) -> Float[np.ndarray, "..."]:
    """Mean of the middle half along the first axis, as scipy's trim_mean; below 4 seeds the mean.

    The same as rliable's `aggregate_iqm`, but many times as fast and for many columns at once.
    """
    cut = int(0.25 * len(scores))
    return np.sort(scores, axis=0)[cut : len(scores) - cut].mean(axis=0)


def probability_of_improvement(
    scores: Float[np.ndarray, "seeds games"], others: Float[np.ndarray, "others games"]
) -> float:
    """P(score > other), ties count half, averaged over games; as rliable's, but faster."""
    pairs = scores[:, None] - others[None]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def _expanded(samples: Sequence[np.ndarray]) -> float:
    """The confidence of the percentiles that gives an interval of CONFIDENCE."""
    columns = [sample.reshape(len(sample), -1) for sample in samples]
    # For arrays over time, each point is a statistic of one group: n - 1 degrees of freedom.
    games = [column for sample in columns for column in sample.T] if samples[0].ndim == 2 else []
    least = min(len(sample) for sample in samples)
    freedom = _freedom(games, least)
    outward = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(least / (least - 1))
    return math.erf(outward / math.sqrt(2))


def _freedom(groups: Sequence[np.ndarray], least: int) -> float:
    """Degrees of freedom of a sum of means, by Welch and Satterthwaite."""
    variances = np.array([np.var(group, ddof=1) / len(group) for group in groups])
    if not np.any(variances > 0):
        return least - 1
    shares = variances / variances.sum()
    return float(1 / sum(shares**2 / [len(group) - 1 for group in groups]))


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Fix the resampling, because rliable uses numpy's global generator."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(SEED)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
