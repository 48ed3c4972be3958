"""The ledger of a study on the disk: the request, and the status of each run.

    <dir>/ablation.json                      the request, and of every game all arms
         /cells/<game>/<arm>/seed0.json      how the last attempt ended, how often it failed
                            /seed0.lock      held while a process works on the run (or, if locks
                                             work on one machine only, /seed0.lock.machine)
                            /seed0.log       its output
                            /seed0.run.json  the input of `studies.run_process`
         /runs/<game>/<arm>/seed0/           ordinary run folders

Only the folder of a run decides whether it is done, so lost or damaged notes do no harm.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ez_jax import config
from ez_jax.config import BadInput, Config, paths
from ez_jax.storage import lock, run_folder, safe_files, shared_lock
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.checkpoint_files import read_meta
from ez_jax.storage.checkpoint_items import DamagedCheckpoint
from ez_jax.storage.metrics import EVALUATION, read_metrics
from ez_jax.studies import study
from ez_jax.studies.study import Request, Study


@dataclass(frozen=True)
class StudyRun:
    """What one process trains: one arm of one game, with one seed or several in a pack."""

    config: Config  # of the arm
    seeds: tuple[int, ...]
    folder: Path  # of the ledger
    together: bool = False  # all seeds in one program

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return f"{self.config.game} {self.config.name} seed{'s' * (len(self.seeds) > 1)} {seeds}"

    def configs(self, seeds: Sequence[int] | None = None) -> list[Config]:
        """The whole configuration of its runs, or of some of them."""
        seeded = [dataclasses.replace(self.config, seed=seed) for seed in seeds or self.seeds]
        return [
            dataclasses.replace(chosen, run_dir=str(self.folder / config.run_folder(chosen)))
            for chosen in seeded
        ]

    def file(self, ending: str) -> Path:
        """One of its files in the ledger."""
        runs = config.run_folder(self.config).parent
        seeds = f"seed{self.seeds[0]}"
        if len(self.seeds) > 1:
            seeds = f"seeds{self.seeds[0]}-{self.seeds[-1]}"
        return self.folder / "cells" / runs.relative_to("runs") / f"{seeds}.{ending}"


@dataclass(frozen=True)
class Attempt:
    """The record of the last attempt at a run."""

    status: str = "waiting"  # running | failed | interrupted | done
    reason: str = ""  # of a failure: a sentence
    output: Sequence[str] = ()  # the last lines of its output
    failures: Mapping[str, int] = dataclasses.field(default_factory=dict)  # by invocation


class Ledger:
    """A study in its folder; any number of processes may work on it."""

    def __init__(self, folder: Path, whole: Study):
        """Use `open` or `create`."""
        self.folder, self.study = folder, whole
        self._done: set[Path] = set()  # run folders known to be done

    @classmethod
    def open(cls, folder: Path) -> "Ledger":
        """Open an existing ledger.

        Raises:
          BadInput: there is none, or it is damaged.
        """
        folder = paths.expanded(folder).absolute()
        return cls(folder, study.read(folder))

    @classmethod
    def create(
        cls,
        folder: Path,
        request: Request,
        make_study: Callable[[Request], Study],
    ) -> "Ledger":
        """Create a study, or extend the one in the folder; `make_study` finds the arms.

        Raises:
          BadInput: the folder cannot be written, or has another study; names the difference.
        """
        folder = run_folder.make_run_dir(folder, key="dir")
        with lock.patiently(lambda: shared_lock.take(folder / lock.FILE_NAME)):
            if not (folder / study.FILE_NAME).exists():
                whole = make_study(request)
            else:
                there = study.read(folder)
                whole = make_study(there.request.extended(request, folder))
                study.check_same(folder, there, whole)
            study.write(folder, whole)
        return cls(folder, whole)

    def reload(self) -> None:
        """Read what other processes have added to the request."""
        self.study = study.read(self.folder)

    def runs(self) -> list[StudyRun]:
        """All runs; the first seeds of all arms come first."""
        arms = [
            (game, dataclasses.replace(compared.config(arm), name=arm.name, run_dir=""))
            for game, compared in self.study.comparisons.items()
            for arm in compared.arms
        ]
        found = []
        for group in self.study.request.seeds:
            for i, seed in enumerate(group):
                for game, chosen in arms:
                    is_packed = game in self.study.packed
                    # A pack trains the whole group at the place of its first seed.
                    if not (is_packed and i):
                        seeds = group if is_packed else (seed,)
                        found.append(StudyRun(chosen, seeds, self.folder, is_packed))
        return found

    def missing(self, run: StudyRun) -> tuple[int, ...]:
        """The seeds of a run that are not done."""
        return tuple(chosen.seed for chosen in run.configs(run.seeds) if not self._is_done(chosen))

    def _is_done(self, chosen: Config) -> bool:
        run_dir = Path(chosen.run_dir)
        if run_dir not in self._done and final_score(chosen) is not None and _is_saved(chosen):
            self._done.add(run_dir)
        return run_dir in self._done


def final_score(chosen: Config) -> float | None:
    """The score of the final evaluation; None if a run is not done."""
    run_dir = Path(chosen.run_dir)
    if not (run_dir / run_folder.CONFIG_FILE).exists():
        return None
    try:
        run_folder.check_same_config(run_dir, config.to_dict(chosen))
        lines = read_metrics(run_dir)
    except BadInput:
        return None  # not done: the next process that trains there reports the problem
    found = [
        line[EVALUATION]
        for line in lines
        if EVALUATION in line and _is_end(chosen, line["agent_steps"], line["updates"])
    ]
    return found[-1] if found else None


def seconds_spent(chosen: Config) -> float:
    """The running time recorded in a run folder, in seconds."""
    try:
        lines = read_metrics(chosen.run_dir)
    except BadInput:
        return 0.0
    return max((line.get("seconds", 0.0) for line in lines), default=0.0)


def how_far(run: StudyRun) -> str:
    """The progress of a run in words: of its slowest seed, with its score."""
    furthest_behind = min((_last_lines(chosen) for chosen in run.configs()), key=lambda two: two[0])
    steps, score = furthest_behind
    told = f"{steps:,} of {run.config.total_agent_steps:,} agent steps"
    return f"{told}, last evaluation {score:.5g}" if score is not None else told


def _last_lines(chosen: Config) -> tuple[int, float | None]:
    """Agent steps in the last line of a run's metrics, and the score of its last evaluation."""
    try:
        lines = read_metrics(chosen.run_dir)
    except BadInput:  # not started yet
        return 0, None
    scores = [line[EVALUATION] for line in lines if EVALUATION in line]
    return int(lines[-1]["agent_steps"]) if lines else 0, scores[-1] if scores else None


