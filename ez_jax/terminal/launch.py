"""The command line of `ez_jax.train`: one run, a sweep, several seeds or a plan.

Hydra provides flags such as `--cfg job`, sweeps and launchers; `presets` composes the settings. JAX
is not imported before a run starts, so that `--help` and refusals are quick and `configure_jax`
can still choose its settings.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ez_jax import config, terminal
from ez_jax.config import BadInput, Config, errors
from ez_jax.system.exits import DONE, FULL_ERRORS, INTERRUPTED, guarded
from ez_jax.system.signals import Interrupt
from ez_jax.terminal import arguments, help_page
from ez_jax.terminal.sweep import Outcome, Sweep, tell

Run = Callable[[Config], int | None]


def main(
    run: Run,
    *,
    plan: Run,
    together: Callable[[Sequence[Config]], int | None],
    description: str,
) -> None:
    """Compose the configuration from the command line, run, and exit with the right code.

    Args:
        run: the command; returns the exit code (None is 0).
        plan: called instead for `plan=true`.
        together: called instead for `seeds=N`, with one configuration per seed.
        description: first paragraph of the help.
    """

    def launch(words: list[str]) -> int | None:
        given, others = arguments.take(words, arguments.OWN)
        own = {**arguments.OWN, **given}
        if own["seeds"] > 1 and own["plan"]:
            raise BadInput("plan=true plans one run: leave out seeds=")
        if own["seeds"] < 1:
            raise BadInput(f"seeds is {own['seeds']}: at least one run is needed")
        if own["plan"]:
            with (
                tempfile.TemporaryDirectory() as record
            ):  # of a sweep: a plan leaves nothing behind
                return _launch(plan, others, record)
        if own["seeds"] > 1:
            return _launch(lambda chosen: together(spread(chosen, own["seeds"])), others)
        return _launch(run, others)

    terminal.start(launch, lambda: help_page.render(description))


def spread(chosen: Config, seeds: int) -> list[Config]:
    """The configurations of this many runs, with consecutive seeds.

    Raises:
        BadInput: they would share one folder.
    """
    if chosen.run_dir:
        raise BadInput(f"run_dir is one folder for {seeds} runs: set name= instead")
    return [dataclasses.replace(chosen, seed=chosen.seed + i) for i in range(seeds)]


def _launch(run: Run, words: Sequence[str], record: str = "") -> int:
    """Let Hydra call the job once, or once per run of a sweep; returns the exit code."""
    settings, hydras = arguments.split(words)
    if {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(words):
        if any(word.startswith(("--cfg", "-c", "--info")) for word in hydras):
            raise BadInput("--cfg and --info are for one run: leave out -m")
        overrides = arguments.parse(settings, sweep=True)
        hydras += map(arguments.for_sweeper, overrides)
        return _launch_sweep(run, hydras, Sweep.begin(record))
    node = arguments.configuration(arguments.parse(settings))

    def job(node: DictConfig) -> None:
        sys.exit(guarded(lambda: run(arguments.finish(node))))

    call_by_hydra(job, OmegaConf.to_container(node), hydras)
    return DONE


def _launch_sweep(run: Run, words: Sequence[str], sweep: Sweep) -> int:
    """Let Hydra's launcher call the job for every run; returns the exit code of the sweep."""
    full_errors = FULL_ERRORS  # of this process, not of the process of a run

    def job(node: DictConfig) -> None:
        # This runs in the process of a run, perhaps on another machine.
        if sweep.is_stopped():
            return
        hydras, reason = HydraConfig.get(), []
        number, words = hydras.job.num + 1, list(hydras.overrides.task)

        def attempt() -> int | None:
            try:
                with sweep.running():
                    chosen = _configuration(words, node)
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

    try:
        with Interrupt(sweep.stop):  # waits until all runs end
            call_by_hydra(job, config.to_dict(Config()), words, sweep.folder)
    finally:
        failures = sweep.failures()
        tell(failures)
    if sweep.is_stopped():
        return INTERRUPTED
    return failures[0].code if failures else DONE


def _configuration(words: Sequence[str], node: DictConfig) -> Config:
    """The configuration of one run of a sweep, with its own folder."""
    own = arguments.configuration(OverridesParser.create().parse_overrides(list(words)))
    OmegaConf.copy_cache(from_config=node, to_config=own)  # ${now:} is the start of the sweep
    is_named = any(word.startswith("name=") for word in words)
    return arguments.finish(own, name="" if is_named else arguments.run_name(words))


def call_by_hydra(
    job: Callable[[DictConfig], None],
    values: Any,
    words: Sequence[str],
    folder: str | Path = ".",
) -> None:
    """Let Hydra call a job with these values, once, or from a launcher for every run of a sweep.

    `words` are flags, Hydra's own keys and the swept keys; `folder` is that of the sweep.

    Raises:
        BadInput: Hydra refuses the words.
    """
    # Hydra's handlers would print the logs of every library.
    silent = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
    hydras = {
        # No outputs/ folder: a run has its own. A sweep leaves a record of its command.
        "run": {"dir": "."},
        "sweep": {"dir": str(folder), "subdir": "."},
        "output_subdir": None,
        "job": {"name": "ez_jax", "chdir": False},
    }
    node = {"defaults": ["_self_", *silent], **values, "hydra": hydras}
    ConfigStore.instance().store(name="config", node=node)
    sys.argv[1:] = words
    # By default Hydra shortens tracebacks and always exits with 1. With full errors enabled, it
    # passes them on to `guarded`.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=None, config_name="config")(job)()
    except OverrideParseException as error:
        raise BadInput(arguments.unreadable(error.override)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(arguments.first_line(error)) from error
