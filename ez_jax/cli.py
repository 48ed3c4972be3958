"""The command line of ez_jax: Hydra, forgiving spelling, one sentence per mistake, exit codes.

Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted. `main` is what `ez_jax.train` calls;
commands without Hydra use `guarded` with `arguments.read`. JAX is not imported here before a run
starts: `--help` and refusals are quick, and `configure_jax` can still choose its settings.
"""

import contextlib
import dataclasses
import errno
import os
import select
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ez_jax import arguments, config, help_page
from ez_jax.config import BadInput, Config

Run = Callable[[Config], int | None]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# The user's wish, read before Hydra is told to keep its hands off errors (see `_launch`).
_FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR") == "1"


class _CellFailed(RuntimeError):
    """One job of a sweep ended with an exit code; the reason is on the screen already."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def main(
    run: Run,
    *,
    plan: Run | None = None,
    together: Callable[[Sequence[Config]], int | None] | None = None,
    description: str = "",
) -> None:
    """Compose the configuration from the command line, run, and exit with the right code.

    Args:
        run: the command; what it returns is the exit code (None is 0).
        plan: what is done instead where the command line says `plan=true`.
        together: what is done instead, with a configuration for each, where it says `seeds=N`.
        description: first paragraph of the help.
    """
    words = sys.argv[1:]
    if {"--help", "-h"} & set(words):
        sys.stdout.write(help_page.render(description))
        sys.exit(DONE)

    def launch() -> None:
        given, others = arguments.take(words, arguments.OWN)
        own = {**arguments.OWN, **given}
        if own["seeds"] > 1 and own["plan"]:
            raise BadInput("plan=true plans one run: leave seeds= out")
        if own["seeds"] < 1:
            raise BadInput(f"seeds is {own['seeds']}: at least one run is needed")
        if own["plan"]:
            _launch_plan(plan, others)
        elif own["seeds"] > 1:
            _launch(lambda chosen: together(spread(chosen, own["seeds"])), others)
        else:
            _launch(run, others)

    sys.exit(guarded(launch))


def spread(chosen: Config, seeds: int) -> list[Config]:
    """The configurations of so many runs, from the seed given on.

    Raises:
        BadInput: they would have one folder.
    """
    if chosen.run_dir:
        raise BadInput(f"run_dir is one folder, but seeds={seeds} are as many runs: give a name=")
    return [dataclasses.replace(chosen, seed=chosen.seed + i) for i in range(seeds)]


def guarded(action: Callable[[], int | None]) -> int:
    """Do something and return its exit code, with what went wrong told on stderr."""
    try:
        code = action() or DONE
        sys.stdout.flush()
        return code
    except BadInput as error:
        if _FULL_ERRORS:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 the outermost frame: told in full, then the exit code
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return FAILED
        traceback.print_exc()
        if _is_full_disk(error):
            sys.stderr.write(
                "error: the disk is full; make room and give the same command again: a run goes on "
                "from its last checkpoint\n"
            )
        return FAILED


def _nobody_reads() -> bool:
    """Whether the reader of our output is gone, as `| head` is; then what is left goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLERR)
    if is_gone := bool(poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, tells of no space or no quota left."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return _is_full_disk(error.__cause__ or error.__context__)


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


def _launch_plan(plan: Run, words: Sequence[str]) -> None:
    """Launch what plans a run, which leaves nothing behind."""
    if not arguments.is_multirun(words):
        return _launch(plan, words)
    with tempfile.TemporaryDirectory() as record:  # what Hydra notes of a sweep
        return _launch(plan, [*words, f"hydra.sweep.dir={arguments.quote(record)}"])


def _launch(run: Run, words: Sequence[str]) -> None:
    """Give the words to Hydra, which calls the job once, or once for every cell of a sweep."""
    arguments.register_base()
    sys.argv[1:] = arguments.rewrite(words)
    # By itself Hydra cuts tracebacks and exits with 1 whatever happened; when asked for full
    # errors it lets them through to `guarded`.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @hydra.main(version_base="1.3", config_path=None, config_name="config")
    def job(node: DictConfig) -> None:
        code = guarded(lambda: _run_job(run, node))
        # An interrupt ends a sweep, a failure only its cell.
        if code == INTERRUPTED or not _in_sweep():
            sys.exit(code)
        if code:
            raise _CellFailed(code)

    try:
        with hydra_in_sentences():
            job()
    except _CellFailed as failed:
        sys.exit(failed.code)


def compose(words: Sequence[str]) -> Config:
    """The configuration that these words give to the training command.

    Raises:
        BadInput: they cannot be read, or no run is possible with it.
    """
    arguments.register_base()
    overrides = arguments.rewrite(words)
    with hydra_in_sentences(), hydra.initialize(version_base="1.3", config_path=None):
        node = hydra.compose("config", overrides=overrides)
        values = OmegaConf.to_container(node, resolve=True)
    return config.validate(config.from_dict(values))


@contextlib.contextmanager
def hydra_in_sentences() -> Iterator[None]:
    """What Hydra refuses is bad input of the user's."""
    try:
        yield
    except OverrideParseException as error:
        raise BadInput(arguments.unreadable(error.override)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(_first_line(error)) from error


def _run_job(run: Run, node: DictConfig) -> int | None:
    values = OmegaConf.to_container(node, resolve=True)
    if _in_sweep():
        _place_cell(values)
    chosen = config.validate(config.from_dict(values))
    if _in_sweep():
        number = HydraConfig.get().job.num
        sys.stdout.write(f"sweep, run {number + 1}: {config.run_folder(chosen)}\n")
    return run(chosen)


def _place_cell(values: dict[str, Any]) -> None:
    """Give each cell of a sweep a folder of its own, unless the user named it."""
    overrides = list(HydraConfig.get().overrides.task)
    if not any(override.startswith("name=") for override in overrides):
        values["name"] = arguments.cell_name(overrides)


def _in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _first_line(error: Exception) -> str:
    """What Hydra has to say, without its advice on its own use."""
    return str(error).strip().partition("\n")[0]
