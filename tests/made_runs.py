"""Run folders with numbers that are known, written as a training run writes them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ez_jax.config import Config, presets, to_dict
from ez_jax.evaluation.scores import protocol
from ez_jax.storage import run_folder
from ez_jax.structs import Clocks

STEPS, EVERY = 1_000, 200
BUDGET = {
    "total_agent_steps": STEPS,
    "learner.start": 200,
    "learner.batch_size": 16,
    "updates_per_step": 0.5,
    "final_updates": 0,
}
MADE_ON = {"device": "cpu: made", "devices": 1, "versions": {"jax": "0"}, "commit": "abc"}


def write(
    folder: Path,
    seed: int,
    returns: Sequence[float],
    changes: Mapping[str, Any] | None = None,
    game: str = "CartPole",
) -> Config:
    """A finished run whose evaluations, at equal distances, found these returns."""
    config = presets.make_config(game, changes={**BUDGET, "seed": seed, **(changes or {})})
    folder.mkdir(parents=True)
    run_folder.write_config(folder, to_dict(config))
    points = [config.total_agent_steps * (i + 1) // len(returns) for i in range(len(returns))]
    write_lines(folder, config, list(zip(points, returns, strict=True)))
    scores = {"protocol": protocol(config), "episodes": config.eval.episodes}
    content = {**scores, "mean": returns[-1], "seed": seed, "preset": config.preset, **MADE_ON}
    (folder / "scores.json").write_text(json.dumps(content))
    return config


def write_lines(folder: Path, config: Config, points: Sequence[tuple[int, float]]) -> None:
    """Metrics of evaluations (agent steps, mean return)."""
    lines = []
    for steps, value in points:
        done = steps >= config.total_agent_steps
        way = int(max(0, steps - config.learner.start) * config.updates_per_step)
        clocks = Clocks(steps, steps, config.total_updates if done else way, steps / 10)
        lines.append({**vars(clocks), "loss/total": 1.0})
        lines.append({**vars(clocks), "eval/return_mean": float(value)})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def write_arms(
    root: Path,
    arms: Mapping[str, tuple[Mapping[str, Any], float]],
    seeds: int = 5,
    game: str = "CartPole",
    spread: float = 1.0,
) -> None:
    """Runs of arms: settings, and the score around which the seeds end, `spread` apart."""
    for name, (changes, final) in arms.items():
        for seed in range(seeds):
            end = final + spread * (seed - (seeds - 1) / 2)
            returns = [end * share for share in (0.2, 0.5, 0.8, 0.9, 1.0)]
            write(root / name / f"seed{seed}", seed, returns, changes, game)
