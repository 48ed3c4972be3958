"""EfficientZero in JAX: https://arxiv.org/abs/2111.00210.

Names are imported on first use, so that commands can answer before JAX is loaded.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Agent": "evaluation.trained_agent",
    "BadInput": "config",
    "Config": "config",
    "Embedding": "structs",
    "EnvSpec": "structs",
    "Model": "agent.model",
    "Root": "structs",
    "inspect_run": "inspection.inspect_run",
    "load": "evaluation.trained_agent",
    "make_config": "config.presets",
    "make_env": "envs",
    "make_model": "agent.model",
    "make_recurrent_fn": "agent.search",
    "make_search": "agent.search",
    "play": "evaluation.trained_agent",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ez_jax' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ez_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
