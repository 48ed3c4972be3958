"""Checks rewards, lengths and ends of random play. Part of `checks.py`."""

import numpy as np

from ez_jax.agent.support import EPSILON
from ez_jax.diagnosis.game.play import Game
from ez_jax.diagnosis.game.spaces import Unfit
from ez_jax.diagnosis.machine_checks import Note

SMALL_VALUE = 0.05  # a network can distinguish values that differ by about this much


def rewards(game: Game) -> str | Note:
    """Compare the values of random play with the range of the value head."""
    played, config = game.played, game.config
    reward, support = played.reward[~played.is_first], config.network.support
    reached = float(np.abs(played.values(config.discount)).max(initial=0.0))
    told = f"{_range(reward)}; values within {reached:.3g}"
    if not reward.any():
        return Note(
            "random play got none",
            "the agent learns from rewards: give some on the way, or expect long training",
        )
    if _compressed(reached) > support:
        raise Unfit(
            f"values reach {reached:.4g}, beyond what network.support={support} covers",
            f"set network.support={enough(game)}, or env.reward_clip=true, or make rewards "
            "smaller (gymnasium.wrappers.TransformReward)",
        )
    if reached < SMALL_VALUE:
        return Note(
            told,
            "such small values are hard to distinguish: make rewards larger "
            "(gymnasium.wrappers.TransformReward)",
        )
    if game.is_gymnasium and 2 * enough(game) < support:  # others have their own settings
        return Note(
            told,
            f"network.support={enough(game)} would cover every value of such rewards "
            f"(it is {support}), in a smaller network",
        )
    return told


def _compressed(value: float) -> float:
    """h(|x|) of `support.transform`, without JAX."""
    return float(np.sqrt(value + 1) - 1 + EPSILON * value)


def enough(game: Game) -> int:
    """The support that covers all values of rewards no larger than those seen."""
    played, config = game.played, game.config
    longest = config.env.max_episode_steps
    if game.is_gymnasium:
        spec = game.raw().spec
        longest = min(longest, (spec and spec.max_episode_steps) or longest)
    steps = min(longest, 1 / (1 - config.discount) if config.discount < 1 else longest)
    return int(np.ceil(_compressed(float(np.abs(played.reward).max()) * steps)))


def games(game: Game) -> str | Note:
    """Check how games begin, end and score."""
    played, limit = game.played, game.config.env.max_episode_steps
    lengths, returns = played.lengths, played.returns
    if not len(lengths):
        return Note(
            f"none ended in {played.steps:,} steps",
            f"a game is cut after env.max_episode_steps={limit:,} agent steps: set a smaller one, "
            "or max_episode_steps when registering it, if games should be shorter",
        )
    if len(lengths) > 2 and lengths[0] > 1 and (lengths[1:] == 1).all():
        raise Unfit(
            f"the first game has {lengths[0]} steps, and every later one ends at once",
            "start a new game in reset(): restore everything that step() changes",
        )
    terminated = int((played.game_over & (played.discount == 0)).sum())
    ends = f"{terminated} terminated, {len(lengths) - terminated} truncated"
    told = f"{_range(lengths)} steps, returns {_range(returns)}; {ends}"
    if len(lengths) > 4 and np.ptp(returns) == 0:
        hint = "every random game scores the same: nothing distinguishes good from bad play"
        return Note(told, f"{hint} until one differs by chance")
    return told


def _range(numbers: np.ndarray) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
