"""What is reproduced and what is not, from the result files; no number is copied by hand."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import reproduce
from experiments.reproduce import Reproduction
from experiments.site import places
from ez_jax.evaluation import pretrained, references
from ez_jax.evaluation.on_track import number
from ez_jax.evaluation.scores import RANDOM_AND_HUMAN
from ez_jax.storage import safe_files
from ez_jax.terminal.progress import with_error

RESULTS = places.ROOT / "experiments" / "results"
PUBLISHED = {"EfficientZero": "efficientzero", "EfficientZero V2": "efficientzero_v2"}
NOTHING = ""  # what was not measured is an empty cell


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the pipe is the only character that needs care."""
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells
    )


def overview() -> str:
    """Every reproduction in a line: expected, ours, how they compare."""
    rows = []
    for each in map(reproduce.load, reproduce.names()):
        for steps, ends in each.expected.items():
            scores = scores_at(each, steps)
            ours = statistics.fmean(scores) if scores else None
            low, high = ends
            rows.append(
                [
                    f"[{each.name}](#{each.name})",
                    each.game,
                    f"{steps:,}",
                    reproduce.band(ends),
                    NOTHING if ours is None else number(ours),
                    len(scores) or NOTHING,
                    NOTHING if ours is None else f"{ours / ((low + high) / 2):.2f}",
                    _verdict(each, ours, ends),
                ]
            )
    heads = ["result", "game", "agent steps", "expected", "ours", "seeds", "ratio", "verdict"]
    return table(heads, rows)


def _verdict(each: Reproduction, ours: float | None, ends: Sequence[float]) -> str:
    """How a result compares with its band, where that is not made from it."""
    if ours is None:
        return "**not measured**"
    return "the band is its own" if each.own_band else reproduce.side(ours, ends)


def scores_at(each: Reproduction, steps: int) -> list[float]:
    """The score of every seed that was measured."""
    if not each.results:
        return []
    runs = safe_files.read_json(places.ROOT / each.results)["runs"]
    found = [reproduce.score_at(run["curve"], steps) for run in runs]
    return [score for score in found if score is not None]


def details() -> str:
    """A section per reproduction: command, time, every seed, where the band is from."""
    parts = []
    for each in map(reproduce.load, reproduce.names()):
        seeds = [
            f"at {steps:,} steps by seed: {', '.join(map(number, scores))}"
            for steps in each.expected
            if (scores := scores_at(each, steps))
        ]
        lines = [
            f"### {each.name} {{ #{each.name} }}",
            f"```\n{each.command}\n```",
            f"Seeds {', '.join(map(str, each.seeds))}; time: {each.time}. Status: {each.status}.",
            f"Expected {', '.join(map(reproduce.band, each.expected.values()))}: {each.source}.",
            *(f"Measured {line} ([data]({places.address(each.results)}))." for line in seeds),
        ]
        picture = (places.ROOT / each.results).with_suffix(".png") if each.results else None
        if picture and picture.exists():
            lines.append(f"![Learning curve of {each.name}](results/{picture.name})")
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts)


def pictures() -> dict[str, Path]:
    """The figures that the page shows, by their address in the site."""
    return {f"results/{path.name}": path for path in sorted(RESULTS.glob("*.png"))} | {
        "results/effects.png": RESULTS / "small_games" / "effects.png",
        "results/inspect.png": RESULTS / "inspect" / "cartpole.png",
        "results/inspect_continuous.png": RESULTS / "inspect" / "reacher.png",
    }


def atari() -> str:
    """The 26 games of Atari-100k: published scores, and ours where a whole run was measured."""
    measured = gpu_runs()
    if not measured:  # no columns without a number
        names = ["random", "human", *PUBLISHED]
        rows = [[game, *(number(known[name]) for name in names)] for game, known in atari_games()]
        return table(["game", *names], rows)
    rows = []
    for game, known in atari_games():
        row = [game, number(known["random"]), number(known["human"])]
        for method, preset in PUBLISHED.items():
            ours = measured.get((game, preset))
            ratio = NOTHING if ours is None else f"{ours / known[method]:.2f}"
            row += [number(known[method]), NOTHING if ours is None else number(ours), ratio]
        rows.append(row)
    heads = ["game", "random", "human"]
    for name in ("EfficientZero", "V2"):
        heads += [f"{name}, published", "ours", "ratio"]
    return table(heads, rows)


def atari_games() -> Iterator[tuple[str, dict[str, float]]]:
    """The games that EfficientZero has a published score of, with the scores of all methods."""
    for game in RANDOM_AND_HUMAN:
        known = {score.method: score.score for score in references.scores(game)}
        if "EfficientZero" in known:
            yield game, known


