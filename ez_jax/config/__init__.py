"""Every setting of a run: settings, presets, checks, and the games by name.

This folder imports neither JAX nor another part of the package.
"""

from ez_jax.config.checks import validate
from ez_jax.config.conversion import (
    convert,
    dotted_keys,
    flatten,
    from_dict,
    override,
    to_dict,
    unknown_key,
)
from ez_jax.config.errors import BadInput
from ez_jax.config.paths import run_folder
from ez_jax.config.search_budget import SearchBudget, eval_simulations, search_budget
from ez_jax.config.settings import (
    Config,
    EnvConfig,
    LearnerConfig,
    NetworkConfig,
    SearchConfig,
)

__all__ = [
    "BadInput",
    "Config",
    "EnvConfig",
    "LearnerConfig",
    "NetworkConfig",
    "SearchBudget",
    "SearchConfig",
    "convert",
    "dotted_keys",
    "eval_simulations",
    "flatten",
    "from_dict",
    "override",
    "run_folder",
    "search_budget",
    "to_dict",
    "unknown_key",
    "validate",
]
