"""Checks a long run for growth: memory, handles and time per step over many agent steps.

    python -m experiments.long_run experiments/results/long_run

trains CartPole with a tiny network in one process through the same `train` as the command line,
and writes `long_run.json` (the samples, the slopes, what they were made with) and `long_run.png`.
The first steps, in which everything is compiled and the replay is filled, do not count.
Needs matplotlib (`pip install -e ".[notebooks]"`) and Linux.
"""

import argparse
import importlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from scipy import stats

from ez_jax.config.presets import make_config
from ez_jax.reports.drawing import COLOURS, PUBLISHED_COLOUR, RC
from ez_jax.storage.run_folder import provenance
from ez_jax.structs import Clocks
from ez_jax.terminal.progress import Progress

EVERY, WARM_UP = 2_000, 20_000  # agent steps
SETTINGS: dict[str, Any] = {
    "final_updates": 0,
    "updates_per_step": 0.1,
    "search.num_simulations": 2,
    "replay.capacity": 5_000,
    "learner.start": 200,
    "learner.batch_size": 16,
    "learner.unroll_steps": 2,
    "network.vector_width": 16,
    "network.vector_blocks": 1,
    "network.support": 10,
    "network.lstm_width": 16,
    "network.head_hidden": 16,
    "network.projection": 16,
    "network.predictor_hidden": 16,
    "env.eval_max_episode_steps": 100,
    "eval.every": 2_000,  # as often as a sample: else every fifth sample would be a slow one
    "eval.episodes": 4,
    "eval.num_envs": 4,
    "checkpoint.every": 2_000,
    "log.every": 500,
}
# The quantities: a name, the unit, and the factor from the measured number.
MEASURED = {
    "resident": ("resident memory", "MB", 1e-6),
    "arrays": ("live JAX arrays", "MB", 1e-6),
    "blocks": ("memory blocks of Python", "thousands", 1e-3),
    "files": ("open file handles", "", 1.0),
    "threads": ("threads", "", 1.0),
    "ms_per_step": ("time per agent step", "ms", 1.0),
    "folder": ("run folder", "MB", 1e-6),
}


class Sampler(Progress):
    """The usual progress lines, and a sample of the process at regular steps."""

    def __init__(self, folder: Path, samples: list[dict[str, float]]):
        """Samples are appended to `samples`."""
        super().__init__(live=False)
        self._folder, self._samples = folder, samples
        self._began, self._steps = time.perf_counter(), 0

    def update(self, clocks: Clocks, metrics: Mapping[str, float] | None = None) -> None:
        """Called once per round of the loop, after everything that was due in it."""
        super().update(clocks, metrics)
        if metrics is not None or clocks.agent_steps // EVERY == self._steps // EVERY:
            return
        seconds = time.perf_counter() - self._began
        per_step = 1_000 * seconds / (clocks.agent_steps - self._steps)
        sample = {"agent_steps": clocks.agent_steps, "ms_per_step": per_step}
        self._samples.append(sample | measure(self._folder))
        self._began, self._steps = time.perf_counter(), clocks.agent_steps


