"""A run in progress: its state, its jitted steps and its games. `train.py` says what happens when.

Everything on the device is in `RunState`; what the host knows besides are the clocks, from which
every periodic thing (`record.py`) and every draw follows.
"""

import contextlib
import functools
import traceback
from collections.abc import Set
from typing import Any

import jax
import numpy as np

from ez_jax.agent import schedules
from ez_jax.agent.actor import make_act
from ez_jax.agent.learner import make_learn, make_prepare, no_metrics
from ez_jax.agent.model import make_model
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay.drawing_ahead import make_source
from ez_jax.agent.search import make_search
from ez_jax.agent.state import ACT, LEARN, init_run_state, start_run_state
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config
from ez_jax.config.errors import Fault, in_short
from ez_jax.evaluation import on_track
from ez_jax.evaluation.across_processes import make_shared_evaluate
from ez_jax.storage import crash_bundle
from ez_jax.structs import Clocks, TimeStep
from ez_jax.system import devices, free_memory, processes, watchdog
from ez_jax.system.compilation import announced
from ez_jax.system.signals import Interrupt
from ez_jax.terminal.progress import Progress
from ez_jax.training import saving
from ez_jax.training.games import SavedGames, training_games
from ez_jax.training.planning import memory
from ez_jax.training.planning.needs import check_disk, memory_needs, start_rows, start_warnings
from ez_jax.training.record import EVALUATE, LOG, SAVE, Record, next_command


