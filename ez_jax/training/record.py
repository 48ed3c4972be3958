"""What a run writes, and when: folder, clocks, metrics, scores and checkpoints.

Used by single runs (`run.py`) and by runs in one program (`vmapped.py`): they train, and ask their
`Record` what is due.
"""

import contextlib
import dataclasses
import functools
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path

import yaml

from ez_jax import config as configs
from ez_jax.agent import complaints, diagnostics, schedules
from ez_jax.config import Config
from ez_jax.evaluation import on_track
from ez_jax.evaluation.scores import Games, scores, summary, while_training
from ez_jax.storage import run_folder, weights_and_biases
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.lock import RunLock
from ez_jax.storage.metrics import EVALUATION, MetricsWriter, last_written, means
from ez_jax.storage.weights_and_biases import WandbWriter
from ez_jax.structs import Clocks, EnvSpec, Sums, TrainState
from ez_jax.system import processes
from ez_jax.terminal.progress import Progress, duration, score_text
from ez_jax.training import saving

LOG, EVALUATE, SAVE = "log", "evaluate", "save"  # periodic tasks, in this order


class Record:
    """The folder of one run, and its clocks."""

    def __init__(
        self,
        config: Config,
        progress: Progress,
        opened: contextlib.ExitStack,
        *,
        is_alone: bool = True,
    ):
        """Lock the folder until `opened` is closed; writes nothing else.

        With several processes the first has the folder, and the output of the others is discarded.
        `is_alone` is whether no other run shares the program.

        Raises:
          BadInput: another process has it, or it has another configuration.
        """
        if config.log.wandb:
            weights_and_biases.check_installed()
        self.config, self.clocks = config, Clocks()
        self._is_alone, self._warn = is_alone, progress.warn
        self._measured: dict[str, float] = {}  # the last evaluation of this process
        keep = config.checkpoint.keep
        self.checkpointer = Checkpointer(configs.run_folder(config), keep, progress.warn)
        opened.callback(self.checkpointer.close)
        self._is_new = processes.by_first(self._take_folder, opened)
        if not processes.is_first():
            self.folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))

    def _take_folder(self, opened: contextlib.ExitStack) -> bool:
        """Whether the folder is new."""
        folder = configs.run_folder(self.config).absolute()
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        opened.callback(run_folder.drop_empty, made)  # nothing stays of a refused run
        self.folder = run_folder.make_run_dir(folder)
        opened.enter_context(RunLock(self.folder, self._warn))
        is_new = run_folder.is_new(self.folder)
        if not is_new:
            run_folder.check_same_config(self.folder, configs.to_dict(self.config))
        self.checkpointer.tidy_up()
        return is_new

    def open(self, spec: EnvSpec, saved: Clocks | None, opened: contextlib.ExitStack) -> None:
        """Start to write, after a checkpoint at these clocks or from the beginning."""
        config, as_given = self.config, configs.to_dict(self.config)
        self._spec, self.clocks = spec, saved or Clocks()
        if self._is_new:
            run_folder.write_config(self.folder, as_given)
        is_first, log = processes.is_first(), config.log
        wandb = WandbWriter(self.folder, self._say, as_given) if log.wandb and is_first else None
        is_drawn = log.tensorboard and is_first
        self.writer = MetricsWriter(self.folder, tensorboard=is_drawn, wandb=wandb)
        opened.callback(self.writer.close)
        # Drop the lines of a run that never saved anything.
        dropped = self.writer.truncate_after(saved or Clocks(agent_steps=-1))
        if saved is None:
            if dropped:
                self._say(f"no checkpoint: starts again and drops {dropped} lines of metrics")
            self.writer.write_config(yaml.safe_dump(as_given, sort_keys=False))
        self.writer.write_references(on_track.series(config), saved.agent_steps if saved else -1)
        self._diagnose = complaints.Watch(config)
        self._last_save = time.perf_counter()
        self._began = self._last_save - self.clocks.seconds
        self._done_at = {SAVE: self.clocks}
        for what, (agent_steps, updates) in processes.by_first(last_written, self.folder).items():
            self._done_at[what] = Clocks(agent_steps=agent_steps, updates=updates)

    def set_clocks(self, agent_steps: int, updates: int) -> None:
        """Set the clocks."""
        self.clocks = dataclasses.replace(
            self.clocks,
            agent_steps=agent_steps,
            env_frames=agent_steps * self._spec.frame_skip,
            updates=updates,
        )

    def now(self) -> Clocks:
        """The clocks, with the seconds until now."""
        return dataclasses.replace(self.clocks, seconds=time.perf_counter() - self._began)

    @property
    def is_complete(self) -> bool:
        """Whether all steps and updates are done, so that an evaluation now is the final one."""
        config, clocks = self.config, self.clocks
        is_played = clocks.agent_steps >= config.total_agent_steps
        return is_played and clocks.updates >= config.total_updates

    @property
    def limit(self) -> int:
        """The configured limit of an episode, in agent steps, for an evaluation now."""
        config = self.config if self.is_complete else while_training(self.config)
        return config.env.eval_max_episode_steps

    def due(self) -> set[str]:
        """The tasks that are due, including an evaluation that a signal interrupted."""
        clock = functools.partial(schedules.periodic_clock, self.config)
        return {
            what
            for what, period in periods(self.config).items()
            if schedules.has_crossed(period, clock(self._done_at[what]), clock(self.clocks))
        }

    def overdue(self) -> set[str]:
        """A save, if `checkpoint.minutes` have passed since the last."""
        minutes, waited = self.config.checkpoint.minutes, time.perf_counter() - self._last_save
        return {SAVE} if 0 < minutes <= waited / 60 else set()

    def missing(self, wanted: Set[str]) -> set[str]:
        """Those tasks that were not done at the current clocks."""
        return {what for what in wanted if self._done_at[what].counts != self.clocks.counts}

    def log(self, sums: Sums, games: dict[str, float], train: TrainState) -> dict[str, float]:
        """Write a line of metrics, from the sums and the finished episodes."""
        metrics = diagnostics.readings(means(sums)) | games | {"opt/skipped": int(train.skipped)}
        self.writer.write(self.now(), metrics)
        self._done_at[LOG] = self.clocks
        return metrics

    def check(self, metrics: Mapping[str, float], train: TrainState) -> None:
        """Warn about problems in a line of metrics.

        Raises:
          FloatingPointError: `learner.max_skipped` updates in a row were not finite.
        """
        for sentence in self._diagnose(self.clocks.updates, metrics):
            self._say(sentence)
        limit, in_a_row = self.config.learner.max_skipped, int(train.skipped_in_a_row)
        if limit and in_a_row >= limit:
            # Skipped updates change nothing, so state and last batch reproduce the error.
            replay = f"`python -m ez_jax.replay_crash {self.folder}`"
            fix = f"{replay} repeats the last one and finds the cause"
            if not self._is_alone:
                fix = "train it alone, without seeds=, to get a crash bundle that explains it"
            raise FloatingPointError(
                f"the last {in_a_row} updates in a row of {self.folder} were not finite and were "
                f"skipped (learner.max_skipped={limit}); {fix}"
            )

    def evaluate(self, games: Games, train: TrainState) -> dict[str, float]:
        """Write the scores of an evaluation of these weights; returns its metrics."""
        told = scores(self.config, self._spec.num_actions, games)
        run_folder.write_scores(self.folder, told, self.now())
        measured = summary(self.config, games)
        if self.config.checkpoint.keep_best:
            saving.save_best(self.checkpointer, train, self.now(), measured[EVALUATION])
        self.writer.write_episodes(self.now(), games.returns.tolist(), games.lengths.tolist())
        self.writer.write(self.now(), measured)  # last, because the line says that it is done
        self._done_at[EVALUATE], self._measured = self.clocks, measured
        return measured

    def stands(self) -> str:
        """The progress of the run in words: final score, clocks, time."""
        clocks = self.now()
        is_new = self._measured and self._done_at[EVALUATE].counts == clocks.counts
        score = f"{score_text(self._measured)} after " if is_new else ""
        steps, updates = f"{clocks.agent_steps:,} agent steps", f"{clocks.updates:,} updates"
        return f"{score}{steps}, {updates}, {duration(clocks.seconds)}"

    def leave_out(self, what: str) -> None:
        """Mark tasks as done at these clocks."""
        self._done_at[what] = self.clocks

    def save(self, write: Callable[[Checkpointer, Clocks], None]) -> None:
        """Save everything with `write`, in the background."""
        self.writer.sync()
        write(self.checkpointer, self.now())
        self._done_at[SAVE], self._last_save = self.clocks, time.perf_counter()

    def _say(self, sentence: str) -> None:
        self._warn(sentence if self._is_alone else f"{self.folder}: {sentence}")


def next_command(folder: Path) -> str:
    """The suggested next command after a run."""
    return f"python -m ez_jax.inspect run={shlex.quote(str(folder))}"


def periods(config: Config) -> dict[str, int]:
    """The period of each task in agent steps; 0 is never."""
    return {LOG: config.log.every, EVALUATE: config.eval.every, SAVE: config.checkpoint.every}