def measure(folder: Path) -> dict[str, float]:
    """A sample of this process and its run folder."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = {
        "folder": folder.rglob("*"),
        "metrics": folder.glob("metrics.jsonl"),
        "events": folder.glob("events.*"),
        "checkpoints": (folder / "checkpoints").rglob("*"),
    }
    return {
        "resident": pages * resource.getpagesize(),
        "arrays": sum(array.nbytes for array in jax.live_arrays()),
        "blocks": sys.getallocatedblocks(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "python_threads": threading.active_count(),
        **{name: sum(map(_size, paths)) for name, paths in names.items()},
    }


def _size(path: Path) -> int:
    """Bytes of a file, which a save may just have removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def slopes(samples: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """For each quantity after the warm-up: mean, slope, and rise over all those steps.

    The slope is the median of the slopes between all pairs of samples, which is robust against
    single outliers.
    """
    counted = [sample for sample in samples if sample["agent_steps"] > WARM_UP]
    steps = np.array([sample["agent_steps"] for sample in counted])
    found = {}
    for name in samples[0]:
        values = np.array([sample[name] for sample in counted])
        slope = stats.theilslopes(values, steps).slope
        mean, rise = values.mean(), slope * (steps[-1] - steps[0])
        found[name] = {
            "mean": float(mean),
            "per_100k_steps": float(slope * 1e5),
            "rise_as_share_of_mean": float(rise / mean) if mean else 0.0,
        }
    return {name: found[name] for name in found if name != "agent_steps"}


def draw(samples: list[dict[str, float]], title: str, path: Path) -> None:
    """One panel per quantity."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with mpl.rc_context(RC):
        figure, axes = pyplot.subplots(4, 2, figsize=(9.0, 9.0), sharex=True)
        panels = axes.flatten()
        steps = [sample["agent_steps"] for sample in samples]
        for panel, (name, (label, unit, factor)) in zip(panels, MEASURED.items(), strict=False):
            values = [factor * sample[name] for sample in samples]
            panel.plot(steps, values, color=COLOURS[1], marker=".", markersize=3)
            panel.axvspan(0, WARM_UP, color=PUBLISHED_COLOUR, alpha=0.15, linewidth=0)
            panel.set_ylim(0, 1.08 * max(values))
            panel.set_title(f"{label} ({unit})" if unit else label, loc="left")
        parts = panels[-1]
        for name, colour in zip(("checkpoints", "metrics", "events"), COLOURS, strict=False):
            parts.plot(steps, [1e-6 * sample[name] for sample in samples], color=colour, label=name)
        parts.set_title("run folder by part (MB)", loc="left")
        parts.legend()
        for panel in panels:
            panel.grid(True)
            panel.locator_params(axis="x", nbins=4)
            panel.xaxis.set_major_formatter("{x:,.0f}")
        for panel in axes[-1]:
            panel.set_xlabel("agent steps (grey: compiling and filling the replay)")
        figure.suptitle(title, fontweight="bold")
        figure.savefig(path, dpi=100, facecolor="white")
        pyplot.close(figure)


def redraw(out: Path) -> None:
    """Draw the data of the JSON file."""
    samples = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["samples"]
    steps = round(samples[-1]["agent_steps"], -3)
    draw(samples, f"CartPole, {steps:,} agent steps in one process", out.with_suffix(".png"))


def main(words: list[str]) -> None:
    """Train, write the JSON and the figure, print the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="output path without extension")
    parser.add_argument("--steps", type=int, default=200_000, help="agent steps")
    chosen = parser.parse_args(words)
    samples: list[dict[str, float]] = []
    training = importlib.import_module("ez_jax.train")
    with tempfile.TemporaryDirectory() as folder:
        changes = {**SETTINGS, "total_agent_steps": chosen.steps, "run_dir": folder}
        config = make_config("CartPole", changes=changes)
        sampler = Sampler(Path(folder), samples)
        with mock.patch.object(training, "Progress", return_value=sampler):
            training.train(config)
    found = slopes(samples)
    content = {
        "command": f"python -m experiments.long_run {' '.join(words)}",
        "settings": SETTINGS,
        "every": EVERY,
        "warm_up": WARM_UP,
        **provenance(),
        "slopes": found,
        "samples": samples,
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    redraw(chosen.out)
    for name, (label, unit, factor) in MEASURED.items():
        mean, slope, rise = (
            found[name][key] for key in ("mean", "per_100k_steps", "rise_as_share_of_mean")
        )
        print(
            f"{label:28} mean {factor * mean:9.4g} {unit:9} "
            f"per 100,000 steps {factor * slope:+9.3g} {unit:9} in all {rise:+.2%} of the mean"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
