"""A run in progress: its state, its jitted steps and its folder. `train.py` says what happens when.

`Run` is the only mutable object of a training run. Everything on the device is in `RunState`; what
the host knows besides are the clocks, from which every periodic thing and every draw follows.
"""

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml

from ez_jax import config as configs
from ez_jax.agent import complaints, diagnostics, schedules
from ez_jax.agent.actor import make_act
from ez_jax.agent.learner import make_learn, make_prepare, no_metrics
from ez_jax.agent.model import make_model
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay.drawing_ahead import make_source
from ez_jax.agent.search import make_search
from ez_jax.agent.state import ACT, LEARN, init_run_state, start_run_state
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config
from ez_jax.evaluation import on_track
from ez_jax.evaluation.across_processes import make_shared_evaluate
from ez_jax.evaluation.scores import scores, summary
from ez_jax.storage import crash_bundle, run_folder
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.lock import RunLock
from ez_jax.storage.metrics import EVALUATION, MetricsWriter, means
from ez_jax.structs import Clocks, TimeStep
from ez_jax.system import devices, free_memory, processes, watchdog
from ez_jax.system.compilation import announced
from ez_jax.system.signals import Interrupt
from ez_jax.terminal.progress import Progress
from ez_jax.training import record, saving
from ez_jax.training.games import SavedGames, training_games
from ez_jax.training.planning import memory
from ez_jax.training.planning.needs import check_disk, memory_plan, plan_rows, plan_warnings
from ez_jax.training.record import Every


