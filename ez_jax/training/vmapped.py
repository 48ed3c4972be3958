"""Several runs of one game in one program, which takes less time than one after another.

    python -m ez_jax.train game=Breakout-MinAtar seeds=5

Each run has its own folder, which holds what every other run's folder holds; evaluation, reports
and `ez_jax.load` see no difference. A run that was stopped goes on in any company, because nothing
of it depends on the others: those that are ahead wait for it.
"""

import collections
import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ez_jax import config as configs
from ez_jax.agent.model import make_model
from ez_jax.config import BadInput, Config, flatten
from ez_jax.config.games import find_task
from ez_jax.envs.gymnax_adapter import make_game
from ez_jax.evaluation import on_track
from ez_jax.evaluation.scores import Games
from ez_jax.storage.metrics import EVALUATION
from ez_jax.structs import Clocks
from ez_jax.system import compilation, exits, free_memory, watchdog
from ez_jax.system.signals import Interrupt
from ez_jax.terminal.progress import Progress
from ez_jax.training import vmapped_program
from ez_jax.training.games import seed_of_games
from ez_jax.training.planning import memory
from ez_jax.training.planning.needs import check_disk, memory_plan
from ez_jax.training.record import ITEM, Member, without_train
from ez_jax.training.vmapped_program import Lane

OWN = ("seed", "name", "run_dir", *vmapped_program.NUMBERS)  # settings in which the runs may differ


def train_together(runs: Sequence[Config]) -> int:
    """Train runs that differ in seed, folder and numbers (`lanes.NUMBERS`); the exit code.

    Raises:
      BadInput: they differ in something else, or their game is no function on the device.
    """
    compilation.configure_jax()
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
    return exits.INTERRUPTED if together.interrupt.requested else exits.DONE


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
    folders = collections.Counter(configs.run_folder(config) for config in runs)
    [(folder, count)] = folders.most_common(1)
    if count > 1:
        raise BadInput(
            f"{count} runs have the folder {folder}: give each a seed or name of its own"
        )
    if runs[0].replay.memory != "device":
        raise BadInput(
            f"replay.memory is {runs[0].replay.memory}, but runs in one program keep their replay "
            "on the device: set replay.memory=device, or leave seeds= out"
        )
    task = find_task(runs[0].game, runs[0].env.backend)
    if task.backend != "gymnax":
        raise BadInput(
            f"{task.name} is played by {task.backend}, outside of the program: only games of "
            "gymnax, such as Breakout-MinAtar, can be trained together; leave seeds= out"
        )


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
        config, count = runs[0], len(runs)
        task = find_task(config.game, config.env.backend)
        game = make_game(task, config.env, training=True)
        model = make_model(config, game.spec)
        self.members = [Member(run, self.progress, opened) for run in runs]
        plan = memory_plan(config, model)
        memory.check_together(plan, count, free_memory.available_memory())
        for member in self.members:
            check_disk(config, plan, member.folder)
        self.program = vmapped_program.make_program(
            config, model, game, make_game(task, config.env, training=False)
        )
        self.config, self._compiled = config, {}
        self.progress.say(f"{count} runs of {task.name} in one program")
        self.lanes = self._start(runs)
        for member, clocks in zip(self.members, self._restore(), strict=True):
            member.open(clocks, game.spec.num_actions, opened)

    def _start(self, runs: Sequence[Config]) -> Lane:
        seed = np.array([run.seed for run in runs], np.int32)
        game_seed = np.array([seed_of_games(run.seed, 0) for run in runs], np.int32)
        values = [flatten(run) for run in runs]
        table = {
            key: np.array([v[key] for v in values], np.float32) for key in vmapped_program.NUMBERS
        }
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
            self.lanes = _put(self.lanes, np.int32(i), lane)
            all_clocks.append(saved.clocks)
            self.progress.say(f"{member.folder} resumed at {all_clocks[-1].agent_steps:,} steps")
        return all_clocks

    def _lane(self, i: int) -> Lane:
        return _take(self.lanes, np.int32(i))

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
        return not self.interrupt.requested and any(member.has_more for member in self.members)

    def advance(self) -> None:
        """Play and learn until something is due in the run that is furthest behind."""
        unfinished = [member for member in self.members if member.has_more]
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
            told = np.isin(np.arange(len(self.members)), logging)
            self.lanes = _forget_sums(self.lanes, told)
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


def _reading(clocks: Clocks) -> tuple[int, int]:
    return clocks.agent_steps, clocks.updates


# Jitted: one program each instead of one per array.


@jax.jit
def _take(lanes_: Lane, i: Array) -> Lane:
    """One of the lanes."""
    return jax.tree.map(lambda x: x[i], lanes_)


@functools.partial(jax.jit, donate_argnums=0)
def _put(lanes_: Lane, i: Array, lane: Lane) -> Lane:
    """The inverse of the above."""
    return jax.tree.map(lambda x, one: x.at[i].set(one), lanes_, lane)


@functools.partial(jax.jit, donate_argnums=0)
def _forget_sums(lanes_: Lane, told: Bool[Array, " L"]) -> Lane:
    """Begin the sums of those lanes anew that have been told."""
    forget = lambda told, x: jnp.where(told, jnp.zeros_like(x), x)  # noqa: E731
    sums, finished = jax.tree.map(
        lambda x: jax.vmap(forget)(told, x), (lanes_.run.metrics, lanes_.finished)
    )
    return lanes_.replace(run=lanes_.run.replace(metrics=sums), finished=finished)
