"""Several games and seeds at one budget, and a report of them beside published scores.

    python -m experiments.suites minatar100k            trains what is missing, then reports
    python -m experiments.suites minatar100k seeds=0,1  only these seeds
    python -m experiments.suites minatar100k report     only reports

`minatar100k`: the five games of MinAtar in 100,000 agent steps. `dm_control`: seven tasks of
DeepMind Control in 50,000 agent steps, which are 100,000 frames, as EfficientZero V2 has for these
tasks. Runs are `runs/<game>/<suite>/seed<seed>`, reports `experiments/results/<suite>`.

Seed by seed, so that after each seed all games have equally many runs. Stopped and given again it
goes on; a second process with other seeds can work beside it.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ez_jax.config import BadInput
from ez_jax.system import exits
from ez_jax.terminal import start

OUT = "experiments/results"


class Suite(NamedTuple):
    """What is trained."""

    games: tuple[str, ...]
    settings: tuple[str, ...]  # of every game
    seeds: tuple[int, ...]


SUITES = {
    "minatar100k": Suite(
        games=tuple(
            f"{name}-MinAtar"
            for name in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
        ),
        settings=(),
        seeds=(0, 1, 2, 3, 4),
    ),
    "dm_control": Suite(
        games=(
            *("CartpoleSwingup", "ReacherEasy", "BallInCupCatch", "FingerSpin"),
            *("PendulumSwingup", "CheetahRun", "WalkerWalk"),
        ),
        settings=("total_agent_steps=50000", "learner.decay_every=40000"),
        seeds=(0, 1, 2),
    ),
}


def trainings(suite: str, seeds: tuple[int, ...]) -> list[list[str]]:
    """The commands that train what is missing; a finished run says so and ends."""
    return [
        ["ez_jax.train", f"game={game}", f"name={suite}", f"seed={seed}", *SUITES[suite].settings]
        for seed in seeds
        for game in SUITES[suite].games
    ]


def report(suite: str) -> list[str]:
    """The command that reports the runs of all games that have any."""
    folders = [f"runs/{game}/{suite}" for game in SUITES[suite].games]
    found = [folder for folder in folders if Path(folder).is_dir()]
    if not found:
        raise BadInput(f"there are no runs yet: `python -m experiments.suites {suite}` trains them")
    return ["ez_jax.report", *found, f"out={OUT}/{suite}"]


def chosen(suite: str, words: list[str]) -> tuple[int, ...]:
    """The seeds that the words ask for."""
    if not words:
        return SUITES[suite].seeds
    key, _, listed = words[0].partition("=")
    seeds = listed.split(",")
    if key != "seeds" or len(words) > 1 or not all(map(str.isdecimal, seeds)):
        raise BadInput("choose seeds, such as seeds=0,1, or write the word report")
    return tuple(map(int, seeds))


def main(words: list[str]) -> int:
    """Train what is missing, then report; the exit code of the first command that failed."""
    suite, *rest = words or [""]
    if suite not in SUITES:
        raise BadInput(f"name a suite: {' or '.join(SUITES)}")
    commands = [] if rest == ["report"] else trainings(suite, chosen(suite, rest))
    for command in commands:
        if code := subprocess.run([sys.executable, "-m", *command], check=False).returncode:
            return code
    last = subprocess.run([sys.executable, "-m", *report(suite)], check=False)
    return last.returncode or exits.DONE


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
