"""Which ideas matter on small games: the study of the README, all of it with one command.

    python -m experiments.small_games            trains what is missing, then reports
    python -m experiments.small_games report     only reports

Each idea off by itself, five seeds, on CartPole, Catch and two games of MinAtar; the seeds of an
arm share a program. Stopped and given again it goes on; a second process takes runs of its own.
The budgets are those of a laptop: what is compared is early learning.
"""

import subprocess
import sys

from ez_jax.config import BadInput
from ez_jax.system import exits
from ez_jax.terminal import start

ROOT, OUT = "runs/small_games", "experiments/results/small_games"
ALL = (
    *("design=leave_one_out", "seeds=5", "learner.batch_size=32"),
    *("eval.num_envs=10", "eval.episodes=10", "log.every=500"),
)
VECTOR = "network.vector_width=64 network.vector_blocks=1"
REUSED = "reanalyse.mode=buffer reanalyse.max_age=200 reanalyse.chunk=32"
MINATAR = "total_agent_steps=6000 replay.capacity=8000 eval.every=2000 checkpoint.every=3000"
GAMES = {
    "gymnax:CartPole": "total_agent_steps=4000 replay.capacity=6000 eval.every=1000 "
    "checkpoint.every=2000",
    "Catch-bsuite": f"total_agent_steps=2500 replay.capacity=4000 eval.every=500 "
    f"checkpoint.every=2500 network.kind=vector {VECTOR} {REUSED}",
    "Breakout-MinAtar": MINATAR,
    "SpaceInvaders-MinAtar": MINATAR,
}


def folder(game: str) -> str:
    """Of the study of one game."""
    return f"{ROOT}/{game.rpartition(':')[2].lower()}"


def main(words: list[str]) -> int:
    """Train what is missing, then report; the exit code of the first command that failed."""
    if words not in ([], ["report"]):
        raise BadInput("there is nothing to choose but the word report")
    commands = [["ez_jax.report", *map(folder, GAMES), f"out={OUT}"]]
    if not words:
        studies = [
            ["ez_jax.ablate", f"game={game}", f"dir={folder(game)}", *settings.split(), *ALL]
            for game, settings in GAMES.items()
        ]
        commands = [*studies, *commands]
    for command in commands:
        if code := subprocess.run([sys.executable, "-m", *command], check=False).returncode:
            return code
    return exits.DONE


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
