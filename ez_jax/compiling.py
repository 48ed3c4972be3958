"""Compiling, which takes long enough to be told of."""

from collections.abc import Callable
from typing import Any

from ez_jax import watchdog
from ez_jax.progress import Progress


def announced(progress: Progress, what: str, function: Any) -> Callable[..., Any]:
    """A jitted function that is compiled once, at its first call, and says so."""
    compiled: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if not compiled:
            with progress.compiling(what), watchdog.at(f"compiling {what}"):
                compiled.append(function.lower(*args).compile())
        return compiled[0](*args)

    return call