def _is_end(chosen: Config, agent_steps: float, updates: float) -> bool:
    return agent_steps >= chosen.total_agent_steps and updates >= chosen.total_updates


def _is_saved(chosen: Config) -> bool:
    """Whether the newest checkpoint is the final one."""
    with Checkpointer(chosen.run_dir) as checkpointer:
        newest = checkpointer.latest()
    if newest is None:
        return False
    try:
        content = read_meta(Path(chosen.run_dir) / run_folder.CHECKPOINTS / str(newest))
    except (BadInput, DamagedCheckpoint):
        return False  # as above
    clocks = content["meta"].get("clocks")
    return isinstance(clocks, dict) and _is_end(chosen, newest, clocks.get("updates", 0))


def read_attempt(run: StudyRun) -> Attempt:
    """How the last attempt ended; a lost or damaged record counts as none."""
    try:
        found = safe_files.read_json(run.file("json"))
        attempt = Attempt(**{**found, "output": tuple(found["output"])})
    except (OSError, BadInput, TypeError, KeyError):
        return Attempt()
    counts = attempt.failures.values() if isinstance(attempt.failures, dict) else [None]
    texts = [attempt.status, attempt.reason, *attempt.output]
    is_sound = all(type(n) is int for n in counts) and all(type(text) is str for text in texts)
    return attempt if is_sound else Attempt()


def write_attempt(run: StudyRun, attempt: Attempt) -> None:
    """Record how an attempt ended, or that it has started."""
    text = json.dumps(dataclasses.asdict(attempt), indent=1) + "\n"
    safe_files.write_whole(run.file("json"), text)
