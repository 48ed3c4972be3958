"""Sticky actions for libraries without them: with some probability a game repeats its last action.

As in MinAtar (Young and Tian, 2019) and Atari (Machado et al., 2018), where envpool does it frame
by frame. At the start of an episode, action 0 counts as the last one. (The original MinAtar
remembers the last action of the previous episode.)
"""

import numpy as np

_STEP, _MIX_A, _MIX_B = (
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def uniform(seed: np.ndarray, count: int) -> np.ndarray:
    """Numbers f64[N] in [0, 1) from seeds i64[N] and a count (SplitMix64)."""
    word = np.asarray(seed, np.uint64)
    for part in (np.uint64(0), np.uint64(count)):
        word = (word + part + np.uint64(1)) * _STEP
        word = (word ^ (word >> np.uint64(30))) * _MIX_A
        word = (word ^ (word >> np.uint64(27))) * _MIX_B
        word ^= word >> np.uint64(31)
    return (word >> np.uint64(11)) / 2.0**53


class StickyActions:
    """The executed actions of N games; random numbers depend only on the game's seed and step."""

    def __init__(self, probability: float, seeds: np.ndarray):
        """`seeds` i64[N] are those of the games."""
        self._probability, self._seeds = probability, seeds
        self._last, self._count = np.zeros(len(seeds), np.int64), 0

    def __call__(self, action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """The actions i64[N] to execute.

        Args:
            action: i32[N], as chosen.
            is_first: bool[N], where the call starts an episode and executes nothing.
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
        """Start new episodes in all games."""
        self._last = np.zeros_like(self._last)
