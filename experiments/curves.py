"""Evaluation curves of runs as one figure and one JSON file that can be committed.

    python -m experiments.curves experiments/results/cartpole runs/CartPole/default/seed*

writes `cartpole.json` (per run: the points of the curve, when the threshold was reached, settings
that were changed, device, versions, commit) and `cartpole.png`; runs that differ in settings have a
colour for each. `--solved 475` sets the threshold,
`--training` draws the scores of the games played in training, too, `--random` what random play gets
(`experiments.random_play`).
Needs matplotlib (`pip install -e ".[notebooks]"`).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

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
    """Settings of a run that its game and preset do not give by themselves, by dotted key."""
    usual = flatten(make_config(config["game"], config["preset"]))
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flatten(from_dict(config)).items()
        if key not in NOT_A_CHANGE and usual[key] != value
    }


def curve(run: Path, solved: float | None) -> dict[str, Any]:
    """What one run folder says of its evaluations."""
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
    """For each run the settings that not all of them have in common."""
    usual = [flatten(make_config(run["game"], run["preset"])) for run in runs]
    keys = {key: None for run in runs for key in run["changed"]}
    values = {
        key: [run["changed"].get(key, preset[key]) for run, preset in zip(runs, usual, strict=True)]
        for key in keys
    }
    differ = [key for key, each in values.items() if any(value != each[0] for value in each)]
    return [", ".join(f"{key}={values[key][i]}" for key in differ) for i in range(len(runs))]


def draw(runs: list[dict[str, Any]], lines: dict[str, float], path: Path, training: bool) -> None:
    """A line for each run, in the colour of its settings or seed, and the lines to compare with."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), constrained_layout=True)
    names = arms(runs)
    if not any(names):
        names = [f"seed {run['seed']}" for run in runs]
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(names))}
    for run, label in zip(runs, names, strict=True):
        colour = colours[label]
        steps = [point["agent_steps"] for point in run["curve"]]
        means = [point["eval/return_mean"] for point in run["curve"]]
        axes.plot(steps, means, color=colour, marker="o", markersize=3, label=label)
        if training:
            played = [
                [point[name] for point in run["training"]] for name in ("agent_steps", *PLAYED)
            ]
            axes.plot(*played[:2], ".:", color=colour, alpha=0.5, label="games in training")
    for name, value in lines.items():
        axes.axhline(value, color="grey", linestyle="--", linewidth=1)
        axes.annotate(f"{name} {value:g}".strip(), (0, value), color="grey", va="bottom")
    first = runs[0]
    axes.set_title(f"{first['game']}, preset={first['preset']}, {first['device']}")
    axes.set_xlabel("agent steps")
    axes.set_ylabel(f"mean return of {first['episodes']} evaluation games")
    axes.grid(alpha=0.3)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one of each
    place = {"loc": "outside lower center", "fontsize": "small", "ncols": min(3, len(entries))}
    figure.legend(entries.values(), entries.keys(), **place)
    figure.savefig(path, dpi=120)


def main(words: list[str]) -> None:
    """Read the run folders, write the JSON and the figure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="where to, without an ending")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--solved", type=float, help="return that counts as solved")
    parser.add_argument("--random", type=float, help="what random play gets")
    parser.add_argument("--training", action="store_true", help="draw games in training, too")
    arguments = parser.parse_args(words)
    runs = [curve(run, arguments.solved) for run in arguments.runs]
    runs.sort(key=lambda run: run["seed"])
    command = f"python -m ez_jax.train game={runs[0]['game']} preset={runs[0]['preset']} seed=SEED"
    command += "".join(f" {key}={value}" for key, value in runs[0]["changed"].items())
    lines = {"": arguments.solved, "random play": arguments.random}
    lines = {name: value for name, value in lines.items() if value is not None}
    content = {"command": command, "solved": arguments.solved, "random": arguments.random}
    content["runs"] = runs
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    draw(runs, lines, arguments.out.with_suffix(".png"), arguments.training)
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
