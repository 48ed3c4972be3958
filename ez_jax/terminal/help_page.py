"""The text of `python -m ez_jax.train --help`."""

import textwrap
from collections.abc import Iterable
from pathlib import Path

from ez_jax.config import presets

GAMES = Path(__file__).with_name("games.txt")
_LONG_LIST, _SHOWN = 100, 12  # of a very large family only some members are shown

_USAGE = """
usage: python -m ez_jax.train [game=GAME] [preset=PRESET] [ablation=NAME] [KEY=VALUE ...]

examples
  python -m ez_jax.train                                 CartPole, about two minutes on a CPU
  python -m ez_jax.train game=Breakout                   Atari-100k, published settings
  python -m ez_jax.train game=Breakout preset=small      the same game for a small machine
  python -m ez_jax.train game=my_module:MyEnv-v0         any Gymnasium environment
  python -m ez_jax.train -m game=Pong,Qbert seed=0,1     four runs, one after another
  python -m ez_jax.train game=Breakout-MinAtar seeds=5   five seeds in one program (gymnax games)
  python -m ez_jax.train game=Pong plan=true             what a run would need and how long it takes
  python -m ez_jax.train game=Pong --cfg job             print every key with its value, and stop

A run is the folder runs/<game>/<name>/seed<seed>; the same command resumes it.
"""

_KEYS = """
important keys (all: --cfg job; explained in docs/configuration.md)
  game=CartPole            the game                                      (+game=... works too)
  preset=small             a named set of settings
  seed=0  name=default     seed and name of the run
  seeds=N                  train N seeds, from seed on, in one program (gymnax games)
  run_dir=PATH             folder, instead of runs/<game>/<name>/seed<seed>
  plan=true                no run: the memory, disk and time it would need, and what fits
  total_agent_steps=N      decisions of the agent in the whole run
  updates_per_step=X       optimiser steps per agent step
  learner.batch_size=N     sequences per update          learner.unroll_steps=N  model steps
  targets.td_steps=N       n of the n-step value         targets.value=td|search|mixed
  search.policy=P          puct_ez|puct|gumbel           search.num_simulations=N
  actor.num_envs=N         environments side by side     replay.capacity=N       agent steps kept
  eval.every=N             agent steps (0: at the end)   eval.episodes=N
  checkpoint.every=N       agent steps (0: at the end)   precision=auto|float32|bfloat16

switches of the ideas (or as ablation=NAME)
  value_prefix=false  consistency=false  off_policy_correction=false  reanalyse.mode=none
  prioritised=false   learner.augment=false
"""

_HYDRA = """
-m runs every combination of comma-separated values; --cfg job prints the configuration; hydra.*
keys and --hydra-help belong to Hydra.
exit codes: 0 done, 1 failure, 2 bad input or not enough memory or disk, 130 interrupted
"""


def render(description: str) -> str:
    """The full text."""
    parts = [textwrap.fill(description, 96), _USAGE, _KEYS, _groups(), GAMES.read_text(), _HYDRA]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def _groups() -> str:
    titles = ("presets", "ablations", "protocols", "compat")
    return "\n".join(map(_paragraph, titles, presets.SETS.values()))


def games_of_envpool() -> str:
    """The list of games as the page shows it, from envpool itself, which takes a second to load.

    `games.txt` keeps it for the page: `python -m ez_jax.terminal.help_page` writes it again.
    """
    from ez_jax.config import games

    families = [_paragraph(family, names) for family, names in games.list_games().items()]
    return "\n".join(["games, in any case; also every id of Gymnasium", *families, ""])


def _paragraph(title: str, names: Iterable[str]) -> str:
    names = list(names)
    if len(names) > _LONG_LIST:
        names = [*names[:_SHOWN], f"... ({len(names) - _SHOWN} more)"]
    return textwrap.fill(
        f"{title:<15} {', '.join(names)}",
        width=96,
        subsequent_indent=" " * 16,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    GAMES.write_text(games_of_envpool())
