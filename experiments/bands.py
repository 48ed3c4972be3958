"""Bands of our own results, from the committed curves, as references of the package.

    python -m experiments.bands

reads `experiments/results/{cartpole,catch,lunarlander}.json` and writes
`ez_jax/evaluation/reference_data/measured.json`: at each evaluation the median of the seeds, and
with three seeds or more their lowest and highest score.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from ez_jax.config.presets import make_config
from ez_jax.storage.safe_files import read_json

RESULTS = Path(__file__).parent / "results"
MEASURED = (
    Path(__file__).parent.parent / "ez_jax" / "evaluation" / "reference_data" / "measured.json"
)
GAMES = ("cartpole", "catch", "lunarlander")
FEWEST_SEEDS = 3  # for a band


def curve_of(path: Path) -> dict[str, Any]:
    """The fields of a `references.Curve` from a file that `experiments.curves` wrote."""
    runs = read_json(path)["runs"]
    first = runs[0]
    settings = {"preset": first["preset"], **first.get("changed", {})}
    settings["total_agent_steps"] = first["total_agent_steps"]
    changes = {key: value for key, value in settings.items() if key != "preset"}
    every = make_config(first["game"], first["preset"], changes=changes).eval.every
    seeds = [by_step(run, every) for run in runs]
    steps = sorted(set.intersection(*(set(seed) for seed in seeds)))
    at = [[seed[step] for seed in seeds] for step in steps]
    has_band = len(runs) >= FEWEST_SEEDS
    count = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    return {
        "game": first["game"],
        "method": "ez_jax",
        "agent_steps": steps,
        "scores": [round(statistics.median(scores), 3) for scores in at],
        "low": [round(min(scores), 3) for scores in at] if has_band else None,
        "high": [round(max(scores), 3) for scores in at] if has_band else None,
        "protocol": f"ez_jax, {count}, preset={first['preset']}, {first['episodes']} games "
        f"per evaluation, {first['total_agent_steps']:,} agent steps in all"
        + ("; median, lowest and highest seed" if has_band else ""),
        "source": f"experiments/results/{path.name}",
        "settings": settings,
    }


def by_step(run: dict[str, Any], every: int) -> dict[int, float]:
    """Scores by the multiple of `every` at which they were due, which environments overshoot."""
    return {
        point["agent_steps"] // every * every: point["eval/return_mean"] for point in run["curve"]
    }


def main() -> None:
    """Rewrite the file."""
    found = [curve_of(RESULTS / f"{name}.json") for name in GAMES]
    MEASURED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
