"""A run in progress: its state, its jitted steps and its folder. `train.py` says what happens when.

`Run` is the only mutable object of a training run. Everything on the device is in `RunState`; what
the host knows besides are the clocks, from which every periodic thing and every draw follows.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import yaml

from ez_jax import config as configs
from ez_jax import memory, run_folder
from ez_jax import replay as ring
from ez_jax.actor import init_frames, make_act
from ez_jax.checkpoint import Checkpointer
from ez_jax.config import Config
from ez_jax.envs import VectorEnv, make_env
from ez_jax.evaluate import make_evaluate, scores, summary
from ez_jax.learner import init_train_state, make_learn, make_prepare, no_metrics
from ez_jax.lock import RunLock
from ez_jax.metrics import Every, MetricsWriter, read_metrics
from ez_jax.model import make_model
from ez_jax.plan import memory_plan, plan_rows, plan_warnings
from ez_jax.progress import EVALUATION, Progress
from ez_jax.reanalyse import make_reanalyse
from ez_jax.search import acting_temperature, make_search, resolve
from ez_jax.structs import Clocks, RunState, TimeStep
from ez_jax.targets import make_targets

# Streams of randomness of a run, folded into its key.
INIT, ACT, LEARN = range(3)


def _items(state: RunState) -> dict[str, Any]:
    """The state as a checkpoint has it: what evaluation needs, and the rest."""
    rest = {"replay": state.replay, "metrics": state.metrics, "key": state.key}
    return {"train": state.train, "rest": rest}


class Run:
    """One training run, new or resumed."""

    def __init__(self, config: Config, progress: Progress):
        """Build everything; nothing large is allocated before the memory plan has been checked.

        Raises:
          BadInput: no room in memory or on the disk, or a folder of another configuration.
        """
        self.config, self.progress = config, progress
        with contextlib.ExitStack() as opened:  # closes what is open if something is refused
            self._build(opened)
            self._open = opened.pop_all()

    def _build(self, opened: contextlib.ExitStack) -> None:
        config, progress = self.config, self.progress
        as_given = configs.to_dict(config)
        self.folder = run_folder.make_run_dir(configs.run_folder(config))
        opened.enter_context(RunLock(self.folder, progress.warn))
        is_new = run_folder.is_new(self.folder)
        if not is_new:
            run_folder.check_same_config(self.folder, as_given)
        self.checkpointer = Checkpointer(self.folder, config.checkpoint.keep, progress.warn)
        opened.callback(self.checkpointer.close)
        saved = self.checkpointer.latest()
        self.env: VectorEnv = self._make_env(saved or 0)
        opened.callback(self.env.close)
        self.config = config = resolve(config, self.env.spec.num_actions)
        self.model = make_model(config, self.env.spec)
        plan = memory_plan(config, self.model)
        rows = plan_rows(config, self.model, plan, self.folder, saved)
        progress.plan(rows, plan_warnings(config, self.model))
        memory.check(plan, memory.available_memory())
        if is_new:
            run_folder.write_config(self.folder, as_given)
        self._make_steps()
        self.writer = MetricsWriter(self.folder, tensorboard=config.log.tensorboard)
        opened.callback(self.writer.close)
        self._done_at: dict[str, Clocks] = {}  # by method: when it was last called
        if saved is None:
            self._start()
        else:
            self._restore()
        self._start_clocks()

    def _make_env(self, agent_steps: int) -> VectorEnv:
        """Environments with seeds of this run; a resumed run does not repeat its first games."""
        config = self.config
        seeds = np.random.SeedSequence([config.seed, agent_steps])
        return make_env(
            config.game,
            config.env,
            num_envs=config.actor.num_envs,
            seed=int(seeds.generate_state(1)[0] % 2**30),
            training=True,
        )

    def _make_steps(self) -> None:
        """The jitted steps of the loop."""
        config, model = self.config, self.model
        search = make_search(config.search, model, discount=config.discount, explore=True)
        prepare = make_prepare(
            config, model, make_reanalyse(config, model, search), make_targets(config, model)
        )
        self._act = self._announced("acting", make_act(model, search))
        self._prepare = self._announced("targets", prepare)
        self._learn = self._announced("learning", make_learn(config, model))
        self._evaluate = make_evaluate(config, model)

    def _announced(self, what: str, function: Any) -> Callable[..., Any]:
        """A jitted function that is compiled once, at its first call, and says so."""
        compiled: list[Callable[..., Any]] = []

        def call(*args: Any) -> Any:
            if not compiled:
                with self.progress.compiling(what):
                    compiled.append(function.lower(*args).compile())
            return compiled[0](*args)

        return call

    def _init_state(self) -> RunState:
        config, spec = self.config, self.env.spec
        key = jax.random.key(config.seed)
        # Jitted: one program to compile (or to find in the cache) instead of hundreds.
        init = jax.jit(functools.partial(init_train_state, config, self.model))
        window = spec.frame_stack + config.learner.unroll_steps + config.targets.td_steps
        rows = ring.ring_rows(config.replay.capacity, config.actor.num_envs, window)
        return RunState(
            train=init(jax.random.fold_in(key, INIT)),
            replay=ring.init_replay(spec, rows=rows, num_envs=config.actor.num_envs),
            metrics=no_metrics(config),
            key=key,
        )

    def _start(self) -> None:
        """Begin at the beginning; lines of a run that never saved anything go."""
        self.clocks, self.state = Clocks(), self._init_state()
        if dropped := self.writer.truncate_after(Clocks(agent_steps=-1)):
            self.progress.warn(f"no checkpoint: begins anew, without {dropped} lines of metrics")
        config = configs.to_dict(self.config)
        self.writer.write_config(yaml.safe_dump(config, sort_keys=False))

    def _restore(self) -> None:
        """Go on from the newest sound checkpoint; episodes begin anew."""
        template = _items(jax.eval_shape(self._init_state))
        restored = self.checkpointer.restore_newest(template)
        self.state = RunState(train=restored.state["train"], **restored.state["rest"])
        self.clocks = clocks = run_folder.read_clocks(restored)
        self.writer.truncate_after(clocks)
        self._done_at["save"] = clocks
        for line in read_metrics(self.folder):
            if (line["agent_steps"], line["updates"]) == (clocks.agent_steps, clocks.updates):
                self._done_at["evaluate" if EVALUATION in line else "log"] = clocks
        self.progress.say(f"resumed at {self.clocks.agent_steps:,} agent steps")

    def _start_clocks(self) -> None:
        self._act_key, self._learn_key = (
            jax.random.fold_in(self.state.key, stream) for stream in (ACT, LEARN)
        )
        numbers = np.arange(self.config.reanalyse.updates_per_search, dtype=np.int32)
        self._in_group = jax.device_put(tuple(numbers))  # numbers of the updates of one search
        way = self._way()
        self._resumed_at = self.clocks
        self._began = time.perf_counter() - self.clocks.seconds
        self._log_due = Every(self.config.log.every, way)
        self._eval_due = Every(self.config.eval.every, way)
        self._save_due = Every(self.config.checkpoint.every, way)
        self._frames = init_frames(self.env.spec, self.env.num_envs)
        self._score = np.zeros(self.env.num_envs)
        self._length = np.zeros(self.env.num_envs, np.int64)
        self._games: list[tuple[float, int]] = []

    # What the loop of train.py does with it.

    def decide(self, step: TimeStep) -> np.ndarray:
        """Search in all environments and record the decisions: the actions i32[N]."""
        config, state, steps = self.config, self.state, self.clocks.agent_steps
        at_random = config.actor.random_start and steps < config.learner.start
        # Everything goes to the device at once, and nothing unasked: see the tests.
        given = jax.device_put((step, np.float32(self._temperature()), np.bool_(at_random)))
        step_there, temperature, explore = given
        # Deviates (self-play network): always the newest weights.
        # Deviates (random start): counted in agent steps.
        action, replay, self._frames = self._act(
            state.train.variables,
            state.replay,
            self._frames,
            step_there,
            self._act_key,
            temperature,
            explore,
            state.train.updates,
        )
        self.state = state.replace(replay=replay)
        # Deviates (100k steps): what was played counts, not what was stored.
        self._tick(agent_steps=int(np.sum(~step.is_last)))
        return jax.device_get(action)

    def _temperature(self) -> float:
        planned = max(1, self.config.total_updates - self.config.final_updates)
        return acting_temperature(self.config.search, self.clocks.updates / planned)

    def updates_due(self) -> int:
        """Updates that the data collected so far is owed: exact pacing by `updates_per_step`.

        While data still comes they are made in whole groups of those that search together.
        """
        # Deviates (pacing): neither side ever runs ahead of the other.
        config = self.config
        # The last step of all environments together can go past the end.
        steps = min(self.clocks.agent_steps, config.total_agent_steps)
        owed = int(max(0, steps - config.learner.start) * config.updates_per_step)
        due = max(0, owed - self.clocks.updates)
        waits = self.clocks.agent_steps < config.total_agent_steps
        return due - due % config.reanalyse.updates_per_search if waits else due

    def updates_left(self) -> int:
        """A handful of the updates that run past the data; 0 when all are done."""
        config, left = self.config, self.config.total_updates - self.clocks.updates
        handful = max(1, round(config.updates_per_step * self.env.num_envs))
        group = config.reanalyse.updates_per_search
        return min(left, -(-handful // group) * group)

    def learn(self, num_updates: int) -> None:
        """Dispatch updates; returns before they are done."""
        state, key = self.state, self._learn_key
        train, replay, metrics = state.train, state.replay, state.metrics
        for done in range(num_updates):
            i = done % len(self._in_group)
            if i == 0:
                group, replay, metrics = self._prepare(
                    train.target, replay, metrics, key, train.updates
                )
            train, replay, metrics = self._learn(
                train, replay, metrics, key, group, self._in_group[i]
            )
        self.state = state.replace(train=train, replay=replay, metrics=metrics)
        self._tick(updates=num_updates)

    def observe(self, step: TimeStep) -> TimeStep:
        """Keep the score of the games being played."""
        self._score += step.score
        self._length += ~step.is_first
        for i in np.flatnonzero(step.game_over):
            self._games.append((self._score[i], int(self._length[i])))
            self._score[i], self._length[i] = 0.0, 0
        return step

    def report(self) -> None:
        """Log, evaluate and save, each when it is due."""
        way = self._way()
        if self._log_due(way):
            self.log()
        if self._eval_due(way):
            self.evaluate()
        if self._save_due(way):
            self.save()
        self.progress.update(self._now())

    def _way(self) -> int:
        """Agent steps; past the data, where these stand still, what the updates are worth."""
        config, clocks = self.config, self.clocks
        past = clocks.updates - (config.total_updates - config.final_updates)
        if clocks.agent_steps < config.total_agent_steps or past <= 0:
            return clocks.agent_steps
        return clocks.agent_steps + round(past / (config.updates_per_step or 1))

    def log(self) -> None:
        """Fetch what was summed on the device and write one line."""
        sums = jax.device_get(self.state.metrics)
        count = sums.pop("count")
        metrics = {name: float(value / count) for name, value in sums.items()} if count else {}
        if self._games:
            returns, lengths = zip(*self._games, strict=True)
            metrics |= {"rollout/return": np.mean(returns), "rollout/length": np.mean(lengths)}
            metrics["rollout/games"] = len(returns)
            self._games.clear()
        metrics["opt/skipped"] = int(self.state.train.skipped)
        self.state = self.state.replace(metrics=no_metrics(self.config))
        self._write(metrics)
        self._done_at["log"] = self.clocks

    def evaluate(self) -> None:
        """Play full games without noise; write the score."""
        games = self._evaluate(self.state.train.variables)
        run_folder.write_scores(self.folder, scores(self.config, games), self._now())
        self._write(summary(self.config, games))  # last: the line says that it was done
        self._done_at["evaluate"] = self.clocks

    def save(self) -> None:
        """Save everything; the writing goes on in the background."""
        meta = {"clocks": dataclasses.asdict(self._now())}
        self.checkpointer.save(self.clocks.agent_steps, _items(self.state), meta)
        self._done_at["save"] = self.clocks

    def finish(self, *, interrupted: bool) -> None:
        """Log, evaluate and save once more, unless nothing has happened since that was done."""
        wanted = [self.log, self.save] if interrupted else [self.log, self.evaluate, self.save]
        missing = [action for action in wanted if self._done_at.get(action.__name__) != self.clocks]
        if not missing and not interrupted and self.clocks == self._resumed_at:
            self.progress.say("this run is complete; a longer one needs another name= or run_dir=")
            return
        for action in missing:
            action()
        self.checkpointer.wait()
        stands = f"{self.clocks.agent_steps:,} agent steps, {self.clocks.updates:,} updates"
        done = "stopped; the same command goes on from here" if interrupted else "done"
        self.progress.say(f"{done}: {stands}, {self.folder}")

    def __enter__(self) -> "Run":
        """Show the progress bar while the run lasts."""
        config = self.config
        bar = self.progress.running(config.game, config.total_agent_steps, config.total_updates)
        self._open.enter_context(bar)
        return self

    def __exit__(self, *raised: object) -> None:
        """Finish what is being written and let go of everything."""
        self._open.close()

    def _write(self, metrics: dict[str, Any]) -> None:
        self.writer.write(self._now(), metrics)
        self.progress.update(self._now(), metrics)

    def _tick(self, agent_steps: int = 0, updates: int = 0) -> None:
        steps = self.clocks.agent_steps + agent_steps
        self.clocks = dataclasses.replace(
            self.clocks,
            agent_steps=steps,
            env_frames=steps * self.env.spec.frame_skip,
            updates=self.clocks.updates + updates,
        )

    def _now(self) -> Clocks:
        return dataclasses.replace(self.clocks, seconds=time.perf_counter() - self._began)
