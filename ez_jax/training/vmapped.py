"""Several runs of one game in one program, which is faster than one after another.

    python -m ez_jax.train game=Breakout-MinAtar seeds=5

Each run has its own folder, with the same files as any other run; evaluation, reports and
`ez_jax.load` see no difference. An interrupted run can resume together with any others, because it
does not depend on them; runs that are ahead wait for it.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ez_jax import config as configs
from ez_jax.agent import schedules
from ez_jax.agent.model import make_model
from ez_jax.config import BadInput, Config, flatten
from ez_jax.config.games import find_task
from ez_jax.envs.gymnax_adapter import make_game
from ez_jax.evaluation import on_track
from ez_jax.evaluation.scores import Games
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.metrics import EVALUATION
from ez_jax.structs import Clocks
from ez_jax.system import compilation, exits, free_memory, watchdog
from ez_jax.system.compilation import announced
from ez_jax.system.signals import Interrupt
from ez_jax.terminal.progress import Progress
from ez_jax.training import lanes, vmapped_program
from ez_jax.training.games import seed_of_games
from ez_jax.training.planning import memory
from ez_jax.training.planning.needs import check_disk, memory_needs
from ez_jax.training.record import EVALUATE, LOG, SAVE, Record, next_command, periods
from ez_jax.training.vmapped_program import VmappedRun

ITEM = "lane"  # of a checkpoint: what a run needs to resume; the name must not change
OWN = ("seed", "name", "run_dir", *vmapped_program.NUMBERS)  # settings in which runs may differ


def train_together(runs: Sequence[Config]) -> int:
    """Train runs that differ in seed, folder and `vmapped_program.NUMBERS`; returns the exit code.

    Raises:
      BadInput: they differ in something else, or their game does not run on the device.
    """
    compilation.configure_jax()
    first = runs[0]
    progress = Progress(live=first.log.progress)
    with (
        watchdog.Watchdog(configs.run_folder(first), first.log.watchdog),
        VmappedRuns(runs, progress) as vmapped,
        vmapped.interrupt,
    ):
        while vmapped.is_unfinished():
            vmapped.advance()  # play and learn, in all runs, until something is due
            vmapped.report()
        vmapped.finish()
    return exits.INTERRUPTED if vmapped.interrupt.requested else exits.DONE


def check_alike(runs: Sequence[Config]) -> None:
    """Refuse runs that cannot share one program.

    Raises:
      BadInput: names the first setting in which they differ, or a folder that two of them share.
    """
    first = flatten(runs[0])
    for other in map(flatten, runs[1:]):
        for key in first.keys() - set(OWN):
            if first[key] != other[key]:
                raise BadInput(
                    f"runs in one program may not differ in {key} ({first[key]} and {other[key]}): "
                    "run them one after another, with -m instead of seeds="
                )
    folders = collections.Counter(configs.run_folder(config) for config in runs)
    [(folder, count)] = folders.most_common(1)
    if count > 1:
        raise BadInput(f"{count} runs have the folder {folder}: give each its own seed or name")
    if runs[0].replay.memory != "device":
        raise BadInput(
            f"replay.memory is {runs[0].replay.memory}, but runs in one program keep their replay "
            "on the device: set replay.memory=device, or leave out seeds="
        )
    task = find_task(runs[0].game, runs[0].env.backend)
    if task.backend != "gymnax":
        raise BadInput(
            f"{task.name} is played by {task.backend}, outside of the program: only games of "
            "gymnax, such as Breakout-MinAtar, can be trained together; leave out seeds="
        )


class VmappedRuns(contextlib.AbstractContextManager["VmappedRuns"]):
    """The runs of one program: their state on the device, and a record of each."""

    def __init__(self, configurations: Sequence[Config], progress: Progress):
        """Set everything up; nothing large is allocated before memory and disk are checked.

        Raises:
          BadInput: they cannot be trained together, or there is not enough memory or disk.
        """
        check_alike(configurations)
        self.progress, self.interrupt = progress, Interrupt()
        with contextlib.ExitStack() as opened:  # closes everything if something is refused
            self._build(configurations, opened)
            self._open = opened.pop_all()

    def _build(self, configurations: Sequence[Config], opened: contextlib.ExitStack) -> None:
        self.config = config = configurations[0]
        count = len(configurations)
        task = find_task(config.game, config.env.backend)
        game = make_game(task, config.env, training=True)
        model = make_model(config, game.spec)
        self.records = [
            Record(one, self.progress, opened, is_alone=False) for one in configurations
        ]
        needs = memory_needs(config, model)
        mesh = lanes.make_mesh(count, config.devices)
        memory.check_runs(needs, count, mesh.size, free_memory.available_memory())
        self._lanes = lanes.number(count, mesh)
        for record in self.records:
            check_disk(config, needs, record.folder)
        eval_game = make_game(task, config.env, training=False)
        self._limit = eval_game.limit
        self.program = vmapped_program.make_program(config, model, game, eval_game, mesh)
        self._advance = announced(self.progress.compiling, "advance", self.program.advance)
        self._evaluate = announced(self.progress.compiling, "evaluate", self.program.evaluate)
        on_devices = f" on {mesh.size} devices" if mesh.size > 1 else ""
        self.progress.say(f"{count} runs of {task.name} in one program{on_devices}")
        self.runs = self._start(configurations)
        saved = [self._restore(i, record) for i, record in enumerate(self.records)]
        for record, clocks in zip(self.records, saved, strict=True):
            record.open(game.spec, clocks, opened)
        name, total = f"{count} x {config.game}", (config.total_agent_steps, config.total_updates)
        opened.enter_context(self.progress.running(name, *total))  # the progress bar

    def _start(self, configurations: Sequence[Config]) -> VmappedRun:
        spare = self._lanes - len(configurations)
        lane_of = [*configurations, *spare * [configurations[-1]]]
        seed = np.array([one.seed for one in lane_of], np.int32)
        game_seed = np.array([seed_of_games(one.seed, 0) for one in lane_of], np.int32)
        is_spare = np.arange(self._lanes) >= len(configurations)
        values = [flatten(one) for one in lane_of]
        table = {
            key: np.array([v[key] for v in values], np.float32) for key in vmapped_program.NUMBERS
        }
        differing = {key: column for key, column in table.items() if len(set(column)) > 1}
        return self.program.start(seed, game_seed, differing, is_spare)

    def _restore(self, i: int, record: Record) -> Clocks | None:
        """Restore a run from its folder; returns its clocks."""
        run = self._run(i)

        def template(meta: Mapping[str, Any]) -> Mapping[str, Any]:
            if not meta.get("together"):
                raise BadInput(
                    f"{record.folder} has a run that was trained alone: resume it without "
                    "seeds=, or choose another name="
                )
            return _items(run)

        saved = record.checkpointer.restore_newest(template)
        if saved is None:
            return None
        state = saved.state[ITEM].run.replace(train=saved.state["train"])
        run = saved.state[ITEM].replace(run=state, numbers=run.numbers)
        self.runs = lanes.put(self.runs, i, run)
        clocks = saved.clocks
        self.progress.say(f"{record.folder} resumed at {clocks.agent_steps:,} steps")
        return clocks

    def _run(self, i: int) -> VmappedRun:
        return lanes.take(self.runs, i)

    def __exit__(self, *raised: Any) -> None:
        self._open.__exit__(*raised)

    def is_unfinished(self) -> bool:
        """Whether a run has more to do and nothing asked to stop."""
        return not self.interrupt.requested and not all(one.is_complete for one in self.records)

    def advance(self) -> None:
        """Act and learn until something is due in the run that is furthest behind."""
        unfinished = [record for record in self.records if not record.is_complete]
        steps, updates = map(np.int32, min(map(next_stop, unfinished)))
        with watchdog.at("running the program"):
            self.runs = jax.block_until_ready(self._advance(self.runs, steps, updates))

    def report(self) -> None:
        """Log, evaluate and save in the runs where it is due."""
        for record in self.records:
            record.checkpointer.check()
        fetched = self._fetch()
        for record, run in zip(self.records, fetched, strict=True):
            record.set_clocks(int(run.agent_steps), int(run.run.train.updates))
        self._do([record.due() | record.overdue() for record in self.records], fetched)

    def finish(self) -> None:
        """Log, evaluate and save once more where something has changed since."""
        stopped = self.interrupt.requested
        wanted = {SAVE} if stopped else {LOG, EVALUATE, SAVE}
        self._do([record.missing(wanted) for record in self.records], self._fetch())
        for record in self.records:
            record.checkpointer.wait()
        told = "stopped; the same command resumes it" if stopped else "done"
        for record in self.records:
            self.progress.say(f"{told}: {record.stands()}, {record.folder}")
        if not stopped:
            self.progress.say(f"next: {next_command(self.records[0].folder)}")

    def _fetch(self) -> list[VmappedRun]:
        """Clocks and sums of every run, on the host; nothing large."""
        run, train = self.runs.run, self.runs.run.train
        train = train.replace(variables=None, next_target=None, target=None, opt_state=None)
        run = run.replace(train=train, replay=None, frames=None, key=None)
        there = jax.device_get(self.runs.replace(run=run, games=None, step=None))
        return [jax.tree.map(lambda x, i=i: x[i], there) for i in range(len(self.records))]

    def _do(self, due: Sequence[set[str]], fetched: Sequence[VmappedRun]) -> None:
        is_due = lambda what: [i for i, those in enumerate(due) if what in those]  # noqa: E731
        if logging := is_due(LOG):
            lines = [_log(self.records[i], fetched[i]) for i in logging]
            self.progress.update(self._slowest(logging).now(), _mean(lines))
            told = np.isin(np.arange(self._lanes), logging)
            self.runs = self.program.forget(self.runs, told)
        if evaluating := is_due(EVALUATE):
            with watchdog.at("evaluating"):
                limits = np.ones(self._lanes, np.int32)  # spare ones play a single step
                limits[: len(self.records)] = [min(one.limit, self._limit) for one in self.records]
                played = jax.device_get(self._evaluate(self.runs, limits))
            returns, lengths, digests = played
            games = [
                Games(returns[i].astype(float), lengths[i], (), digests[i], int(limits[i]))
                for i in evaluating
            ]
            measured = [
                self.records[i].evaluate(played, self._run(i).run.train)
                for i, played in zip(evaluating, games, strict=True)
            ]
            self._tell_scores(measured, evaluating)
        for i in is_due(SAVE):
            self.records[i].save(functools.partial(_save, self._run(i)))

    def _tell_scores(self, measured: Sequence[Mapping[str, float]], which: Sequence[int]) -> None:
        """Show the mean over the evaluated runs; the standard error is over runs."""
        means, slowest = [each[EVALUATION] for each in measured], self._slowest(which)
        spread = {"eval/return_std": float(np.std(means)), "eval/episodes": len(means)}
        remark = on_track.published(slowest.config, slowest.clocks.agent_steps)
        self.progress.evaluation(slowest.now(), _mean(measured) | spread, remark, unit="run")

    def _slowest(self, which: Sequence[int]) -> Record:
        return min((self.records[i] for i in which), key=lambda one: one.clocks.counts)


def next_stop(record: Record) -> tuple[int, int]:
    """Agent steps and updates at which something is due next."""
    config, clocks = record.config, record.clocks
    every = [period for period in periods(config).values() if period]
    if clocks.agent_steps < config.total_agent_steps:
        stops = [(clocks.agent_steps // period + 1) * period for period in every]
        return min([*stops, config.total_agent_steps]), 0
    before = schedules.periodic_clock(config, clocks)
    while clocks.updates < config.total_updates:
        more = schedules.updates_left(config, clocks)
        clocks = dataclasses.replace(clocks, updates=clocks.updates + more)
        after = schedules.periodic_clock(config, clocks)
        if any(schedules.has_crossed(period, before, after) for period in every):
            break
    return config.total_agent_steps, clocks.updates


def _log(record: Record, run: VmappedRun) -> dict[str, float]:
    """Write a line of metrics of a run from its sums on the host."""
    done, games = run.finished, {}
    if done.games:
        games = {"rollout/return": float(done.score / done.games)}
        games["rollout/length"] = float(done.length / done.games)
        games["rollout/games"] = float(done.games)
    metrics = record.log(run.run.metrics, games, run.run.train)
    record.check(metrics, run.run.train)
    return metrics


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over the runs that have a value."""
    names = set.intersection(*(set(line) for line in metrics))
    return {name: float(np.mean([line[name] for line in metrics])) for name in names}


def _items(run: VmappedRun) -> dict[str, Any]:
    """A run as items of a checkpoint; its numbers are settings and left out."""
    rest = run.replace(run=run.run.replace(train=None), numbers={})
    return {"train": run.run.train, ITEM: rest}


def _save(run: VmappedRun, checkpointer: Checkpointer, clocks: Clocks) -> None:
    meta = {"clocks": dataclasses.asdict(clocks), "together": True}
    checkpointer.save(clocks.agent_steps, _items(run), meta)
