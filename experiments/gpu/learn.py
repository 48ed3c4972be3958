"""A training run for so many seconds: its curve, and its weights at the end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.gpu.rows import Rows
from experiments.gpu.settings import GAME, SETTINGS, SMALL, Sizes, changes_of
from ez_jax.storage.metrics import read_metrics
from ez_jax.storage.safe_files import write_whole

SAVING = 40  # seconds for the last checkpoint and the weights
EVERY = 15  # seconds between two writings of the curve
PIECE = 14 * 2**20  # bytes of weights in a file, for those who can carry only small ones
KEPT = (
    "agent_steps",
    "updates",
    "seconds",
    "rollout/",
    "loss/",
    "opt/",
    "value/",
    "norm/",
    "eval/",
)
QUIET = ("eval.every=0", "checkpoint.every=0", "checkpoint.minutes=0", "log.progress=false",
         "log.tensorboard=false", "name=first_light")  # fmt: skip


def learn(rows: Rows, sizes: Sizes, setting: str, words: list[str], runs: Path) -> int:
    """Train until the time is over; the same call goes on from there. Returns an exit code."""
    folder = runs / setting.replace(" ", "_")
    changes = [f"{key}={value}" for key, value in changes_of(setting, sizes).items()]
    every = 20 if sizes is SMALL else 500
    preset = f"preset={SETTINGS[setting][0]}"
    command = [sys.executable, "-m", "ez_jax.train", f"game={GAME}", preset, *changes, *QUIET,
               f"log.every={every}", *words, f"run_dir={folder}"]  # fmt: skip
    began = time.monotonic()
    with (rows.out / "train.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    while process.poll() is None and rows.left > SAVING:
        time.sleep(min(EVERY, max(0.1, rows.left - SAVING)))
        write_curve(folder, rows.out, command)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait()
    told = write_curve(folder, rows.out, command)
    seconds = time.monotonic() - began
    rows.add("run", setting=setting, exit_code=process.returncode, seconds=seconds, **told)
    rows.guarded("weights", write_weights, folder, rows.out)
    return process.returncode


def write_curve(folder: Path, out: Path, command: list[str]) -> dict[str, Any]:
    """Keep what the run has logged, and say how far it is."""
    path = folder / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else []
    curve = [{k: v for k, v in row.items() if k.startswith(KEPT)} for row in rows]
    told = " ".join(["python", *command[1:-1]])  # without the folder, which is this machine's
    text = json.dumps({"command": told, "curve": curve}, indent=0)
    write_whole(out / "curve.json", text + "\n")
    returns = [
        (row["agent_steps"], round(row["rollout/return"], 2)) for row in curve
        if "rollout/return" in row
    ]  # fmt: skip
    return {"last": curve[-1] if curve else {}, "returns": returns[:: max(1, len(returns) // 40)]}


def write_weights(folder: Path, out: Path) -> None:
    """The weights of the last checkpoint, in files of a few megabytes each."""
    import jax

    import ez_jax

    agent = ez_jax.load(folder)
    pieces: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for path, leaf in jax.tree.leaves_with_path(agent.variables):
        if size + leaf.nbytes > PIECE and pieces[-1]:
            pieces.append({})
            size = 0
        pieces[-1][jax.tree_util.keystr(path)] = np.asarray(leaf)
        size += leaf.nbytes
    for number, piece in enumerate(pieces):
        np.savez(out / f"weights{number}.npz", **piece)
