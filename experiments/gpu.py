"""Everything to be measured on a GPU, one after another, unattended and resumable.

    python -m experiments.gpu --out experiments/results/gpu --budget 1700

Each item leaves OUT/<name>.json: command, exit code, seconds, the figures it printed, device,
versions and commit. What has one with exit code 0 is skipped, so the same command goes on where it
stopped; whole runs are interrupted before the budget ends and resumed by the next call (`--runs`
keeps their folders). Needs no network. `--list` shows the items and what is predicted for them.
"""

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from ez_jax.config.presets import PRESETS
from ez_jax.storage.safe_files import write_whole

SAVING = 60  # seconds that an interrupted run may take to save
BENCH = ("-m", "experiments.bench")
TRAIN = ("-m", "ez_jax.train", "log.progress=false")
FAST = ("precision=bfloat16", "reanalyse.mode=buffer", "reanalyse.max_age=1000")
RATE = 989e12  # FLOP/s of an H100 in bfloat16, from its data sheet: nothing is quicker
CHANGES: dict[str, dict[str, Any]] = {
    "as published": {},
    "buffer, max_age 1,000": {"reanalyse.mode": "buffer", "reanalyse.max_age": 1_000},
    "no searches": {"reanalyse.ratio": 0.0, "targets.value": "td"},
}
STEPS_100K = 120_000  # updates of a published run


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to measure."""

    name: str
    words: tuple[str, ...]  # after `python`
    limit: int  # seconds
    is_run: bool = False  # can be interrupted and resumed


def bench(workload: str, *words: str, limit: int = 240) -> Item:
    """A benchmark; its name tells its settings."""
    name = "_".join([workload, *words]).replace("=", "-").replace(",", "-").replace(".", "-")
    return Item(name, (*BENCH, workload, *words), limit)


def run(name: str, *words: str) -> Item:
    """A whole training run."""
    return Item(name, (*TRAIN, *words, f"name={name}"), 6 * 3_600, is_run=True)


ITEMS = (
    # 1. Does it run, and where does the time go?
    Item("doctor", ("-m", "ez_jax.doctor", "quick=true"), 240),
    *(
        bench(workload, f"precision={precision}", *words)
        for precision in ("bfloat16", "float32")
        for workload, words in (
            ("search", ("batches=4,256,1536",)),
            ("update", ("batches=256",)),
            ("reanalyse", ()),
        )
    ),
    bench("replay"),
    bench("env"),
    bench("compile"),
    bench("memory"),
    bench("train", "precision=bfloat16", "steps=200", limit=500),
    bench("train", *FAST, "steps=200", limit=500),
    bench("train", *FAST, "reanalyse.updates_per_search=4", "steps=200", limit=500),
    # 2. Does it learn?
    run("pong_fast", "+game=Pong", *FAST),
    run("breakout_fast", "+game=Breakout", *FAST),
    # 3. How fast is a whole run as published?
    *(
        run(f"breakout_{preset}", "+game=Breakout", f"preset={preset}", "precision=bfloat16")
        for preset in PRESETS
        if preset.startswith("efficientzero")
    ),
)


def predictions() -> list[str]:
    """Lines of a table: how long an update and a run take at least, by counted FLOPs alone."""
    from experiments.bench.parts import make_setting
    from ez_jax.agent.model import make_model
    from ez_jax.agent.networks import winograd
    from ez_jax.config import override
    from ez_jax.config.presets import make_config
    from ez_jax.training.planning.needs import update_flops

    lines = ["| setting | TFLOP per update | ms at least | minutes of 120,000 updates at least |"]
    lines.append("|---|---|---|---|")
    for preset in ("efficientzero", "efficientzero_v2"):
        setting = make_setting(make_config("Breakout", preset), ())
        for name, changes in CHANGES.items():
            config = override(setting.config, changes)
            # As a GPU computes, not by this CPU's shorter way.
            with mock.patch.object(winograd, "MIN_OUTPUTS", sys.maxsize):
                flops = update_flops(config, make_model(config, setting.spec))
            seconds = flops / RATE
            cells = f"{flops / 1e12:.2f} | {1e3 * seconds:.1f} | {seconds * STEPS_100K / 60:.0f}"
            lines.append(f"| {preset}, {name} | {cells} |")
    return lines


def measure(item: Item, out: Path, runs: Path, seconds: float) -> dict[str, Any]:
    """Run one item for at most so many seconds and keep what it printed."""
    words = [*item.words, *([f"run_dir={runs / item.name}"] if item.is_run else [])]
    began = time.perf_counter()
    with (out / f"{item.name}.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            text, _ = process.communicate(timeout=min(item.limit, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT if item.is_run else signal.SIGKILL)
            text, _ = process.communicate()
        log.write(text)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    found: dict[str, Any] = {"rows": lines}
    scores = runs / item.name / "scores.json"
    if item.is_run and scores.exists():
        found |= json.loads(scores.read_text())
    return {
        "name": item.name,
        "command": " ".join(["python", *words]),
        "exit_code": process.returncode,
        "wall_seconds": time.perf_counter() - began,
        **found,
    }


def is_done(item: Item, out: Path) -> bool:
    """Whether an earlier call finished it."""
    path = out / f"{item.name}.json"
    return path.exists() and json.loads(path.read_text())["exit_code"] == 0


def main(words: Sequence[str]) -> int:
    """Measure what is left, as far as the budget goes; the exit code is 0 when all is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu"))
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for this call")
    parser.add_argument("--only", nargs="+", default=[], help="names of items")
    parser.add_argument("--list", action="store_true")
    chosen = parser.parse_args(words)
    unknown = set(chosen.only) - {item.name for item in ITEMS}
    if unknown:
        parser.error(f"no such item: {', '.join(sorted(unknown))}; see --list")
    items = [item for item in ITEMS if not chosen.only or item.name in chosen.only]
    if chosen.list:
        names = [f"{'done' if is_done(i, chosen.out) else 'left'}  {i.name}" for i in items]
        sys.stdout.write("\n".join([*names, "", *predictions(), ""]))
        return 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + chosen.budget
    for item in items:
        left = end - time.monotonic() - (SAVING if item.is_run else 0)
        if is_done(item, chosen.out) or left <= 0:
            continue
        found = measure(item, chosen.out, chosen.runs, left)
        write_whole(chosen.out / f"{item.name}.json", json.dumps(found, indent=1) + "\n")
        sys.stdout.write(f"{item.name}: exit code {found['exit_code']}, ")
        sys.stdout.write(f"{found['wall_seconds']:.0f} s\n")
        sys.stdout.flush()
    return 0 if all(is_done(item, chosen.out) for item in items) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
