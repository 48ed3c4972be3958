"""Warnings about metrics that look broken, one sentence each; `diagnostics` has the numbers."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ez_jax.agent.support import EPSILON
from ez_jax.config import Config

PATIENCE = 2  # lines of metrics in a row
ENOUGH = 500  # updates; heads start at zero, so earlier metrics say nothing

Metrics = Mapping[str, float]


class Complaint(NamedTuple):
    """One possible problem; it is skipped if its metric is missing."""

    metric: str
    is_broken: Callable[[Metrics], bool]
    sentence: Callable[[Metrics, Config], str]  # the observation, and what to try


def _less_collapse(config: Config) -> str:
    if config.network.patch and config.learner.augment:
        # Measured on Breakout: experiments/results/static_screens.
        return "a shift changes every patch of a patch stem, so learner.augment=false is the fix"
    return "a smaller loss.consistency or learner.learning_rate is what to try first"


COMPLAINTS = (
    Complaint(
        "prefix/spread",
        # In healthy short runs of MinAtar it starts at 0.04.
        lambda seen: seen["prefix/spread"] < 0.02 and seen["prefix/correlation"] < 0.3,
        lambda seen, config: (
            "the value prefix does not follow the rewards: its predictions vary "
            f"{seen['prefix/spread']:.1%} as much as they do (correlation "
            f"{seen['prefix/correlation']:.2f}), so the search sees no reward; look at "
            "loss.value_prefix and learner.learning_rate, and whether the observation tells of the "
            "reward at all"
        ),
    ),
    Complaint(
        "value/explained",
        lambda seen: seen["value/explained"] < -0.1,
        lambda seen, config: (
            "values follow their targets less than a constant would (explained "
            f"{seen['value/explained']:.2f}, bias {seen['value/bias']:.3g}); a smaller "
            "learner.learning_rate or a larger loss.value is what to try first"
        ),
    ),
    Complaint(
        "norm/value_gap_share",
        lambda seen: seen["norm/value_gap_share"] > 0.5,
        lambda seen, config: (
            "the network acts otherwise than it was trained: on the same observations its values "
            f"are {seen['norm/value_gap']:.3g} apart, {seen['norm/value_gap_share']:.0%} of the "
            "spread between observations, because running statistics stand for the batch's; "
            "network.norm=sample has none, for images that are mostly empty"
        ),
    ),
    Complaint(
        "value/clipped",
        lambda seen: seen["value/clipped"] > 0.01,
        lambda seen, config: (
            f"{seen['value/clipped']:.0%} of the value targets lie past "
            f"{support_end(config.network.support * config.network.value_bin):,.4g}, the end of "
            "the support, and are cut there; a larger network.support holds them, or "
            "env.reward_clip=true on Atari"
        ),
    ),
    Complaint(
        "prefix/clipped",
        lambda seen: seen["prefix/clipped"] > 0.01,
        lambda seen, config: (
            f"{seen['prefix/clipped']:.0%} of the rewards (or value prefixes) lie past "
            f"{support_end(config.network.support * config.network.prefix_bin):,.4g}, the end of "
            "their support, and are cut there; a larger network.prefix_bin holds them"
        ),
    ),
    Complaint(
        "consistency/alike",
        lambda seen: seen["consistency/alike"] > 0.95,
        lambda seen, config: (
            "the projections of different observations are the same (mean cosine "
            f"{seen['consistency/alike']:.2f}), so the consistency loss teaches nothing; "
            + _less_collapse(config)
        ),
    ),
    Complaint(
        "replay/effective_share",
        lambda seen: seen["replay/effective_share"] < 0.1,
        lambda seen, config: (
            f"{seen['replay/effective_share']:.0%} of each batch carry the weight of all of it; a "
            "smaller replay.importance_exponent_final or a larger replay.min_weight evens it out"
        ),
    ),
    Complaint(
        "search/gain",
        lambda seen: seen["search/gain"] < 0,
        lambda seen, config: (
            "by its own values the search chooses worse than the policy alone (by "
            f"{-seen['search/gain']:.3g}); more search.num_simulations or less noise "
            "(search.dirichlet_fraction, search.gumbel_scale) is what to try first"
        ),
    ),
)


def complaints(metrics: Metrics, config: Config) -> dict[str, str]:
    """Sentences about problems in a line of metrics, by metric."""
    return {
        about.metric: about.sentence(metrics, config)
        for about in COMPLAINTS
        if about.metric in metrics and about.is_broken(metrics)
    }


def support_end(size: float) -> float:
    """The largest scalar that a support of -size..size represents: the inverse of h at its end."""
    root = math.sqrt(1 + 4 * EPSILON * (size + 1 + EPSILON))
    return ((root - 1) / (2 * EPSILON)) ** 2 - 1


class Watch:
    """Reports a problem once, when it is in `PATIENCE` consecutive lines of metrics."""

    def __init__(self, config: Config):
        """Silent during the first tenth of the updates, when everything looks broken.

        And until there are `ENOUGH` updates.
        """
        self._config = config
        self._quiet_until = max(config.total_updates / 10, ENOUGH)
        self._in_a_row: dict[str, int] = {}

    def __call__(self, updates: int, metrics: Metrics) -> list[str]:
        """The new sentences after one more line of metrics, at this number of updates."""
        if updates < self._quiet_until:
            return []
        said = complaints(metrics, self._config)
        self._in_a_row = {name: self._in_a_row.get(name, 0) + 1 for name in said}
        return [said[name] for name, count in self._in_a_row.items() if count == PATIENCE]