class Run:
    """One training run, new or resumed."""

    def __init__(self, config: Config, progress: Progress, interrupt: Interrupt | None = None):
        """Build everything; nothing large is allocated before the memory plan has been checked.

        Raises:
          BadInput: no room in memory or on the disk, or a folder of another configuration.
        """
        self.config, self.progress = config, progress
        self.interrupt = interrupt or Interrupt()
        with contextlib.ExitStack() as opened:  # closes what is open if something is refused
            self._build(opened)
            self._open = opened.pop_all()

    def _build(self, opened: contextlib.ExitStack) -> None:
        config, progress = self.config, self.progress
        folder = configs.run_folder(config)
        self.checkpointer = Checkpointer(folder, config.checkpoint.keep, progress.warn)
        opened.callback(self.checkpointer.close)
        is_new, saved = processes.by_first(self._take_folder, folder, opened)
        if not processes.is_first():  # what the others write is thrown away
            self.folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        self.games = training_games(config)
        opened.callback(self.games.close)
        self.model = make_model(config, self.games.spec)
        opened.enter_context(jax.set_mesh(devices.make_mesh(processes.choose_devices(config))))
        plan = memory_plan(config, self.model)
        rows = plan_rows(config, self.model, plan, self.folder, saved)
        progress.plan(rows, plan_warnings(config, self.model))
        memory.check(plan, free_memory.available_memory())
        check_disk(config, plan, self.folder)
        if is_new:
            run_folder.write_config(self.folder, configs.to_dict(config))
        on_host = plan.sizes.on_host
        self._init_state = functools.partial(init_run_state, config, self.model, not on_host)
        self._source = make_source(config, self.model, on_host, progress)
        opened.callback(self._source.close)
        self._make_steps()
        self.writer = MetricsWriter(
            self.folder, tensorboard=config.log.tensorboard and processes.is_first()
        )
        opened.callback(self.writer.close)
        self._done_at = dict.fromkeys(("log", "evaluate", "save"), Clocks())  # the last of each
        self.games_to_come: SavedGames | None = None  # those that have to be brought back
        if saved is None:
            self._start()
        else:
            self._restore()
        self._start_clocks()

    def _take_folder(self, folder: Path, opened: contextlib.ExitStack) -> tuple[bool, int | None]:
        """Make or take it, until `opened` is closed; whether it is new, and what is saved there."""
        self.folder = run_folder.make_run_dir(folder)
        opened.push(functools.partial(crash_bundle.report, self))
        opened.enter_context(RunLock(self.folder, self.progress.warn))
        is_new = run_folder.is_new(self.folder)
        if not is_new:
            run_folder.check_same_config(self.folder, configs.to_dict(self.config))
        self.checkpointer.tidy_up()
        return is_new, self.checkpointer.latest()

    def _make_steps(self) -> None:
        """The jitted steps of the loop."""
        config, model = self.config, self.model
        search = make_search(config.search, model, discount=config.discount, explore=True)
        prepare = make_prepare(
            config, model, make_reanalyse(config, model, search), make_targets(config, model)
        )
        self._act = announced(self.progress, "acting", make_act(model, search))
        self._prepare = announced(self.progress, "targets", prepare)
        self._learn = announced(self.progress, "learning", make_learn(config, model))
        self._evaluate = make_shared_evaluate(config, model)

    def _start(self) -> None:
        """Begin at the beginning; lines of a run that never saved anything go."""
        self.clocks, self.state = Clocks(), start_run_state(self._init_state)
        if dropped := self.writer.truncate_after(Clocks(agent_steps=-1)):
            self.progress.warn(f"no checkpoint: begins anew, without {dropped} lines of metrics")
        self.writer.write_config(yaml.safe_dump(configs.to_dict(self.config), sort_keys=False))
        self.writer.write_references(on_track.series(self.config))

    def _restore(self) -> None:
        """Go on from the newest sound checkpoint."""
        saved = saving.restore(
            self.checkpointer, self._init_state, self.games.save().actions, self._source.frames
        )
        self.state, self.games_to_come, self.clocks = saved
        self.writer.truncate_after(saved.clocks)
        self.writer.write_references(on_track.series(self.config), saved.clocks.agent_steps)
        self._done_at = saving.last_done(self.folder) | {"save": saved.clocks}
        self.progress.say(f"resumed at {self.clocks.agent_steps:,} agent steps")

    def _start_clocks(self) -> None:
        self._act_key, self._learn_key = (
            jax.random.fold_in(self.state.key, stream) for stream in (ACT, LEARN)
        )
        self._source.go_on(self.state.drawn, self.clocks.updates)
        group = range(self.config.reanalyse.updates_per_search)
        self._in_group = processes.same(tuple(np.int32(i) for i in group))
        self._resumed_at, self.is_stopped = self.clocks, False
        self._diagnose = complaints.Watch(self.config)
        self._saved_at = time.perf_counter()
        self._began = self._saved_at - self.clocks.seconds
        config = self.config
        periods = {
            self.log: config.log.every,
            self.evaluate: config.eval.every,
            self.save: config.checkpoint.every,
        }
        # From when it was last done, not from now: an evaluation that a signal cut off is due.
        self._due = {
            action: Every(period, schedules.way(config, self._done_at[action.__name__]))
            for action, period in periods.items()
        }

    # What the loop of train.py does with it.

    def begin(self) -> TimeStep | None:
        """The time step at which a run goes on; None where nothing is left to be played."""
        saved = self.games_to_come
        if saved is None:
            return self.games.begin()
        self.report()  # an evaluation that a signal cut off
        # Where nothing more is played, they may still have scores to tell.
        return self._bring_games_back(saved) if self.collects() or saved.unreported else None

    def _bring_games_back(self, saved: SavedGames) -> TimeStep:
        self.progress.say(f"playing the {saved.actions.size:,} actions so far again ...")
        step = self.games.bring_back(saved)
        if step is None:
            self.progress.warn(
                f"{self.config.game} is not deterministic: told the same actions it went another "
                "way; new games begin, so this run is not exactly the one that was stopped"
            )
            step = self.games.begin_anew(self.clocks.agent_steps)
        self.games_to_come = None
        return step

    def collects(self) -> bool:
        """Whether there is more to play."""
        ended = self.clocks.agent_steps >= self.config.total_agent_steps
        return not ended and not self.is_stopped

    @watchdog.at("fetching actions from the device")
    def decide(self, step: TimeStep) -> np.ndarray:
        """Search in all environments and record the decisions: the actions i32[N]."""
        config, state, steps = self.config, self.state, self.clocks.agent_steps
        held = state.train.variables, state.replay, state.metrics, state.frames
        played = processes.total(int(np.sum(~step.is_last)))
        at_random = config.actor.random_start and steps < config.learner.start
        temperature = np.float32(schedules.temperature(config, self.clocks))
        self._source.record(step.observation)
        # Everything goes to the device at once, and nothing unasked: see the tests.
        step, others = processes.shared(step), processes.same((temperature, np.bool_(at_random)))
        # Deviates (self-play network): always the newest weights.
        # Deviates (random start): counted in agent steps.
        action, replay, metrics, frames = self._act(
            *held, step, self._act_key, *others, state.train.updates
        )
        self.state = state.replace(replay=replay, metrics=metrics, frames=frames)
        # Deviates (100k steps): what was played counts, not what was stored.
        self._tick(agent_steps=played)
        return jax.device_get(action)[processes.mine(len(action))]

    def updates_due(self) -> int:
        """Updates that the data collected so far is owed."""
        return schedules.updates_due(self.config, self.clocks)

    def updates_left(self) -> int:
        """A handful of the updates that run past the data; 0 when all are done or asked to stop."""
        return 0 if self.is_stopped else schedules.updates_left(self.config, self.clocks)

    @watchdog.at("handing updates to the device")
    def learn(self, num_updates: int) -> None:
        """Dispatch updates; returns before they are done."""
        state, key = self.state, self._learn_key
        train, replay, metrics, drawn = state.train, state.replay, state.metrics, state.drawn
        for done in range(num_updates):
            i = done % len(self._in_group)
            if i == 0:
                batch, drawn = self._source.next(
                    replay, key, drawn, self.clocks.updates + done, num_updates - done
                )
                group, replay, metrics = self._prepare(
                    train.target, replay, metrics, key, train.updates, batch
                )
                watchdog.expect(group.batch.index)
            self.last_update = record.LastUpdate(self.clocks.updates + done, group, i, key)
            train, replay, metrics = self._learn(
                train, replay, metrics, key, group, self._in_group[i]
            )
            self.state = state.replace(train=train, replay=replay, metrics=metrics, drawn=drawn)
        self._tick(updates=num_updates)

    def report(self) -> None:
        """Log, evaluate and save, each when it is due."""
        way, minutes = schedules.way(self.config, self.clocks), self.config.checkpoint.minutes
        for action, is_due in self._due.items():
            if is_due(way):
                action()
        waited = 0 < minutes <= (time.perf_counter() - self._saved_at) / 60
        self.is_stopped, waited = processes.agreed(self.interrupt.requested, waited)
        if waited:
            self.save()
        self.progress.update(self._now())

    @watchdog.at("fetching metrics from the device")
    def log(self) -> None:
        """Fetch what was summed on the device and write one line."""
        metrics = diagnostics.readings(means(jax.device_get(self.state.metrics)))
        if finished := self.games.take_finished():
            returns, lengths = zip(*finished, strict=True)
            metrics |= {"rollout/return": np.mean(returns), "rollout/length": np.mean(lengths)}
            metrics["rollout/games"] = len(returns)
        metrics["opt/skipped"] = int(self.state.train.skipped)
        self.state = self.state.replace(metrics=processes.same(no_metrics(self.config)))
        self._write(metrics)
        for sentence in self._diagnose(self.clocks.updates, metrics):
            self.progress.warn(sentence)
        record.check_skipped(self.state.train, self.config, self.folder)
        self._done_at["log"] = self.clocks

    def evaluate(self) -> None:
        """Play full games without noise; write the score. Asked to stop, it leaves off."""
        variables = self.state.train.variables
        games = self._evaluate(variables, stop=lambda: self.interrupt.requested)
        if games is None:
            return
        told = scores(self.config, self.model.spec.num_actions, games)
        run_folder.write_scores(self.folder, told, self._now())
        measured = summary(self.config, games)
        if self.config.checkpoint.keep_best:
            saving.save_best(self.checkpointer, self.state.train, self._now(), measured[EVALUATION])
        remark = on_track.compare(self.config, self.clocks.agent_steps, measured[EVALUATION])
        self._write(measured, remark)  # last: the line says that it was done
        self._done_at["evaluate"] = self.clocks

    def save(self) -> None:
        """Save everything; the writing goes on in the background."""
        self.writer.sync()
        games = self.games_to_come or self.games.save()
        run = saving.SavedRun(self.state, games, self._now())
        saving.save(self.checkpointer, run, self._source.frames)
        self._done_at["save"], self._saved_at = self.clocks, time.perf_counter()

    def finish(self) -> None:
        """Log, evaluate and save once more, unless nothing has happened since that was done."""
        (interrupted,) = processes.agreed(self.interrupt.requested)
        # Asked to stop it only saves: a line of its own would tell the two halves of the run apart.
        wanted = [self.save] if interrupted else [self.log, self.evaluate, self.save]
        missing = [action for action in wanted if not self._is_done(action)]
        if not missing and not interrupted and self.clocks == self._resumed_at:
            self.progress.say("this run is complete; a longer one needs another name= or run_dir=")
            return
        for action in missing:
            action()
        self.checkpointer.wait()
        # A signal may have come during the last evaluation.
        (self.is_stopped,), clocks = processes.agreed(self.interrupt.requested), self.clocks
        told = "stopped; the same command goes on from here" if self.is_stopped else "done"
        stands = f"{clocks.agent_steps:,} agent steps, {clocks.updates:,} updates"
        self.progress.say(f"{told}: {stands}, {self.folder}")

    def _is_done(self, action: Callable[[], None]) -> bool:
        done = self._done_at[action.__name__]
        return (done.agent_steps, done.updates) == (self.clocks.agent_steps, self.clocks.updates)

    def __enter__(self) -> "Run":
        """Show the progress bar while the run lasts."""
        config = self.config
        bar = self.progress.running(config.game, config.total_agent_steps, config.total_updates)
        self._open.enter_context(bar)
        return self

    def __exit__(self, *raised: object) -> None:
        """Finish what is being written and let go of everything."""
        self._open.__exit__(*raised)

    def _write(self, metrics: dict[str, Any], remark: str | None = None) -> None:
        self.writer.write(self._now(), metrics)
        self.progress.update(self._now(), metrics, remark)

    def _tick(self, agent_steps: int = 0, updates: int = 0) -> None:
        steps = self.clocks.agent_steps + agent_steps
        self.clocks = dataclasses.replace(
            self.clocks,
            agent_steps=steps,
            env_frames=steps * self.games.spec.frame_skip,
            updates=self.clocks.updates + updates,
        )

    def _now(self) -> Clocks:
        return dataclasses.replace(self.clocks, seconds=time.perf_counter() - self._began)
