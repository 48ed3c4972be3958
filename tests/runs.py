"""Real training runs of CartPole that are over in seconds, in other processes and in this one."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ez_jax.config import Config, from_dict, override, presets
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.metrics import read_metrics
from ez_jax.storage.run_folder import read_config
from ez_jax.terminal.progress import Progress
from ez_jax.training.run import Run

ROOT = Path(__file__).parent.parent
START, STEPS, UPDATES_PER_STEP, FINAL_UPDATES = 20, 160, 0.3, 6
LOG_EVERY, EVAL_EVERY = 20, 50

# Every part of the algorithm is on, as small as it gets.
SETTINGS: dict[str, Any] = {
    "total_agent_steps": STEPS,
    "updates_per_step": UPDATES_PER_STEP,
    "final_updates": FINAL_UPDATES,
    "actor.num_envs": 2,
    "env.eval_max_episode_steps": 30,
    "search.num_simulations": 2,
    "targets.td_steps": 1,
    "reanalyse.max_age": 10,
    "replay.capacity": 100,
    "learner.start": START,
    "learner.batch_size": 4,
    "learner.unroll_steps": 1,
    "network.vector_width": 8,
    "network.vector_blocks": 1,
    "network.support": 5,
    "network.lstm_width": 8,
    "network.head_hidden": 8,
    "network.projection": 8,
    "network.predictor_hidden": 8,
    "eval.every": EVAL_EVERY,
    "eval.episodes": 3,
    "eval.num_envs": 3,
    "log.every": LOG_EVERY,
}


class Finished(NamedTuple):
    """A run that is complete, the folder that it was made in, and what it said."""

    folder: Path
    made_in: Path
    stdout: str
    stderr: str


def config(
    folder: Path, changes: Mapping[str, Any] | None = None, game: str = "CartPole"
) -> Config:
    """The configuration that `train` below gives to its process."""
    return presets.make_config(
        game, changes={**SETTINGS, "run_dir": str(folder), **(changes or {})}
    )


def start(
    module: str, *words: str, variables: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a command of ez_jax; its output comes line by line.

    `variables` of its environment beside the usual ones; `within` is a command that is given it.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        **(variables or {}),
    }
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.Popen(
        [*within, sys.executable, "-m", module, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def devices(number: int) -> dict[str, str]:
    """Variables of an environment in which JAX sees so many devices."""
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={number}"}


def wait(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a command."""
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def train_words(folder: Path, *words: str) -> list[str]:
    """The command line of a tiny run."""
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    return ["+game=CartPole", *settings, f"run_dir={folder}", *words]


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A tiny run from start to end, or to its end."""
    return wait(start("ez_jax.train", *train_words(folder, *words)))


def train_until(config: Config, steps: int) -> None:
    """The beginning of a run: it is saved at these agent steps, and can be resumed."""
    with Run(config, Progress(live=False)) as run:
        step = run.begin()
        while run.clocks.agent_steps < steps:
            run.games.send(run.decide(step))
            run.learn(run.updates_due())
            step = run.games.recv()
            run.report()
        run.save()
        run.record.checkpointer.wait()


def assert_near(folder: Path, other: Path) -> None:
    """Both runs took the same steps in the same games, and learned the same but for rounding."""
    lines, others = read_metrics(folder), read_metrics(other)
    assert len(lines) == len(others)
    for line, like in zip(lines, others, strict=True):
        assert line.keys() == like.keys()
        for name, value in line.items():
            if name.startswith(("rollout/", "eval/")) or name in ("agent_steps", "updates"):
                assert value == like[name], name
            elif name != "seconds":
                near = np.isclose(value, like[name], rtol=5e-3, atol=5e-3, equal_nan=True)
                assert near, f"{name} at {line['updates']} updates: {value}, {like[name]}"


def latest_checkpoint(folder: Path) -> int | None:
    """Agent steps of the newest checkpoint of a run."""
    with Checkpointer(folder) as checkpointer:
        return checkpointer.latest()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_same_end(one: Path, other: Path) -> None:
    """Both runs hold the same metrics, but for the seconds, and the same state bit by bit."""
    untimed = [[{**line, "seconds": 0} for line in read_metrics(folder)] for folder in (one, other)]
    assert untimed[0] == untimed[1]
    states = [leaves(folder) for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name


def leaves(folder: Path) -> dict[str, np.ndarray]:
    """Every array that a run goes on from, by its path: also the games and the clocks."""
    config = from_dict(read_config(folder))
    with Run(override(config, {"run_dir": str(folder)}), Progress(live=False)) as run:
        clocks = dataclasses.asdict(run.clocks) | {"seconds": 0}
        found = {"state": run.state, "games": run.games_to_come, "clocks": clocks}
        return {
            jax.tree_util.keystr(path): _bits(x) for path, x in jax.tree.leaves_with_path(found)
        }


def _bits(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.array(jax.random.key_data(leaf) if is_key else leaf)
