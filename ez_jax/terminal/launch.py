"""The command line of ez_jax: Hydra, forgiving spelling, one sentence per mistake, exit codes.

Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted. `main` is what `ez_jax.train` calls;
commands without Hydra use `guarded` with `arguments.read`. JAX is not imported here before a run
starts: `--help` and refusals are quick, and `configure_jax` can still choose its settings.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ez_jax import config
from ez_jax.config import BadInput, Config, errors
from ez_jax.system.exits import _FULL_ERRORS, DONE, INTERRUPTED, guarded
from ez_jax.system.signals import HandedOn
from ez_jax.terminal import arguments, help_page
from ez_jax.terminal.sweep import Outcome, Sweep, tell

Run = Callable[[Config], int | None]


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

    def launch() -> int | None:
        given, others = arguments.take(words, arguments.OWN)
        own = {**arguments.OWN, **given}
        if own["seeds"] > 1 and own["plan"]:
            raise BadInput("plan=true plans one run: leave seeds= out")
        if own["seeds"] < 1:
            raise BadInput(f"seeds is {own['seeds']}: at least one run is needed")
        if own["plan"]:
            return _launch_plan(plan, others)
        if own["seeds"] > 1:
            return _launch(lambda chosen: together(spread(chosen, own["seeds"])), others)
        return _launch(run, others)

    sys.exit(guarded(launch))


def spread(chosen: Config, seeds: int) -> list[Config]:
    """The configurations of so many runs, from the seed given on.

    Raises:
        BadInput: they would have one folder.
    """
    if chosen.run_dir:
        raise BadInput(f"run_dir is one folder, but seeds={seeds} are as many runs: give a name=")
    return [dataclasses.replace(chosen, seed=chosen.seed + i) for i in range(seeds)]


def _launch_plan(plan: Run, words: Sequence[str]) -> int | None:
    """Launch what plans a run, which leaves nothing behind."""
    if not arguments.is_multirun(words):
        return _launch(plan, words)
    with tempfile.TemporaryDirectory() as record:  # what is noted of a sweep
        return _launch(plan, words, record)


def _launch(run: Run, words: Sequence[str], record: str = "") -> int | None:
    """Give the words to Hydra, which calls the job once, or once for every cell of a sweep."""
    arguments.register_base()
    sys.argv[1:] = arguments.rewrite(words)
    # By itself Hydra cuts tracebacks and exits with 1 whatever happened; when asked for full
    # errors it lets them through to `guarded`.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if arguments.is_multirun(words):
        return _launch_sweep(run, Sweep.begin(record))

    def job(node: DictConfig) -> None:
        sys.exit(guarded(lambda: run(_read(node))))

    _give_to_hydra(job)
    return DONE


def _launch_sweep(run: Run, sweep: Sweep) -> int:
    """Have Hydra's launcher call the job for every cell; the exit code of them all."""
    full_errors = _FULL_ERRORS  # of this process, not of a cell's

    def job(node: DictConfig) -> None:
        # In the process of a cell, which may be one on another machine.
        if sweep.is_stopped():
            return
        hydras, reason = HydraConfig.get(), []
        number, words = hydras.job.num + 1, list(hydras.overrides.task)

        def attempt() -> int | None:
            try:
                with sweep.cell():
                    chosen = _read(node, words)
                    sys.stdout.write(f"sweep, run {number}: {config.run_folder(chosen)}\n")
                    return run(chosen)
            except Exception as error:
                name = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
                reason.append(errors.one_line(f"{name}{error}"))
                raise

        code = guarded(attempt, full_errors=full_errors)
        sweep.note(Outcome(number, code, "".join(reason), " ".join(words)))
        if code == INTERRUPTED:
            sweep.stop()

    if not any(word.startswith("hydra.sweep.dir=") for word in sys.argv):
        sys.argv.append(f"hydra.sweep.dir={arguments.quote(str(sweep.folder))}")
    try:
        with HandedOn(sweep.stop):  # waits for the end of all cells
            _give_to_hydra(job)
    finally:
        failures = sweep.failures()
        tell(failures)
    if sweep.is_stopped():
        return INTERRUPTED
    return failures[0].code if failures else DONE


def _give_to_hydra(job: Callable[[DictConfig], None]) -> None:
    with hydra_in_sentences():
        hydra.main(version_base="1.3", config_path=None, config_name="config")(job)()


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


def _read(node: DictConfig, words: Sequence[str] | None = None) -> Config:
    """The configuration of a run; one of a sweep, with these words, gets a folder of its own."""
    values = OmegaConf.to_container(node, resolve=True)
    is_named = words is None or any(word.startswith("name=") for word in words)
    if not is_named:
        values["name"] = arguments.cell_name(words)
    return config.validate(config.from_dict(values))


def _first_line(error: Exception) -> str:
    """What Hydra has to say, without its advice on its own use."""
    return str(error).strip().partition("\n")[0]
