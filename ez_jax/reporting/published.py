"""Published scores and curves of a game, from `ez_jax.references` where that is there."""

import importlib
import importlib.util
from types import ModuleType
from typing import Any

REFERENCES = "ez_jax.references"


def scores(game: str) -> tuple[Any, ...]:
    """Scores that others published for a game."""
    module = _references()
    return tuple(module.scores(game)) if module else ()


def curves(game: str) -> tuple[Any, ...]:
    """Learning curves that others published for a game."""
    module = _references()
    return tuple(module.curves(game)) if module else ()


def _references() -> ModuleType | None:
    return importlib.import_module(REFERENCES) if importlib.util.find_spec(REFERENCES) else None
