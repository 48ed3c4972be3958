"""What `python -m ez_jax.train --help` prints."""

import textwrap
from collections.abc import Iterable

from ez_jax.config import presets

_LONG_LIST, _SHOWN = 100, 12  # of a family with very many members only some are shown

_USAGE = """
usage: python -m ez_jax.train [game=GAME] [preset=PRESET] [ablation=NAME] [KEY=VALUE ...]

examples
  python -m ez_jax.train                                 CartPole on this machine, minutes
  python -m ez_jax.train game=Breakout                   Atari-100k, published settings
  python -m ez_jax.train game=Breakout preset=small      the same game for a small machine
  python -m ez_jax.train game=my_module:MyEnv-v0         any Gymnasium environment
  python -m ez_jax.train -m game=Pong,Qbert seed=0,1     four runs, one after another
  python -m ez_jax.train game=Breakout-MinAtar seeds=5   five seeds in one program (games of gymnax)
  python -m ez_jax.train game=Pong plan=true             what the run needs and how long it takes
  python -m ez_jax.train game=Pong --cfg job             print every key with its value and stop

A run lives in runs/<game>/<name>/seed<seed>; the same command again resumes it.
"""

_KEYS = """
keys that matter (every other one: --cfg job, explained in ez_jax/config/settings.py)
  game=CartPole            what is played                                (+game=... works too)
  preset=small             a named set of numbers
  seed=0  name=default     of the run
  seeds=N                  so many runs, from seed on, in one program (games of gymnax)
  run_dir=PATH             instead of runs/<game>/<name>/seed<seed>
  plan=true                no run: memory, disk and hours it would take, and what would fit
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
-m runs every combination of comma lists; --cfg job prints the configuration; hydra.* keys and
--hydra-help are Hydra's own.
exit codes: 0 done, 1 failure, 2 bad input or no room, 130 interrupted
"""


def render(description: str) -> str:
    """The whole page."""
    parts = [textwrap.fill(description, 96), _USAGE, _KEYS, _groups(), _games(), _HYDRA]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def _groups() -> str:
    titles = ("presets", "ablations", "protocols", "compat")
    return "\n".join(map(_paragraph, titles, presets.SETS.values()))


def _games() -> str:
    # Imported late: the environments take a second.
    from ez_jax.config import games

    families = [_paragraph(family, names) for family, names in games.list_games().items()]
    return "\n".join(["games, in any case; also every id of Gymnasium", *families])


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
