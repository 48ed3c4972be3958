"""Settings of JAX, and compiling, which takes long enough to be told of."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ez_jax.system import watchdog

Compiling = Callable[[str], AbstractContextManager[None]]  # as `terminal.progress` has it


def announced(compiling: Compiling, what: str, function: Any) -> Callable[..., Any]:
    """A jitted function that is compiled once, at its first call, and says so."""
    compiled: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if not compiled:
            with compiling(what), watchdog.at(f"compiling {what}"):
                compiled.append(function.lower(*args).compile())
        return compiled[0](*args)

    return call


def configure_jax() -> None:
    """Settings of JAX itself; call it before the first computation.

    Compiled programs are kept in `~/.cache/ez_jax/xla`, or where JAX_COMPILATION_CACHE_DIR says
    (an empty value switches the cache off). The user's own JAX_* and XLA_* variables win.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/ez_jax/xla"))
    # A small network is many small programs: keep those too.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
