"""Settings of JAX, and compilation with progress messages."""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ez_jax.config import BadInput, paths
from ez_jax.system import watchdog

NO_CACHE = (
    "compiled programs are not cached because there is no home folder; every start compiles again: "
    "set HOME or JAX_COMPILATION_CACHE_DIR"
)

Compiling = Callable[[str], AbstractContextManager[None]]  # as in `terminal.progress`


def announced(compiling: Compiling, what: str, function: Any) -> Callable[..., Any]:
    """A jitted function that is compiled at its first call, with a message."""
    compiled: list[Callable[..., Any]] = []

    def call(*args: Any) -> Any:
        if not compiled:
            with compiling(what), watchdog.at(f"compiling {what}"):
                compiled.append(function.lower(*args).compile())
        return compiled[0](*args)

    return call


def configure_jax(*, alone: bool = True) -> None:
    """Configure JAX; call this before the first computation.

    Compiled programs are cached in `~/.cache/ez_jax/xla`, or in JAX_COMPILATION_CACHE_DIR (an empty
    value switches the cache off). JAX_* and XLA_* environment variables take precedence.

    Args:
      alone: whether this process need not wait for others; then the device is checked.

    Raises:
      BadInput: the device in JAX_PLATFORMS does not exist.
    """
    import jax

    try:
        asked = os.environ.get("JAX_COMPILATION_CACHE_DIR")
        folder = str(paths.expanded("~/.cache/ez_jax/xla")) if asked is None else asked
        jax.config.update("jax_compilation_cache_dir", folder or None)
        if folder and "://" not in folder:  # what is no bucket
            os.makedirs(folder, exist_ok=True)
    except BadInput:  # a container whose user has no name
        sys.stderr.write(f"warning: {NO_CACHE}\n")
    except OSError as error:
        jax.config.update("jax_compilation_cache_dir", None)
        sys.stderr.write(
            f"warning: compiled programs are not cached because {folder} cannot be created "
            f"({error.strerror}), and every start compiles again; set JAX_COMPILATION_CACHE_DIR\n"
        )
    # JAX would warn of a read-only or full folder once per program; `python -m ez_jax.doctor`
    # checks it instead.
    warnings.filterwarnings("ignore", message="Error writing persistent compilation cache")
    # A small network has many small programs: cache those, too.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if alone:
        check_device()


def check_device() -> None:
    """Let JAX find its devices.

    Raises:
      BadInput: it cannot.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:  # the exception depends on the plugin; some assert
        asked = os.environ.get("JAX_PLATFORMS", "")
        wish = f"the device of JAX_PLATFORMS={asked}" if asked else "any device"
        told = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0]
        why = f" ({told})" if told else ""
        raise BadInput(
            f"JAX cannot use {wish}{why}: unset JAX_PLATFORMS, or set it to cpu; "
            "`python -m ez_jax.doctor` checks the installation"
        ) from error
