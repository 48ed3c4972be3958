"""Workloads that are a run as a whole: its loop, its compilation, its memory."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.bench.parts import Setting
from experiments.bench.programs import programs
from ez_jax.config import override
from ez_jax.terminal.progress import Progress
from ez_jax.training.planning.needs import memory_needs
from ez_jax.training.run import Run

MEGA = 1e-6
Row = dict[str, Any]


def train(setting: Setting, steps: int) -> Iterator[Row]:
    """The loop of `ez_jax.train` for so many agent steps with updates, and the share of its parts.

    Once as it is, and once with every part waited for, which tells what each one takes.
    """
    start = setting.config.learner.start
    changes = {
        "total_agent_steps": start + 3 * steps,
        "final_updates": 0,
        **{f"{part}.every": 0 for part in ("eval", "checkpoint")},
        "log.progress": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = override(setting.config, {**changes, "run_dir": folder})
        with contextlib.redirect_stderr(None), Run(config, Progress(live=False)) as run:
            loop = Loop(run)
            loop.until(start + steps)  # random play, and what has to be compiled
            free = loop.until(start + 2 * steps)
            waited = loop.until(start + 3 * steps, wait=True)
    yield {"case": "as it is", **free}
    yield {"case": "parts one by one", **waited}


class Loop:
    """The loop of train.py, with a clock in it."""

    def __init__(self, run: Run):
        """Begin the games."""
        self.run, self.step = run, run.begin()
        self.seconds: dict[str, float] = {}

    def until(self, agent_steps: int, *, wait: bool = False) -> Row:
        """Go on up to so many agent steps; with `wait` every part is waited for."""
        run = self.run
        jax.block_until_ready(run.state)
        self.seconds = dict.fromkeys(("search", "games", "updates", "reports"), 0.0)
        first, began = run.clocks, time.perf_counter()
        while run.clocks.agent_steps < agent_steps:
            action = self._timed("search", wait, lambda: run.decide(self.step))
            run.games.send(action)
            self._timed("updates", wait, lambda: run.learn(run.updates_due()))
            self.step = self._timed("games", wait, run.games.recv)
            self._timed("reports", wait, run.report)
        jax.block_until_ready(run.state)
        seconds = time.perf_counter() - began
        row = {
            "seconds": seconds,
            "agent_steps_per_s": (run.clocks.agent_steps - first.agent_steps) / seconds,
            "updates_per_s": (run.clocks.updates - first.updates) / seconds,
        }
        if wait:
            row |= {f"{name}_share": taken / seconds for name, taken in self.seconds.items()}
        return row

    def _timed(self, name: str, wait: bool, part: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = part()
        if wait:
            jax.block_until_ready(self.run.state)
        self.seconds[name] += time.perf_counter() - began
        return result


def checkpoint(setting: Setting, steps: int) -> Iterator[Row]:
    """Saving after nine times so many agent steps of random play, after as many more, and going on.

    `waits_s` is how long the loop stands still; the rest goes on beside it.
    """
    changes = {
        "total_agent_steps": 10 * steps,
        "learner.start": 10 * steps,  # random play: real frames, no searches
        "replay.capacity": 10 * steps,
        "eval.every": 0,
        "log.tensorboard": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = override(setting.config, {**changes, "run_dir": folder})
        with contextlib.redirect_stderr(None), Run(config, Progress(live=False)) as run:
            step = run.begin()
            for share in (9, 10):
                while run.clocks.agent_steps < share * steps:
                    run.games.send(run.decide(step))
                    step = run.games.recv()
                jax.block_until_ready(run.state)
                yield {"case": f"save at {run.clocks.agent_steps:,}", **_save(run, Path(folder))}
        began = time.perf_counter()
        with contextlib.redirect_stderr(None), Run(config, Progress(live=False)) as run:
            jax.block_until_ready(run.state)
            restored = time.perf_counter() - began
            run.config = override(run.config, {"total_agent_steps": 20 * steps})  # to be played on
            run.begin()
            games = time.perf_counter() - began - restored
        yield {"case": "go on from there", "read_s": restored, "games_brought_back_s": games}


def _save(run: Run, folder: Path) -> Row:
    before, began = _megabytes(folder), time.perf_counter()
    run.save()
    waits = time.perf_counter() - began
    run.record.checkpointer.wait()
    seconds = time.perf_counter() - began
    rows = MEGA * sum(path.stat().st_size for path in folder.glob("checkpoints/rows/*"))
    there = _megabytes(folder)
    return {
        "waits_s": waits,
        "whole_s": seconds,
        "new_mbyte": there - before,
        "rows_mbyte": rows,
        "folder_mbyte": there,
        "replay_mbyte": MEGA * run.state.replay.rows.observation.nbytes,
    }


def _megabytes(folder: Path) -> float:
    return MEGA * sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compile_(setting: Setting, steps: int) -> Iterator[Row]:
    """Seconds to compile the programs of a run, with an empty cache and with a warm one."""
    del steps
    before = jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        try:
            for name, function, args in programs(setting):
                seconds = {}
                for state in ("cold", "warm"):
                    jax.clear_caches()
                    began = time.perf_counter()
                    lowered = function.lower(*args)
                    seconds[f"{state}_trace_s"] = time.perf_counter() - began
                    began = time.perf_counter()
                    lowered.compile()
                    seconds[f"{state}_compile_s"] = time.perf_counter() - began
                size = sum(path.stat().st_size for path in Path(folder).iterdir())
                yield {"case": name, **seconds, "cache_mbyte": MEGA * size}
        finally:
            jax.config.update("jax_compilation_cache_dir", before)


def memory(setting: Setting, steps: int) -> Iterator[Row]:
    """What the compiled programs want, beside what the plan of a run predicts."""
    del steps
    for name, function, args in programs(setting):
        wanted = function.lower(*args).compile().memory_analysis()
        yield {
            "case": name,
            "arguments_mbyte": MEGA * wanted.argument_size_in_bytes,
            "outputs_mbyte": MEGA * wanted.output_size_in_bytes,
            "shared_mbyte": MEGA * wanted.alias_size_in_bytes,
            "temporary_mbyte": MEGA * wanted.temp_size_in_bytes,
        }
    needs = memory_needs(setting.config, setting.model)
    yield {"case": f"planned, {setting.config.replay.capacity:,} rows", "text": needs.describe()}


WHOLE: dict[str, Callable[[Setting, int], Iterator[Row]]] = {
    "train": train,
    "checkpoint": checkpoint,
    "compile": compile_,
    "memory": memory,
}
