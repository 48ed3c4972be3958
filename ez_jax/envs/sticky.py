"""Sticky actions for libraries that have none: at times a game executes its last action again.

As Young and Tian (2019) have it in MinAtar and Machado et al. (2018) in Atari, where envpool does
it frame by frame. Before the first action of an episode action 0 counts as the last one. (The
original of MinAtar remembers the last action of the episode before.)
"""

import numpy as np

_STEP, _MIX_A, _MIX_B = (
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def uniform(seed: np.ndarray, count: int) -> np.ndarray:
    """Numbers f64[N] in [0, 1) that follow from seeds i64[N] and a count (SplitMix64)."""
    word = np.asarray(seed, np.uint64)
    for part in (np.uint64(0), np.uint64(count)):
        word = (word + part + np.uint64(1)) * _STEP
        word = (word ^ (word >> np.uint64(30))) * _MIX_A
        word = (word ^ (word >> np.uint64(27))) * _MIX_B
        word ^= word >> np.uint64(31)
    return (word >> np.uint64(11)) / 2.0**53


class StickyActions:
    """What N games execute, told what was chosen; draws follow from game seed and step alone."""

    def __init__(self, probability: float, seeds: np.ndarray):
        """Nothing sticks yet; `seeds` i64[N] are those of the games."""
        self._probability, self._seeds = probability, seeds
        self._last, self._count = np.zeros(len(seeds), np.int64), 0

    def __call__(self, action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Actions i64[N] to execute for those that were chosen.

        Args:
            action: i32[N], chosen.
            is_first: bool[N], where the call begins an episode and executes nothing.
        """
        action = np.asarray(action, np.int64)
        if not self._probability:
            return action
        self._count += 1
        sticks = uniform(self._seeds, self._count) < self._probability
        executed = np.where(sticks, self._last, action)
        self._last = np.where(is_first, 0, executed)
        return executed

    def reset(self) -> None:
        """New episodes begin everywhere."""
        self._last = np.zeros_like(self._last)
