"""A trained agent at play beside its learning curve, as the GIF at the top of the README.

    python -m experiments.readme_picture docs/assets/trained.gif runs/Breakout/default/seed0

plays one full evaluation game with the weights of the first run's best evaluation and draws the
evaluations of all runs: each as a line and, of several, their mean. `--seconds`, `--fps` and
`--every` bound the game that is shown, `--random` and `--human` draw what these get.
"""

import argparse
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ez_jax.evaluation.play import make_evaluate
from ez_jax.evaluation.trained_agent import load
from ez_jax.storage.metrics import read_metrics
from ez_jax.system import compilation

WIDTH, HEIGHT, DPI = 8.0, 3.0, 100  # inches, dots per inch
COLOURS = 96  # of the palette that all images of the GIF share
GAME_BOX = (0.0, 0.0, 0.40, 0.90)  # left, bottom, width, height as shares of the picture


def evaluations(run: Path) -> tuple[list[int], list[float]]:
    """Agent steps and mean returns of a run's evaluations."""
    lines = [line for line in read_metrics(run) if "eval/return_mean" in line]
    return [line["agent_steps"] for line in lines], [line["eval/return_mean"] for line in lines]


def play(run: Path, best: bool) -> tuple[np.ndarray, float, Any]:
    """Images [T, H, W, C] of one evaluation game, its return, and the agent."""
    agent = load(run, best=best)
    one_game = dataclasses.replace(agent.config.eval, episodes=1, num_envs=1)
    chosen = dataclasses.replace(agent.config, eval=one_game)
    games = make_evaluate(chosen, agent.model)(agent.variables, film=1)
    assert games is not None, "nothing stops it"
    return games.pictures[0], float(games.returns[0]), agent


def background(runs: Sequence[Path], title: str, lines: Mapping[str, float]) -> Image.Image:
    """The curve, and an empty place for the game on its left."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    left, bottom, width, height = GAME_BOX
    figure.text(left + width / 2, bottom + height + 0.03, title, ha="center", fontsize=9)
    axes = figure.add_axes((0.51, 0.17, 0.46, 0.73))
    curves = [evaluations(run) for run in runs]
    for steps, means in curves:
        faint = {"alpha": 0.35} if len(curves) > 1 else {"marker": "o", "markersize": 3}
        axes.plot(steps, means, color="C0", **faint)
    if len(curves) > 1:
        shortest = min(len(means) for _, means in curves)
        mean = np.mean([means[:shortest] for _, means in curves], axis=0)
        axes.plot(curves[0][0][:shortest], mean, color="C0", linewidth=2)
    for name, value in lines.items():
        axes.axhline(value, color="grey", linestyle="--", linewidth=1)
        place = {"xycoords": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        axes.annotate(name, (1, value), color="grey", fontsize=9, **place)
    axes.set_xlabel("agent steps")
    axes.set_ylabel("mean evaluation return")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return Image.open(buffer).convert("RGB")


def compose(page: Image.Image, frame: np.ndarray) -> Image.Image:
    """One image of the GIF: a frame u8[H, W, C] of the game in its place."""
    image = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("RGB")
    left, bottom, width, height = GAME_BOX
    room = int(width * page.width), int(height * page.height)
    scale = min(room[0] / image.width, room[1] / image.height)
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    image = image.resize((int(image.width * scale), int(image.height * scale)), smooth)
    x = int(left * page.width) + (room[0] - image.width) // 2
    y = int((1 - bottom - height) * page.height) + (room[1] - image.height) // 2
    whole = page.copy()
    whole.paste(image, (x, y))
    return whole


def write(path: Path, images: Sequence[Image.Image], fps: float) -> None:
    """All images with one palette, so that what stands still costs nothing."""
    palette = images[len(images) // 2].quantize(COLOURS)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    duration = round(1000 / fps)
    first.save(
        path,
        save_all=True,
        append_images=rest,
        duration=duration,
        loop=0,
        optimize=True,
        disposal=1,
    )


def main(words: Sequence[str]) -> None:
    """Play, draw and write the GIF."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the GIF")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; the first one plays")
    parser.add_argument("--newest", action="store_true", help="newest weights, not the best")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the game, at most")
    parser.add_argument("--fps", type=float, default=20.0, help="images per second")
    parser.add_argument("--every", type=int, default=1, help="keep each Nth step of the game")
    parser.add_argument("--random", type=float, help="what random play gets")
    parser.add_argument("--human", type=float, help="what a human gets")
    given = parser.parse_args(words)
    compilation.configure_jax()
    frames, score, agent = play(given.runs[0], not given.newest)
    title = f"{agent.config.game} after {agent.clocks.agent_steps:,} agent steps: {score:,.0f}"
    known = {"random play": given.random, "human": given.human}
    lines = {name: value for name, value in known.items() if value is not None}
    page = background(given.runs, title, lines)
    shown = frames[:: given.every][: int(given.seconds * given.fps)]
    write(given.out, [compose(page, frame) for frame in shown], given.fps)
    size = given.out.stat().st_size / 1e6
    sys.stdout.write(f"wrote {given.out}: {len(shown)} of {len(frames)} steps, {size:.2f} MB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
