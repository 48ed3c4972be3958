"""Sticky actions for libraries without them: with some probability a game repeats its last action.

As in MinAtar (Young and Tian, 2019) and Atari (Machado et al., 2018), where envpool does it frame
by frame. At the start of an episode, action 0 counts as the last one, or a vector of zeros. (The
original MinAtar remembers the last action of the previous episode.)
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

    def __init__(self, probability: float, seeds: np.ndarray, shape: tuple[int, ...] = ()):
        """`seeds` i64[N] are those of the games, `shape` that of an action: () or (D,)."""
        self._probability, self._seeds = probability, seeds
        self._last: np.ndarray = np.zeros((len(seeds), *shape), np.float32 if shape else np.int64)
        self._count = 0

    def __call__(self, action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """The actions i64[N] or f32[N, D] to execute.

        Args:
            action: i32[N] or f32[N, D], as chosen.
            is_first: bool[N], where the call starts an episode and executes nothing.
        """
        action = np.asarray(action, self._last.dtype)
        if not self._probability:
            return action
        self._count += 1
        sticks = uniform(self._seeds, self._count) < self._probability
        executed = np.where(self._each(sticks), self._last, action)
        self._last = np.where(self._each(is_first), np.zeros_like(executed), executed)
        return executed

    def _each(self, flags: np.ndarray) -> np.ndarray:
        """Flags bool[N] that apply to every number of an action."""
        return np.reshape(flags, (-1, *[1] * (self._last.ndim - 1)))

    def reset(self) -> None:
        """Start new episodes in all games."""
        self._last = np.zeros_like(self._last)
