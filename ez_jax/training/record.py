"""One of the runs that a program trains: its folder and its clocks (`vmapped.py`)."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import yaml

from ez_jax import config as configs
from ez_jax.agent import complaints, diagnostics, schedules
from ez_jax.config import BadInput, Config
from ez_jax.evaluation import on_track
from ez_jax.evaluation.scores import Games, scores, summary
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer, Restored
from ez_jax.storage.crash_bundle import FOLDER
from ez_jax.storage.lock import RunLock
from ez_jax.storage.metrics import EVALUATION, MetricsWriter, last_written, means
from ez_jax.structs import Clocks, Prepared, TrainState
from ez_jax.terminal.progress import Progress
from ez_jax.training import saving
from ez_jax.training.vmapped_program import Lane

ITEM = "lane"  # of a checkpoint: what a run needs to go on beside others


class Member:
    """One of the runs: its folder and its clocks."""

    def __init__(self, config: Config, progress: Progress, opened: contextlib.ExitStack):
        """Take the folder; writes nothing but the lock.

        Raises:
          BadInput: another process has it, or it holds another configuration.
        """
        self.config, self._progress = config, progress
        self._diagnose = complaints.Watch(config)
        self.folder = run_folder.make_run_dir(configs.run_folder(config))
        opened.enter_context(RunLock(self.folder, progress.warn))
        self.is_new = run_folder.is_new(self.folder)
        if not self.is_new:
            run_folder.check_same_config(self.folder, configs.to_dict(config))
        checkpoint = config.checkpoint
        self.checkpointer = Checkpointer(self.folder, checkpoint.keep, progress.warn)
        opened.callback(self.checkpointer.close)
        self.checkpointer.tidy_up()
        self.clocks = Clocks()
        self.done_at: dict[str, Clocks] = {}

    def open(self, clocks: Clocks, num_actions: int, opened: contextlib.ExitStack) -> None:
        """Begin to write, from these clocks on."""
        self._num_actions = num_actions
        as_given, log = configs.to_dict(self.config), self.config.log
        if self.is_new:
            run_folder.write_config(self.folder, as_given)
        self.writer = MetricsWriter(self.folder, tensorboard=log.tensorboard)
        opened.callback(self.writer.close)
        self.writer.truncate_after(clocks if clocks.agent_steps else Clocks(agent_steps=-1))
        if not clocks.agent_steps:
            self.writer.write_config(yaml.safe_dump(as_given, sort_keys=False))
        self.writer.write_references(on_track.series(self.config), clocks.agent_steps or -1)
        self.clocks, self._began = clocks, time.perf_counter() - clocks.seconds
        self._saved_at = time.perf_counter()
        # From when it was last done, not from now: what a signal left out is due.
        self.done_at = last_written(self.folder, Clocks()) | {"save": clocks}
        self._is_due = {
            what: Every(period, schedules.way(self.config, self.done_at[what]))
            for what, period in self.periods.items()
        }

    def restore(self, like: Mapping[str, Any]) -> Restored | None:
        """The newest sound checkpoint, if there is any.

        Raises:
          BadInput: it is that of a run by itself.
        """

        def template(meta: Mapping[str, Any]) -> Mapping[str, Any]:
            if not meta.get("together"):
                raise BadInput(
                    f"{self.folder} holds a run that was trained by itself: go on without seeds=, "
                    "or choose another name="
                )
            return like

        return self.checkpointer.restore_newest(template)

    @property
    def periods(self) -> dict[str, int]:
        """Agent steps between two of each."""
        config = self.config
        every = config.log.every, config.eval.every, config.checkpoint.every
        return dict(zip(("log", "evaluate", "save"), every, strict=True))

    def tick(self, lane: Lane) -> None:
        """Read the clocks of a lane, whose arrays are on the host."""
        steps, updates = int(lane.agent_steps), int(lane.run.train.updates)
        seconds = time.perf_counter() - self._began
        self.clocks = Clocks(agent_steps=steps, env_frames=steps, updates=updates, seconds=seconds)

    def due(self) -> set[str]:
        """What has to be done now."""
        way, minutes = schedules.way(self.config, self.clocks), self.config.checkpoint.minutes
        due = {what for what, is_due in self._is_due.items() if is_due(way)}
        waited = (time.perf_counter() - self._saved_at) / 60
        return due | ({"save"} if 0 < minutes <= waited else set())

    def missing(self, wanted: Sequence[str]) -> set[str]:
        """What was last done at other clocks than the present ones."""
        now = self.clocks.agent_steps, self.clocks.updates
        done = {what: (at.agent_steps, at.updates) for what, at in self.done_at.items()}
        return {what for what in wanted if done[what] != now}

    @property
    def has_more(self) -> bool:
        """Whether there is more to play or to learn."""
        config, clocks = self.config, self.clocks
        in_play = clocks.agent_steps < config.total_agent_steps
        return in_play or clocks.updates < config.total_updates

    def next_stop(self) -> tuple[int, int]:
        """Agent steps and updates where something is due next."""
        config, clocks = self.config, self.clocks
        if clocks.agent_steps < config.total_agent_steps:
            stops = [(clocks.agent_steps // n + 1) * n for n in self.periods.values() if n]
            return min([*stops, config.total_agent_steps]), 0
        updates, way = clocks.updates, schedules.way(config, clocks)
        while updates < config.total_updates:
            updates += schedules.updates_left(config, dataclasses.replace(clocks, updates=updates))
            ahead = schedules.way(config, dataclasses.replace(clocks, updates=updates))
            if any(ahead // n > way // n for n in self.periods.values() if n):
                break
        return config.total_agent_steps, updates

    def log(self, lane: Lane) -> dict[str, float]:
        """One line of metrics; `lane` as in `tick`."""
        metrics, done = diagnostics.readings(means(lane.run.metrics)), lane.finished
        if done.games:
            metrics |= {"rollout/return": done.score / done.games}
            metrics |= {"rollout/length": done.length / done.games, "rollout/games": done.games}
        metrics["opt/skipped"] = int(lane.run.train.skipped)
        self.writer.write(self.clocks, metrics)
        for sentence in self._diagnose(self.clocks.updates, metrics):
            self._progress.warn(f"{self.folder}: {sentence}")
        limit, skipped = self.config.learner.max_skipped, int(lane.run.train.skipped_in_a_row)
        if limit and skipped >= limit:
            raise FloatingPointError(
                f"the last {skipped} updates in a row of {self.folder} were not finite and were "
                f"skipped (learner.max_skipped={limit}); trained alone, without seeds=, this run "
                "leaves what is needed to look into it"
            )
        return metrics

    def evaluate(self, games: Games, train: TrainState) -> dict[str, float]:
        """Write the score of the games that it played."""
        run_folder.write_scores(
            self.folder, scores(self.config, self._num_actions, games), self.clocks
        )
        measured = summary(self.config, games)
        if self.config.checkpoint.keep_best:
            score = measured[EVALUATION]
            saving.save_best(self.checkpointer, train, self.clocks, score)
        self.writer.write(self.clocks, measured)
        return measured

    def save(self, lane: Lane) -> None:
        """Save everything; the writing goes on in the background."""
        self.writer.sync()
        state = {"train": lane.run.train, ITEM: without_train(lane)}
        meta = {"clocks": dataclasses.asdict(self.clocks), "together": True}
        self.checkpointer.save(self.clocks.agent_steps, state, meta)
        self._saved_at = time.perf_counter()


def without_train(lane: Lane) -> Lane:
    """What is saved of a lane beside its learner; its numbers are settings."""
    return lane.replace(run=lane.run.replace(train=None), numbers={})


class Every:
    """Tells, from the clock alone, when something periodic is due.

    Fires once whenever the clock crosses a multiple of `period`, however large the step was. Made
    with the clock of the restored checkpoint, it goes on as if the run had not been stopped.
    """

    def __init__(self, period: int, now: int = 0):
        """`period` and `now` are readings of one clock, say agent_steps; period 0 never fires."""
        if period < 0:
            raise ValueError(f"a period cannot be negative: {period}")
        self._period = period
        self._crossed = now // period if period else 0

    def __call__(self, now: int) -> bool:
        """Whether a multiple of the period was crossed since the last call."""
        if not self._period:
            return False
        before, self._crossed = self._crossed, now // self._period
        return self._crossed > before


class LastUpdate(NamedTuple):
    """The newest update that was dispatched."""

    number: int  # updates made before it
    group: Prepared  # that it is one of
    i: int  # its place among them
    key: jax.Array  # that the draws of every update are made from


def check_skipped(train: TrainState, config: Config, folder: Path) -> None:
    """Give up once `learner.max_skipped` updates in a row were not finite.

    Raises:
      FloatingPointError: they were. What was skipped has changed nothing, so that the state and the
        last batch show the fault again.
    """
    limit, in_a_row = config.learner.max_skipped, int(jax.device_get(train.skipped_in_a_row))
    if limit and in_a_row >= limit:
        raise FloatingPointError(
            f"the last {in_a_row} updates in a row were not finite and were skipped "
            f"(learner.max_skipped={limit}); the crash bundle in {folder / FOLDER} holds the last "
            f"of them: `python -m ez_jax.replay_crash {folder}` makes it again and says where"
        )