class Run(contextlib.AbstractContextManager["Run"]):
    """One training run, new or resumed."""

    def __init__(self, config: Config, progress: Progress, interrupt: Interrupt | None = None):
        """Build everything; nothing large is allocated before memory and disk were looked at.

        Raises:
          BadInput: no room in memory or on the disk, or a folder of another configuration.
        """
        self.config, self.progress = config, progress
        self.interrupt, self.is_stopped = interrupt or Interrupt(), False
        self.games_to_come: SavedGames | None = None  # those that have to be brought back
        self._has_begun = False  # since its games are there, what fails is tried again
        self._no_score: Exception | None = None  # what the last evaluation failed of
        self._last_update: crash_bundle.LastUpdate | None = None
        with contextlib.ExitStack() as opened:  # closes what is open if something is refused
            self._build(opened)
            self._open = opened.pop_all()

    def _build(self, opened: contextlib.ExitStack) -> None:
        config, progress = self.config, self.progress
        self.record = record = Record(config, progress, opened)
        if processes.is_first():
            opened.push(self._leave_crash_bundle)
        self.games = training_games(config)
        opened.callback(self.games.close)
        self.model = model = make_model(config, self.games.spec)
        opened.enter_context(jax.set_mesh(devices.make_mesh(processes.choose_devices(config))))
        needs = memory_needs(config, model)
        rows = start_rows(config, model, needs, record.folder)
        progress.plan(rows, start_warnings(config, model))
        memory.check(needs, free_memory.available_memory())
        check_disk(config, needs, record.folder)
        self._source = make_source(config, model, needs.sizes.on_host, progress.compiling)
        opened.callback(self._source.close)
        self._make_steps()
        clocks = self._start_or_restore(has_frames=not needs.sizes.on_host)
        record.open(self.games.spec, clocks, opened)
        if clocks is not None:
            progress.say(f"resumed at {clocks.agent_steps:,} agent steps")
        self._source.go_on(self.state.drawn, record.clocks.updates)
        self._resumed_at = record.clocks.counts
        bar = progress.running(config.game, config.total_agent_steps, config.total_updates)
        opened.enter_context(bar)  # while the run lasts

    def _make_steps(self) -> None:
        """Make the jitted steps of the loop."""
        config, model = self.config, self.model
        search = make_search(config.search, model, discount=config.discount, explore=True)
        prepare = make_prepare(
            config, model, make_reanalyse(config, model, search), make_targets(config, model)
        )
        act = make_act(model, search, config.search.root_candidates)
        self._act = announced(self.progress.compiling, "acting", act)
        self._prepare = announced(self.progress.compiling, "targets", prepare)
        self._learn = announced(self.progress.compiling, "learning", make_learn(config, model))
        self._evaluate = make_shared_evaluate(config, model)
        group = range(config.reanalyse.updates_per_search)
        self._in_group = processes.same(tuple(np.int32(i) for i in group))

    def _start_or_restore(self, has_frames: bool) -> Clocks | None:
        """The initial state, or that of the newest undamaged checkpoint, with its clocks."""
        init_state = functools.partial(init_run_state, self.config, self.model, has_frames)
        saved = saving.restore(
            self.record.checkpointer, init_state, self.games.save().actions, self._source.frames
        )
        if saved is None:
            self.state = start_run_state(init_state)
        else:
            self.state, self.games_to_come = saved.state, saved.games
        self._act_key, self._learn_key = (
            jax.random.fold_in(self.state.key, stream) for stream in (ACT, LEARN)
        )
        return saved and saved.clocks

    # What the loop of train.py does with it.

    @property
    def clocks(self) -> Clocks:
        """The progress of the run."""
        return self.record.clocks

    def begin(self) -> TimeStep:
        """Start or resume; returns the first time step."""
        saved = self.games_to_come
        if saved is not None:
            self.report()  # an evaluation that a signal cut off, or that failed
        self._has_begun = True
        # Where nothing more is played, they may still have scores to tell.
        if saved is not None and (self.collects() or saved.unreported):
            return self._bring_games_back(saved)
        return self.games.begin()  # of a new run, or nobody plays these

    def _bring_games_back(self, saved: SavedGames) -> TimeStep:
        if not len(saved.actions):  # those before have failed, or there were none
            self.games_to_come = None
            return self.games.begin_anew(self.clocks.agent_steps)
        self.progress.say(f"playing the {saved.actions.size:,} actions so far again ...")
        step, what = None, "went another way"
        try:
            step = self.games.bring_back(saved)
        except Exception as error:
            if jax.process_count() > 1:
                raise
            what = f"failed ({in_short(error)})"
        if step is None:
            self.progress.warn(
                f"{self.config.game} is not deterministic: told the same actions it {what}; "
                "new games begin, so this run is not exactly the one that was stopped"
            )
            step = self.games.begin_anew(self.clocks.agent_steps)
        self.games_to_come = None
        return step

    def collects(self) -> bool:
        """Whether there are steps left."""
        ended = self.clocks.agent_steps >= self.config.total_agent_steps
        return not ended and not self.is_stopped

    @watchdog.at("fetching actions from the device")
    def decide(self, step: TimeStep) -> np.ndarray:
        """Search in all environments and record the decisions; returns the actions [N, *act]."""
        config, state, clocks = self.config, self.state, self.clocks
        held = state.train.variables, state.replay, state.metrics, state.frames
        played = processes.total(int(np.sum(~step.is_last)))
        at_random = config.actor.random_start and clocks.agent_steps < config.learner.start
        temperature = np.float32(schedules.temperature(config, clocks))
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
        self.record.set_clocks(clocks.agent_steps + played, clocks.updates)
        return jax.device_get(action)[processes.mine(len(action))]

    def observe(self) -> TimeStep:
        """Wait for what the actions led to; where the game fails, all that was learned is saved.

        Told the same actions again it would fail again: the same command goes on with new games.
        """
        try:
            with self.interrupt.unasked(self.config.game):
                return self.games.recv()
        except Exception:
            # Nothing is asked of the games any more: they may be beyond it.
            self.games_to_come = self.games.save_new(self.clocks.agent_steps)
            self._save_what_is_learned("goes on with new games")
            raise

    def _save_what_is_learned(self, how: str) -> None:
        """Before an error ends the run; the same command does `how`."""
        if jax.process_count() > 1:
            return
        try:
            self.save()
            self.record.checkpointer.wait()
            said = f"all that was learned is saved, and the same command {how}"
        except Exception as error:  # noqa: BLE001 told, and the error that matters follows
            said = f"nothing could be saved ({error}): the last checkpoint counts"
        self.progress.warn(said)

    def updates_due(self) -> int:
        """Updates that are due for the data collected so far."""
        return schedules.updates_due(self.config, self.clocks)

    def updates_left(self) -> int:
        """The next updates after the last step; 0 when all are done or the run has to stop."""
        return 0 if self.is_stopped else schedules.updates_left(self.config, self.clocks)

    @watchdog.at("handing updates to the device")
    def learn(self, num_updates: int) -> None:
        """Dispatch updates; returns before they are done."""
        state, key, clocks = self.state, self._learn_key, self.clocks
        train, replay, metrics, drawn = state.train, state.replay, state.metrics, state.drawn
        for done in range(num_updates):
            i = done % len(self._in_group)
            if i == 0:
                batch, drawn = self._source.next(
                    replay, key, drawn, clocks.updates + done, num_updates - done
                )
                group, replay, metrics = self._prepare(
                    train.target, replay, metrics, key, train.updates, batch
                )
                watchdog.expect(group.batch.index)
            self._last_update = crash_bundle.LastUpdate(clocks.updates + done, group, i, key)
            train, replay, metrics = self._learn(
                train, replay, metrics, key, group, self._in_group[i]
            )
            self.state = state.replace(train=train, replay=replay, metrics=metrics, drawn=drawn)
        self.record.set_clocks(clocks.agent_steps, clocks.updates + num_updates)

    def report(self) -> None:
        """Log, evaluate and save, each when it is due."""
        self.record.checkpointer.check()
        self._do(self.record.due())
        requested, overdue = self.interrupt.requested, bool(self.record.overdue())
        self.is_stopped, overdue = processes.agreed(requested, overdue)
        if overdue:
            self.save()
        self.progress.update(self.record.now())

    def _do(self, due: Set[str]) -> None:
        if LOG in due:
            self.log()
        if EVALUATE in due:
            self.evaluate()
        if SAVE in due:
            self.save()

    @watchdog.at("fetching metrics from the device")
    def log(self) -> None:
        """Fetch the sums from the device and write one line of metrics."""
        sums, games = jax.device_get(self.state.metrics), {}
        if finished := self.games.take_finished():
            returns, lengths = zip(*finished, strict=True)
            games = {"rollout/return": np.mean(returns), "rollout/length": np.mean(lengths)}
            games["rollout/games"] = len(returns)
        self.state = self.state.replace(metrics=processes.same(no_metrics(self.config)))
        metrics = self.record.log(sums, games, self.state.train)
        self.progress.update(self.record.now(), metrics)
        self.record.check(metrics, self.state.train)

    def evaluate(self) -> None:
        """Play full games; write the score. Asked to stop, it leaves off.

        Where the game is at fault, there is no score, and what is learned does not suffer. An error
        of the game's own ends the run, all saved; resumed there, it goes on without the score if
        it fails once more.
        """
        train, is_final = self.state.train, self.record.is_complete
        stop = lambda: self.interrupt.requested  # noqa: E731
        try:
            with self.interrupt.unasked(self.config.game):
                games = self._evaluate(train.variables, stop=stop, is_final=is_final)
        except Exception as error:
            if jax.process_count() > 1:
                raise
            if self._has_begun and not isinstance(error, Fault):
                goes_on = "goes on, without this score if it fails again"
                tries = "tries the last evaluation again"
                self._save_what_is_learned(tries if is_final else goes_on)
                raise
            if not isinstance(error, Fault):
                traceback.print_exc()
            self._no_score = error
            self.record.leave_out(EVALUATE)
            at = f"{self.clocks.agent_steps:,} agent steps"
            self.progress.warn(f"no score at {at}: {in_short(error)}")
            return
        if games is None:
            return
        self._no_score = None
        measured = self.record.evaluate(games, train)
        remark = on_track.published(self.config, self.clocks.agent_steps)
        self.progress.evaluation(self.record.now(), measured, remark)

    def save(self) -> None:
        """Save everything, in the background."""
        games, frames = self.games_to_come or self.games.save(), self._source.frames
        self.record.save(
            lambda checkpointer, now: saving.save(
                checkpointer, saving.SavedRun(self.state, games, now), frames
            )
        )

    def finish(self) -> None:
        """Log, evaluate and save once more, unless nothing has happened since that was done."""
        (interrupted,) = processes.agreed(self.interrupt.requested)
        # Asked to stop it only saves: a line of its own would tell the two halves of the run apart.
        missing = self.record.missing({SAVE} if interrupted else {LOG, EVALUATE, SAVE})
        is_old = not missing and not interrupted and self.clocks.counts == self._resumed_at
        if is_old and self._no_score is None:
            self.progress.say("this run is complete; a longer one needs another name= or run_dir=")
            return
        self._do(missing)
        self.record.checkpointer.wait()
        # A signal may have come during the last evaluation.
        (self.is_stopped,) = processes.agreed(self.interrupt.requested)
        stands, folder = self.record.stands(), self.record.folder
        if self.is_stopped:
            self.progress.say(f"stopped; the same command resumes it: {stands}, {folder}")
        else:
            self.progress.say(f"done: {stands}, {folder}")
            if self._no_score is not None:
                why = in_short(self._no_score)
                raise Fault(f"the run is complete but has no last score: {why}")
            self.progress.say(f"next: {next_command(folder)}")

    def __exit__(self, *raised: Any) -> None:
        self._open.__exit__(*raised)

    def _leave_crash_bundle(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Write a crash bundle if the run failed, perhaps while it was starting."""
        games, state = vars(self).get("games"), vars(self).get("state")
        known = crash_bundle.FailedRun(
            folder=self.record.folder,
            config=self.config,
            spec=games and games.spec,
            clocks=state and self.clocks,
            train=state and state.train,
            last_update=self._last_update,
        )
        crash_bundle.report(known, error)
