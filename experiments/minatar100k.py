"""MinAtar in 100,000 agent steps: five games, five seeds each, beside published scores.

    python -m experiments.minatar100k                 trains what is missing, then reports
    python -m experiments.minatar100k seeds=0,1       only these seeds
    python -m experiments.minatar100k report          only reports

Seed by seed, so that after each seed all games have equally many. Stopped and given again it goes
on; a second process with other seeds can work beside it.
"""

import subprocess
import sys
from pathlib import Path

from ez_jax.config import BadInput
from ez_jax.system import exits
from ez_jax.terminal import start

GAMES = tuple(f"{name}-MinAtar" for name in ("Asterix", "Breakout", "Freeway", "Seaquest"))
GAMES += ("SpaceInvaders-MinAtar",)
NAME, OUT = "minatar100k", "experiments/results/minatar100k"
SEEDS = (0, 1, 2, 3, 4)


def trainings(seeds: tuple[int, ...]) -> list[list[str]]:
    """The commands that train what is missing; a finished run says so and ends."""
    return [
        ["ez_jax.train", f"game={game}", f"name={NAME}", f"seed={seed}"]
        for seed in seeds
        for game in GAMES
    ]


def report() -> list[str]:
    """The command that reports the runs of all games that have any."""
    folders = [f"runs/{game}/{NAME}" for game in GAMES]
    found = [folder for folder in folders if Path(folder).is_dir()]
    if not found:
        raise BadInput("there are no runs yet: leave out the word report to train them")
    return ["ez_jax.report", *found, f"out={OUT}"]


def chosen(words: list[str]) -> tuple[int, ...]:
    """The seeds that the words ask for."""
    if not words:
        return SEEDS
    key, _, listed = words[0].partition("=")
    seeds = listed.split(",")
    if key != "seeds" or len(words) > 1 or not all(map(str.isdecimal, seeds)):
        raise BadInput("choose seeds, such as seeds=0,1, or write the word report")
    return tuple(map(int, seeds))


def main(words: list[str]) -> int:
    """Train what is missing, then report; the exit code of the first command that failed."""
    commands = [] if words == ["report"] else trainings(chosen(words))
    for command in commands:
        if code := subprocess.run([sys.executable, "-m", *command], check=False).returncode:
            return code
    return subprocess.run([sys.executable, "-m", *report()], check=False).returncode or exits.DONE


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
