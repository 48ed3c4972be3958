"""Evaluation curves of runs as one figure and one JSON file that can be committed.

    python -m experiments.curves experiments/results/cartpole runs/CartPole/default/seed*

writes `cartpole.json` (per run: the points of the curve, when the threshold was reached, changed
settings, device, versions, commit) and `cartpole.png`, with one colour per choice of settings.
`--solved 475` sets the threshold, `--random` the score of random play (`experiments.random_play`).
`experiments.figures` redraws the committed files.
Needs matplotlib (`pip install -e ".[notebooks]"`).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from experiments import figures
from ez_jax.config import flatten, from_dict
from ez_jax.config.presets import make_config
from ez_jax.storage.metrics import read_metrics
from ez_jax.storage.run_folder import read_config
from ez_jax.storage.safe_files import read_json

KEPT = ("eval/return_mean", "eval/return_std", "eval/return_median")
PLAYED = ("rollout/return", "rollout/games")
LEARNT = ("value/explained", "value/spread", "norm/value_gap", "norm/value_gap_share")
NOT_A_CHANGE = ("seed", "run_dir", "name")


def changes(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that differ from its game and preset, by dotted key."""
    usual = flatten(make_config(config["game"], config["preset"]))
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flatten(from_dict(config)).items()
        if key not in NOT_A_CHANGE and usual[key] != value
    }


def curve(run: Path, solved: float | None) -> dict[str, Any]:
    """The evaluations of one run folder."""
    lines = [line for line in read_metrics(run) if "eval/return_mean" in line]
    scores = read_json(run / "scores.json")
    config = read_config(run)
    clocks = ("agent_steps", "updates", "seconds")
    points = [{name: line[name] for name in clocks + KEPT} for line in lines]
    training = [
        {name: line[name] for name in clocks + PLAYED + LEARNT if name in line}
        for line in read_metrics(run)
        if "rollout/return" in line
    ]
    found: dict[str, Any] = {
        "game": config["game"],
        "preset": config["preset"],
        "seed": config["seed"],
        "total_agent_steps": config["total_agent_steps"],
        "changed": changes(config),
        "episodes": scores["episodes"],
        "protocol": scores["protocol"],
        "final_mean": scores["mean"],
        "human_normalised": scores["human_normalised"],
        "device": scores["device"],
        "versions": scores["versions"],
        "commit": scores["commit"],
        "curve": points,
        "training": training,
    }
    if solved is not None:
        reached = [point for point in points if point["eval/return_mean"] >= solved]
        first = reached[0] if reached else None
        found["solved_at"] = first and {name: first[name] for name in clocks}
    return found


def arms(runs: list[dict[str, Any]]) -> list[str]:
    """For each run, the settings that not all runs share."""
    usual = [flatten(make_config(run["game"], run["preset"])) for run in runs]
    keys = {key: None for run in runs for key in run["changed"]}
    values = {
        key: [run["changed"].get(key, preset[key]) for run, preset in zip(runs, usual, strict=True)]
        for key in keys
    }
    differ = [key for key, each in values.items() if any(value != each[0] for value in each)]
    return [", ".join(f"{key}={values[key][i]}" for key in differ) for i in range(len(runs))]


def main(words: list[str]) -> None:
    """Read the run folders, write the JSON and the figure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="output path without extension")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--solved", type=float, help="return that counts as solved")
    parser.add_argument("--random", type=float, help="score of random play")
    arguments = parser.parse_args(words)
    runs = [curve(run, arguments.solved) for run in arguments.runs]
    runs.sort(key=lambda run: run["seed"])
    command = f"python -m ez_jax.train game={runs[0]['game']} preset={runs[0]['preset']} seed=SEED"
    command += "".join(f" {key}={value}" for key, value in runs[0]["changed"].items())
    content = {"command": command, "solved": arguments.solved, "random": arguments.random}
    content["runs"] = runs
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for name, run in zip(arms(runs), runs, strict=True):
        by_arm.setdefault(name, []).append(run)
    figures.draw(by_arm, figures.lines_of(content), arguments.out.with_suffix(".png"))
    for run in runs:
        reached = run.get("solved_at")
        when = (
            f"reached at {reached['agent_steps']} steps, {reached['seconds']:.0f} s"
            if reached
            else ""
        )
        sys.stdout.write(f"seed {run['seed']}: final {run['final_mean']:.1f} {when}\n")
    if arguments.solved is not None and all(run["solved_at"] for run in runs):
        steps = statistics.median(run["solved_at"]["agent_steps"] for run in runs)
        seconds = statistics.median(run["solved_at"]["seconds"] for run in runs)
        sys.stdout.write(f"median: {steps:.0f} agent steps, {seconds:.0f} s\n")


if __name__ == "__main__":
    main(sys.argv[1:])
