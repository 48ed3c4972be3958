"""Several runs of one game in one program, so that ten seeds cost little more than one.

    python -m ez_jax.train game=Breakout-MinAtar seeds=5

Each run has its own folder, which holds what every other run's folder holds; evaluation, reports
and `ez_jax.load` see no difference. A run that was stopped goes on in any company, because nothing
of it depends on the others: those that are ahead wait for it.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from ez_jax import cli, lanes, memory, on_track, pace, run_folder, saving, watchdog
from ez_jax import config as configs
from ez_jax.checkpoint import Checkpointer, Restored
from ez_jax.checks import flatten
from ez_jax.config import BadInput, Config
from ez_jax.envs import resolve as resolve_game
from ez_jax.envs.gymnax_adapter import make_game
from ez_jax.evaluate import Games, scores, summary
from ez_jax.games import seed_of_games
from ez_jax.interrupt import Interrupt
from ez_jax.lanes import Lane
from ez_jax.learner import no_metrics
from ez_jax.lock import RunLock
from ez_jax.metrics import Every, MetricsWriter, means
from ez_jax.model import make_model
from ez_jax.plan import check_disk, memory_plan
from ez_jax.progress import EVALUATION, Progress
from ez_jax.search import resolve
from ez_jax.structs import Clocks, TrainState

ITEM = "lane"  # of a checkpoint: what a run needs to go on beside others
OWN = ("seed", "name", "run_dir", *lanes.NUMBERS)  # settings in which the runs may differ


def train_together(runs: Sequence[Config]) -> int:
    """Train runs that differ in seed, folder and numbers (`lanes.NUMBERS`); the exit code.

    Raises:
      BadInput: they differ in something else, or their game is no function on the device.
    """
    cli.configure_jax()
    first = runs[0]
    progress = Progress(live=first.log.progress)
    with (
        watchdog.Watchdog(configs.run_folder(first), first.log.watchdog),
        Together(runs, progress) as together,
        together.interrupt,
    ):
        while together.is_unfinished():
            together.advance()  # play and learn, in all runs, until something is due
            together.report()
        together.finish()
    return cli.INTERRUPTED if together.interrupt.requested else cli.DONE


def check_alike(runs: Sequence[Config]) -> None:
    """Refuse runs that one program cannot hold.

    Raises:
      BadInput: names the first setting in which they differ, or the folder that two of them share.
    """
    first = flatten(runs[0])
    for other in map(flatten, runs[1:]):
        for key in first.keys() - set(OWN):
            if first[key] != other[key]:
                raise BadInput(
                    f"runs in one program may not differ in {key} ({first[key]} and {other[key]}): "
                    "run them one after another, with -m instead of seeds="
                )
    folders = [configs.run_folder(config) for config in runs]
    if len(set(folders)) < len(folders):
        raise BadInput(
            f"two runs have the folder {folders[0]}: give each a seed or name of its own"
        )
    task = resolve_game(runs[0].game, runs[0].env.backend)
    if task.backend != "gymnax":
        raise BadInput(
            f"{task.name} is played by {task.backend}, outside of the program: only games of "
            "gymnax, such as Breakout-MinAtar, can be trained together; leave seeds= out"
        )


class _Member:
    """One of the runs: its folder and its clocks."""

    def __init__(self, config: Config, progress: Progress, opened: contextlib.ExitStack):
        """Take the folder; writes nothing but the lock.

        Raises:
          BadInput: another process has it, or it holds another configuration.
        """
        self.config = config
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

    def open(self, clocks: Clocks, opened: contextlib.ExitStack) -> None:
        """Begin to write, from these clocks on."""
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
        self.done_at = dict.fromkeys(self.periods, clocks)
        way = pace.way(self.config, clocks)
        self._is_due = {what: Every(period, way) for what, period in self.periods.items()}

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
        way, minutes = pace.way(self.config, self.clocks), self.config.checkpoint.minutes
        due = {what for what, is_due in self._is_due.items() if is_due(way)}
        waited = (time.perf_counter() - self._saved_at) / 60
        return due | ({"save"} if 0 < minutes <= waited else set())

    def missing(self, wanted: Sequence[str]) -> set[str]:
        """What was last done at other clocks than the present ones."""
        now = self.clocks.agent_steps, self.clocks.updates
        done = {what: (at.agent_steps, at.updates) for what, at in self.done_at.items()}
        return {what for what in wanted if done[what] != now}

    def next_stop(self) -> tuple[int, int]:
        """Agent steps and updates where something is due next."""
        config, clocks = self.config, self.clocks
        if clocks.agent_steps < config.total_agent_steps:
            stops = [(clocks.agent_steps // n + 1) * n for n in self.periods.values() if n]
            return min([*stops, config.total_agent_steps]), 0
        updates, way = clocks.updates, pace.way(config, clocks)
        while updates < config.total_updates:
            updates += pace.updates_left(config, dataclasses.replace(clocks, updates=updates))
            ahead = pace.way(config, dataclasses.replace(clocks, updates=updates))
            if any(ahead // n > way // n for n in self.periods.values() if n):
                break
        return config.total_agent_steps, updates

    def log(self, lane: Lane) -> dict[str, float]:
        """One line of metrics; `lane` as in `tick`."""
        metrics, done = means(lane.run.metrics), lane.finished
        if done.games:
            metrics |= {"rollout/return": done.score / done.games}
            metrics |= {"rollout/length": done.length / done.games, "rollout/games": done.games}
        metrics["opt/skipped"] = int(lane.run.train.skipped)
        self.writer.write(self.clocks, metrics)
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
        run_folder.write_scores(self.folder, scores(self.config, games), self.clocks)
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


class Together:
    """The runs that one program trains."""

    def __init__(self, runs: Sequence[Config], progress: Progress):
        """Build everything; nothing large is allocated before memory and disk were looked at.

        Raises:
          BadInput: they cannot be trained together, or there is no room.
        """
        check_alike(runs)
        self.progress, self.interrupt = progress, Interrupt()
        with contextlib.ExitStack() as opened:  # closes what is open if something is refused
            self._build(runs, opened)
            self._open = opened.pop_all()

    def _build(self, runs: Sequence[Config], opened: contextlib.ExitStack) -> None:
        first, count = runs[0], len(runs)
        task = resolve_game(first.game, first.env.backend)
        game = make_game(task, first.env, training=True)
        config = resolve(first, game.spec.num_actions)
        model = make_model(config, game.spec)
        self.members = [_Member(run, self.progress, opened) for run in runs]
        plan = memory_plan(config, model)
        memory.check_together(plan, count, memory.available_memory())
        for member in self.members:
            check_disk(config, plan, member.folder)
        self.program = lanes.make_program(
            config, model, game, make_game(task, first.env, training=False)
        )
        self.config, self._compiled = config, {}
        self.progress.say(f"{count} runs of {task.name} in one program")
        self.lanes = self._start(runs)
        for member, clocks in zip(self.members, self._restore(), strict=True):
            member.open(clocks, opened)

    def _start(self, runs: Sequence[Config]) -> Lane:
        seed = np.array([run.seed for run in runs], np.int32)
        game_seed = np.array([seed_of_games(run.seed, 0) for run in runs], np.int32)
        values = [flatten(run) for run in runs]
        table = {key: np.array([v[key] for v in values], np.float32) for key in lanes.NUMBERS}
        differing = {key: column for key, column in table.items() if len(set(column)) > 1}
        return self.program.start(seed, game_seed, differing)

    def _restore(self) -> list[Clocks]:
        """Put what the folders hold into the lanes; the clocks of each."""
        all_clocks = []
        for i, member in enumerate(self.members):
            lane = self._lane(i)
            saved = member.restore({"train": lane.run.train, ITEM: without_train(lane)})
            if saved is None:
                all_clocks.append(Clocks())
                continue
            run = saved.state[ITEM].run.replace(train=saved.state["train"])
            lane = saved.state[ITEM].replace(run=run, numbers=lane.numbers)
            self.lanes = jax.tree.map(lambda x, one, i=i: x.at[i].set(one), self.lanes, lane)
            all_clocks.append(run_folder.read_clocks(saved))
            self.progress.say(f"{member.folder} resumed at {all_clocks[-1].agent_steps:,} steps")
        return all_clocks

    def _lane(self, i: int) -> Lane:
        return jax.tree.map(lambda x: x[i], self.lanes)

    def __enter__(self) -> "Together":
        """Show the progress bar while the runs last."""
        name, config = f"{len(self.members)} x {self.config.game}", self.config
        bar = self.progress.running(name, config.total_agent_steps, config.total_updates)
        self._open.enter_context(bar)
        return self

    def __exit__(self, *raised: object) -> None:
        """Finish what is being written and let go of everything."""
        self._open.__exit__(*raised)

    def is_unfinished(self) -> bool:
        """Whether a run has more to do, and nobody asked to stop."""
        return not self.interrupt.requested and any(map(_has_more, self.members))

    def advance(self) -> None:
        """Play and learn until something is due in the run that is furthest behind."""
        unfinished = [member for member in self.members if _has_more(member)]
        steps, updates = min(member.next_stop() for member in unfinished)
        run = self._compile("advance", self.lanes, np.int32(steps), np.int32(updates))
        with watchdog.at("running the program"):
            self.lanes = jax.block_until_ready(run(self.lanes, np.int32(steps), np.int32(updates)))

    def _compile(self, name: str, *args: Any) -> Any:
        if name not in self._compiled:
            function = getattr(self.program, name)
            with self.progress.compiling(name), watchdog.at(f"compiling {name}"):
                self._compiled[name] = function.lower(*args).compile()
        return self._compiled[name]

    def report(self) -> None:
        """Log, evaluate and save, each in the runs where it is due."""
        facts = self._facts()
        for member, lane in zip(self.members, facts, strict=True):
            member.tick(lane)
        self._do([member.due() for member in self.members], facts)

    def finish(self) -> None:
        """Log, evaluate and save once more where something has happened since."""
        wanted = ["save"] if self.interrupt.requested else ["log", "evaluate", "save"]
        facts = self._facts()
        self._do([member.missing(wanted) for member in self.members], facts)
        for member in self.members:
            member.checkpointer.wait()
        stopped = self.interrupt.requested
        told = "stopped; the same command goes on from here" if stopped else "done"
        folders = ", ".join(str(member.folder) for member in self.members)
        self.progress.say(f"{told}: {folders}")

    def _facts(self) -> list[Lane]:
        """Clocks and sums of every lane, on the host; nothing large."""
        run, train = self.lanes.run, self.lanes.run.train
        train = train.replace(variables=None, next_target=None, target=None, opt_state=None)
        run = run.replace(train=train, replay=None, frames=None, key=None)
        small = self.lanes.replace(run=run, games=None, step=None)
        there = jax.device_get(small)
        return [jax.tree.map(lambda x, i=i: x[i], there) for i in range(len(self.members))]

    def _do(self, due: Sequence[set[str]], facts: Sequence[Lane]) -> None:
        is_due = lambda what: [i for i, wanted in enumerate(due) if what in wanted]  # noqa: E731
        if logging := is_due("log"):
            self._tell([self.members[i].log(facts[i]) for i in logging], logging)
            self.lanes = _forget_sums(self.config, self.lanes, jnp.array(logging))
        if evaluating := is_due("evaluate"):
            returns, lengths = self._play_games()
            games = [Games(returns[i].astype(float), lengths[i]) for i in evaluating]
            measured = [
                self.members[i].evaluate(played, self._lane(i).run.train)
                for i, played in zip(evaluating, games, strict=True)
            ]
            self._tell(measured, evaluating)
        for i in is_due("save"):
            self.members[i].save(self._lane(i))
        for member, wanted in zip(self.members, due, strict=True):
            member.done_at |= dict.fromkeys(wanted, member.clocks)

    def _play_games(self) -> tuple[np.ndarray, np.ndarray]:
        evaluate = self._compile("evaluate", self.lanes)
        with watchdog.at("evaluating"):
            return jax.device_get(evaluate(self.lanes))

    def _tell(self, metrics: Sequence[Mapping[str, float]], which: Sequence[int]) -> None:
        """Show the mean over the runs that have something to tell."""
        names = set.intersection(*(set(line) for line in metrics))
        mean = {name: float(np.mean([line[name] for line in metrics])) for name in names}
        slowest = min((self.members[i] for i in which), key=lambda member: _reading(member.clocks))
        score, steps = mean.get(EVALUATION), slowest.clocks.agent_steps
        remark = None if score is None else on_track.compare(slowest.config, steps, score)
        self.progress.update(slowest.clocks, mean, remark)


def _has_more(member: _Member) -> bool:
    config, clocks = member.config, member.clocks
    return clocks.agent_steps < config.total_agent_steps or clocks.updates < config.total_updates


def _reading(clocks: Clocks) -> tuple[int, int]:
    return clocks.agent_steps, clocks.updates


def _forget_sums(config: Config, lanes_: Lane, which: Any) -> Lane:
    """Begin the sums of some lanes anew."""
    nothing = no_metrics(config), lanes.nothing_finished()
    sums, finished = jax.tree.map(
        lambda x, zero: x.at[which].set(zero), (lanes_.run.metrics, lanes_.finished), nothing
    )
    return lanes_.replace(run=lanes_.run.replace(metrics=sums), finished=finished)
