"""A rehearsal of a run: its own programs and games, each timed a few times.

The run is a real one in a temporary folder with a short replay. An update that would take too long
on a CPU is measured with fewer samples and scaled by counted operations.
"""

import dataclasses
import functools
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ez_jax.agent.actor import init_playing, make_eval_policy
from ez_jax.agent.model import Model
from ez_jax.config import Config, override
from ez_jax.envs import make_env
from ez_jax.structs import NEVER, Replay
from ez_jax.terminal.progress import Progress
from ez_jax.training.planning.memory import MemoryNeeds
from ez_jax.training.planning.needs import CPU_FLOP_PER_S, searched_share, update_flops
from ez_jax.training.run import Run

RING_BYTES = 256_000_000  # of the short replay
LONG = 4.0  # seconds of a group of updates, by counted operations
MOST, SECONDS = 200, {"acting": 5.0, "learning": 20.0, "evaluation": 5.0}  # of measuring


@dataclasses.dataclass(frozen=True)
class Rates:
    """Seconds that the parts of a run take on this device."""

    compiling: dict[str, float]  # by part, from the cache of compiled programs what is there
    decision: float  # of all environments together, including their step
    update: float  # with sampling, reanalysis and targets
    evaluation: float  # one step of all evaluation games together
    batch_size: int  # of the measured update; scaled if it differs from the run's
    capacity: int  # agent steps of the measured replay


def rehearse(config: Config, model: Model, needs: MemoryNeeds, say: Callable[[str], None]) -> Rates:
    """Measure a run whose needs fit; `say` reports what is being measured."""
    batch = measured_batch(config, model, jax.default_backend())
    capacity = min(needs.sizes.capacity, max(2_000, 10 * batch, RING_BYTES // needs.per_step))
    changes: dict[str, int | str] = {"learner.batch_size": batch, "replay.capacity": capacity}
    if needs.sizes.on_host:
        changes["replay.memory"] = "host"  # because the short one would fit on the device
    small = override(config, changes)
    scale = update_flops(config, model) / update_flops(small, model) if small != config else 1.0
    parts = {"acting": _acting, "learning": _learning, "evaluation": _evaluation}
    timings = {}
    with _opened(small) as (run, starting):
        for part, works in parts.items():
            say(f"measuring {part} (compiling first) ...")
            with works(run) as work:
                timings[part] = _repeat(work, SECONDS[part])
    return Rates(
        compiling={"start": starting} | {part: timing.first for part, timing in timings.items()},
        decision=timings["acting"].each,
        update=scale * timings["learning"].each,
        evaluation=timings["evaluation"].each,
        batch_size=batch,
        capacity=capacity,
    )


def measured_batch(config: Config, model: Model, platform: str) -> int:
    """The batch size of the run; on a CPU a half, a quarter, ... if it would take too long."""
    batch = config.learner.batch_size
    if platform != "cpu":
        return batch
    flops = update_flops(config, model) * config.reanalyse.updates_per_search
    seconds = flops / (CPU_FLOP_PER_S * (os.cpu_count() or 1))
    while seconds > LONG and batch > 1:
        batch, seconds = batch // 2, seconds / 2
    return batch


class _Rehearsal(Run):
    """A run whose folder is gone at its end, so that a crash bundle would be lost."""

    def _leave_crash_bundle(self, *_: Any) -> None:
        """Leave none: the command tells the error."""


@contextmanager
def _opened(config: Config) -> Iterator[tuple[Run, float]]:
    """A run without output or files left behind, and the seconds of its start."""
    with tempfile.TemporaryDirectory(prefix="ez_jax-plan-") as folder:
        changes = {
            "run_dir": folder,
            "actor.random_start": False,  # every decision is a search
            "log.tensorboard": False,
            "log.wandb": False,
            **{f"{part}.every": 0 for part in ("log", "eval", "checkpoint")},
        }
        began = time.perf_counter()
        quiet = Progress(live=False, stream=io.StringIO())
        with _Rehearsal(override(config, changes), quiet) as run:
            yield run, time.perf_counter() - began


@dataclasses.dataclass(frozen=True)
class Timing:
    """Extra seconds of the first call, and seconds of one unit of work."""

    first: float
    each: float


def _repeat(
    work: Callable[[int], int], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Time `work(n)`, which repeats something n times and returns the units of work done."""
    times: list[float] = []
    units: list[int] = []
    n = 1
    for round_ in range(3):  # compile; find the number of repeats; measure
        if round_ == 2:
            n = min(MOST, max(1, int(seconds / max(times[1], 1e-6))))
        began = clock()
        units.append(work(n))
        times.append(clock() - began)
    each = times[2] / units[2]
    return Timing(first=max(0.0, times[0] - each * units[0]), each=each)


@contextmanager
def _acting(run: Run) -> Iterator[Callable[[int], int]]:
    step = run.begin()

    def act(times: int) -> int:
        nonlocal step
        for _ in range(times):
            run.games.send(run.decide(step))
            step = run.games.recv()
        jax.block_until_ready(run.state)
        return times

    yield act


@contextmanager
def _learning(run: Run) -> Iterator[Callable[[int], int]]:
    config = run.config
    group = config.reanalyse.updates_per_search
    refill = jax.jit(functools.partial(_as_full, share=searched_share(config)), donate_argnums=0)
    key = jax.random.key(0)

    def learn(times: int) -> int:
        for i in range(times):
            if i == 0 or config.reanalyse.mode == "buffer":  # because a search leaves nothing to do
                train, replay = run.state.train, run.state.replay
                replay = refill(replay, jax.random.fold_in(key, i), train.updates)
                run.state = run.state.replace(replay=replay)
            run.learn(group)
        jax.block_until_ready(run.state)
        return times * group

    yield learn


def _as_full(replay: Replay, key: jax.Array, updates: jax.Array, *, share: float) -> Replay:
    """Make the replay look full, with as many outdated rows as in a long run."""
    is_old = jax.random.uniform(key, replay.priority.shape) < share
    rows = replay.rows.replace(searched=jnp.where(is_old, NEVER, updates))
    count = jnp.maximum(replay.count, 2 * replay.priority.shape[0])
    return Replay(rows=rows, priority=jnp.ones_like(replay.priority), count=count)


@contextmanager
def _evaluation(run: Run) -> Iterator[Callable[[int], int]]:
    config = run.config
    games, seed = min(config.eval.num_envs, config.eval.episodes), config.eval.seed
    policy = jax.jit(make_eval_policy(config, run.model), donate_argnums=1)
    variables, playing = run.state.train.variables, init_playing(run.model.spec, seed, games)
    env = make_env(config.game, config.env, num_envs=games, seed=seed, training=False, render=False)
    step = env.reset()

    def evaluate(times: int) -> int:
        nonlocal playing, step
        for _ in range(times):
            found, playing = policy(variables, playing, step)
            step = env.step(np.asarray(found.action))
        return times

    with closing(env):
        yield evaluate
