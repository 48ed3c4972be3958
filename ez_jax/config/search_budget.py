"""The size of a search if the configuration leaves it to the number of actions."""

import math
from typing import NamedTuple

from ez_jax.config.settings import Config, SearchConfig

# EfficientZero V2's code: largest number of actions, simulations, actions considered at the root.
_BUDGETS = ((3, 4, 2), (15, 16, 4), (math.inf, 16, 8))


class SearchBudget(NamedTuple):
    """The size of one search, named as in `SearchConfig`."""

    num_simulations: int
    max_considered_actions: int


def search_budget(config: SearchConfig, num_actions: int) -> SearchBudget:
    """The configured size; for each 0, EfficientZero V2's choice for this number of actions.

    A game with continuous actions has 0 actions; its searches choose among candidates.
    """
    num_actions = num_actions or config.root_candidates
    usual = next(SearchBudget(n, m) for most, n, m in _BUDGETS if num_actions <= most)
    return SearchBudget(
        num_simulations=config.num_simulations or usual.num_simulations,
        max_considered_actions=config.max_considered_actions or usual.max_considered_actions,
    )


def eval_simulations(config: Config, num_actions: int) -> int:
    """Number of simulations in an evaluation."""
    return config.eval.num_simulations or search_budget(config.search, num_actions).num_simulations
