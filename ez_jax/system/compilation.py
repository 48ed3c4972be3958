"""Settings of JAX, and compiling, which takes long enough to be told of."""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ez_jax.config import BadInput, paths
from ez_jax.system import watchdog

NO_CACHE = (
    "compiled programs are not kept, as nobody knows the home folder: every start compiles anew; "
    "set HOME or JAX_COMPILATION_CACHE_DIR"
)

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


def configure_jax(*, alone: bool = True) -> None:
    """Settings of JAX itself; call it before the first computation.

    Compiled programs are kept in `~/.cache/ez_jax/xla`, or where JAX_COMPILATION_CACHE_DIR says
    (an empty value switches the cache off). The user's own JAX_* and XLA_* variables win.

    Args:
      alone: whether no other process has to be met first; then the device is looked for.

    Raises:
      BadInput: there is no such device as JAX_PLATFORMS asks for.
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
            f"warning: compiled programs are not kept, as {folder} cannot be made "
            f"({error.strerror}): every start compiles anew; set JAX_COMPILATION_CACHE_DIR\n"
        )
    # A folder that can be read alone, or is full, is as good as it is: JAX would say so of each
    # program. `python -m ez_jax.doctor` looks at it.
    warnings.filterwarnings("ignore", message="Error writing persistent compilation cache")
    # A small network is many small programs: keep those too.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if alone:
        check_device()


def check_device() -> None:
    """Have JAX find its devices.

    Raises:
      BadInput: it cannot.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:  # what JAX raises depends on the plugin; some assert
        asked = os.environ.get("JAX_PLATFORMS", "")
        wish = f"what JAX_PLATFORMS={asked} asks for" if asked else "any device"
        told = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0]
        why = f" ({told})" if told else ""
        raise BadInput(
            f"JAX cannot use {wish}{why}: unset JAX_PLATFORMS, or set it to cpu for the processor; "
            "`python -m ez_jax.doctor` looks at the installation"
        ) from error
