"""What was measured on a GPU by `python -m experiments.gpu`, and what is counted for one."""

import json
from typing import Any

from experiments.site.status import RESULTS, table
from ez_jax.evaluation import references
from ez_jax.evaluation.on_track import number

H100 = RESULTS / "gpu" / "h100"


def rows(kind: str) -> list[dict[str, Any]]:
    """All rows of a kind."""
    lines = (H100 / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def gpu_notice() -> str:
    """What is known of GPUs, in a sentence."""
    (machine,) = rows("machine")
    return (
        f"One GPU has been measured: an {machine['device'].removeprefix('gpu: ')}, for 15 minutes."
    )


def gpu_searches() -> str:
    """The search in both trees, with and without CUDA graphs."""
    found = {(row["tree"], row["flags"], row["batch"]): row["ms"] for row in rows("search")}
    batches = sorted({batch for _, _, batch in found})
    ways = list(dict.fromkeys((tree, flags) for tree, flags, _ in found))
    heads = ["`search.tree`", "CUDA graphs", *(f"{batch:,} roots, ms" for batch in batches)]
    names = {
        "default": "as XLA makes them",
        "no graphs": "none",
        "loops in graphs": "loops as well",
    }
    return table(
        heads,
        [
            [f"`{tree}`", names[flags], *(f"{found[tree, flags, batch]:.1f}" for batch in batches)]
            for tree, flags in ways
        ],
    )


def gpu_parts() -> str:
    """The programs of a run: milliseconds, kernels, and what they come to for one update."""
    kernels = {(row["setting"], row["part"]): row for row in rows("kernels")}
    times = {(row["setting"], row["part"]): row for row in rows("part")}  # the last ones
    return table(
        ["`preset=`", "program", "ms", "kernels", "of those under 5 µs", "GPU busy, ms"],
        [
            [
                *(f"`{setting}`", part, f"{row['queued_ms']:.1f}"),
                f"{kernels[setting, part]['launches']:,}",
                f"{kernels[setting, part]['under_5_us']:,}",
                f"{kernels[setting, part]['busy_us'] / 1e3:.1f}",
            ]
            for (setting, part), row in times.items()
        ],
    )


def gpu_counts() -> str:
    """What XLA's compiler for GPUs makes of the programs of each preset."""
    lines = (RESULTS / "gpu" / "counts.jsonl").read_text(encoding="utf-8").splitlines()
    what = {
        "acting": "acting, environments: {environments}",
        "targets": "targets, updates: {updates_per_search}",
        "learning": "learning, samples: {batch_size}",
    }
    return table(
        ["`preset=`", "precision", "program", "kernels", "of those in open loops", "GB", "GFLOP"],
        [
            [
                *(f"`{row['preset']}`", row["precision"], what[row["case"]].format(**row)),
                f"{row['kernels']:,.0f}",
                f"{row['kernels_in_them']:,.0f}",
                *(f"{row['gbyte']:.2f}", f"{row['gflop']:,.1f}"),
            ]
            for row in map(json.loads, lines)
        ],
    )


def gpu_curve() -> str:
    """The training episodes of the run by 5,000 agent steps."""
    curve = json.loads((H100 / "curve.json").read_text(encoding="utf-8"))["curve"]
    by_part: dict[int, list[dict[str, Any]]] = {}
    for row in curve:
        by_part.setdefault((row["agent_steps"] - 1) // 5_000, []).append(row)
    lines = []
    for part, points in by_part.items():
        played = [row for row in points if "rollout/return" in row]
        games = sum(row["rollout/games"] for row in played)
        if games:
            mean = sum(row["rollout/return"] * row["rollout/games"] for row in played) / games
            last = points[-1]
            steps = f"{5_000 * part:,} to {last['agent_steps']:,}"
            minutes = f"{last['seconds'] / 60:.1f}"
            lines.append([steps, f"{last['updates']:,}", minutes, f"{games:.0f}", f"{mean:.1f}"])
    return table(["agent steps", "updates", "minutes", "episodes", "mean return"], lines)


def gpu_evaluation() -> str:
    """What the weights of that run score, in a sentence; without noise."""
    found = json.loads((H100 / "evaluation.json").read_text(encoding="utf-8"))
    published = {score.method: score.score for score in references.scores("Breakout")}
    beside = ", ".join(
        f"{name} {number(published[name])}" for name in ("random", "human", "MuZero")
    )
    mean, error, median = (number(found[key]) for key in ("mean", "standard_error", "median"))
    return (
        f"Its last weights ({found['agent_steps']:,} agent steps, {found['updates']:,} updates) "
        f"score **{mean} ± {error}** (median {median}) in {found['episodes']} episodes of "
        f"Breakout without noise, {found['distinct_games']} of them distinct; played on a CPU, at "
        f"most {found['protocol']['max_episode_steps']:,} steps each. Published, after 100,000 "
        f"steps: {beside}, EfficientZero {number(published['EfficientZero'])}. One seed of one "
        "game shows that it learns, not how well."
    )
