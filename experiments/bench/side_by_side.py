"""Workloads that compare whole runs: in one program and alone, frames on the device or the host."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from experiments.bench.parts import Setting
from experiments.bench.whole import Loop, Row, train
from ez_jax import envs
from ez_jax.config import BadInput, Config, games, override
from ez_jax.envs.gymnax_adapter import make_game
from ez_jax.terminal.progress import Progress
from ez_jax.training import lanes, vmapped_program
from ez_jax.training.run import Run

COUNTS = (1, 5, 10)
MEMORIES, TURNS = ("device", "auto", "host"), 7


def together(setting: Setting, steps: int) -> Iterator[Row]:
    """So many agent steps with updates in each of some runs; `batches` are numbers of runs.

    Once after as many that are not timed. The last row is the usual loop with one run.
    """
    config = setting.config
    if not envs.runs_on_device(config.game, config.env.backend):
        raise BadInput("only games of gymnax run in the program: write game=Breakout-MinAtar")
    for count in setting.batches or COUNTS:
        yield {"case": f"{count} in one program", **_rate(config, setting, count, steps)}
    alone = next(train(setting, steps))
    names = "seconds", "agent_steps_per_s", "updates_per_s"
    yield {"case": "1 by itself", "compile_s": 0.0, **{name: alone[name] for name in names}}


def _rate(config: Config, setting: Setting, count: int, steps: int) -> dict[str, Any]:
    game = make_game(games.find_task(config.game, config.env.backend), config.env, training=True)
    mesh = lanes.make_mesh(count, config.devices)
    program = vmapped_program.make_program(config, setting.model, game, game, mesh)
    seeds = np.arange(lanes.number(count, mesh), dtype=np.int32)
    state = program.start(seeds, seeds, {}, seeds >= count)
    until = lambda n: (np.int32(config.learner.start + n), np.int32(0))  # noqa: E731
    began = time.perf_counter()
    advance = program.advance.lower(state, *until(steps)).compile()
    compiled = time.perf_counter() - began
    before = jax.block_until_ready(advance(state, *until(steps)))
    first = jax.device_get((before.agent_steps, before.run.train.updates))
    began = time.perf_counter()
    after = jax.block_until_ready(advance(before, *until(2 * steps)))
    seconds = time.perf_counter() - began
    last = jax.device_get((after.agent_steps, after.run.train.updates))
    played, learned = (int(np.sum(b - a)) for a, b in zip(first, last, strict=True))
    return {
        "compile_s": compiled,
        "seconds": seconds,
        "agent_steps_per_s": played / seconds,
        "updates_per_s": learned / seconds,
    }


def memories(setting: Setting, steps: int) -> Iterator[Row]:
    """The loop with its frames on the device, there but drawn ahead, and on the host, in turns.

    Each plays so many agent steps with updates per turn. The first turn is not timed. A ratio is
    the median of those to `device` in the same turn.
    """
    start = setting.config.learner.start
    changes = {"eval.every": 0, "checkpoint.every": 0, "final_updates": 0}
    changes |= {"total_agent_steps": start + (TURNS + 1) * steps}
    found: dict[str, list[Row]] = {where: [] for where in MEMORIES}
    with contextlib.ExitStack() as opened:
        loops = {}
        for where in MEMORIES:
            folder = opened.enter_context(tempfile.TemporaryDirectory())
            own = {**changes, "replay.memory": where, "run_dir": folder, "log.progress": False}
            run = opened.enter_context(Run(override(setting.config, own), Progress(live=False)))
            loops[where] = Loop(run)
            loops[where].until(start + steps)
        for turn in range(TURNS):
            for where, loop in loops.items():
                found[where].append(loop.until(start + (2 + turn) * steps))
    for where, rows in found.items():
        rates = [row["updates_per_s"] for row in rows]
        ratios = [a / b["updates_per_s"] for a, b in zip(rates, found["device"], strict=True)]
        median = {"updates_per_s": statistics.median(rates), "ratio": statistics.median(ratios)}
        yield {"case": f"replay.memory={where}", **median, "turns": TURNS}