def gpu_runs() -> dict[tuple[str, str], float]:
    """Scores of whole runs on a GPU, by game and preset."""
    found = (json.loads(path.read_text()) for path in (RESULTS / "gpu").glob("*/*_scores.json"))
    return {(x["protocol"]["game"], x["preset"]): x["mean"] for x in found}


def published_runs() -> str:
    """How many of the published scores were tried, in a sentence."""
    runs, games = len(gpu_runs()), len(list(atari_games()))
    if not runs:
        return (
            "are **not reproduced**: the published settings have not been run to the end yet, "
            "which takes a GPU or TPU."
        )
    return f"were tried in {runs} of {games * len(PUBLISHED)} cases, see the table of Atari-100k."


def evaluations() -> str:
    """Evaluations of single runs with settings of their own, beside what is published."""
    rows = []
    for path in sorted(RESULTS.glob("*_evaluation.json")):
        found = safe_files.read_json(path)
        game, mean = found["protocol"]["game"], found["mean"]
        for score in references.scores(game):
            if score.method in ("random", "human", *PUBLISHED):
                ratio = f"{mean / score.score:.2f}"
                cells = [game, found["preset"], number(mean), found["episodes"]]
                rows.append([*cells, score.method, number(score.score), ratio])
    return table(["game", "preset", "ours", "games", "beside", "published", "ratio"], rows)


def suite(name: str) -> str:
    """The final scores of a suite, mean and range over the seeds, beside those published."""
    path = RESULTS / name / "scores.csv"
    if not path.exists():
        return "No runs are recorded yet."
    runs = pd.read_csv(path).query("finished")
    rows, methods = [], dict[str, str]()  # with their agent steps
    for game, of_game in runs.groupby("game"):
        known = [score for score in references.scores(str(game)) if score.agent_steps]
        methods |= {score.method: f"{score.agent_steps:,}" for score in known}
        scores = of_game["final_score"]
        ours = f"**{number(scores.mean())}**"
        if len(scores) > 1:
            ours += f" ({number(scores.min())} to {number(scores.max())})"
        steps = f"{round(of_game['agent_steps'].mean(), -3):,.0f}"
        updates = f"{of_game['updates'].mean():,.0f}"
        minutes = f"{of_game['seconds'].mean() / 60:.0f}"
        own = [game, steps, updates, len(scores), minutes, ours]
        rows.append((own, {s.method: s for s in known}))
    cells = [
        [*own, *(number(of[m].score) if m in of else NOTHING for m in methods)] for own, of in rows
    ]
    heads = ["game", "agent steps", "updates", "seeds", "minutes per run", "ours"]
    heads += [f"{method}, {steps}" for method, steps in methods.items()]
    return table(heads, cells)


def small_games() -> str:
    """The study of small games: the mean of every arm with its interval."""
    arms = pd.read_csv(RESULTS / "small_games" / "arms.csv").query("measure == 'final score'")
    ends = arms[["value", "low", "high"]].round(9).add(0.0).map(number)  # no -9e-18
    arms = arms.assign(shown=ends["value"] + " [" + ends["low"] + ", " + ends["high"] + "]")
    cells = arms.pivot(index="arm", columns="game", values="shown").fillna(NOTHING)
    cells = cells.loc[arms["arm"].unique(), arms["game"].unique()]
    return table(["arm", *cells], [[f"`{row[0]}`", *row[1:]] for row in cells.itertuples()])


def clear_effects() -> str:
    """What the study of small games calls clear, in its own sentences; nothing else."""
    effects = pd.read_csv(RESULTS / "small_games" / "effects.csv")
    effects = effects[effects["measure"].str.endswith("final score")]
    clear = effects[~effects["verdict"].str.startswith("no clear")]
    told = "\n".join("- " + clear["game"] + ": " + clear["sentence"])
    return f"{told}\n\nOf {len(effects)} effects {len(clear)} are clear."


def pretrained_agents() -> str:
    """The agents that come with the package, from their cards."""
    rows = []
    for name in pretrained.names():
        card, scores = pretrained.card(name).values()
        played, trained = card["half_precision"], card["trained"]
        rows.append(
            [
                f"`pretrained:{name}`",
                with_error(played["mean"], played["error"]),
                played["episodes"],
                f"{scores['agent_steps']:,}",
                f"{trained['seconds'] / 60:.0f}",
                scores["seed"],
                f"`{trained['commit'][:7]}`",
            ]
        )
    heads = ["agent", "mean return", "episodes", "agent steps", "minutes", "seed", "commit"]
    return table(heads, rows)
