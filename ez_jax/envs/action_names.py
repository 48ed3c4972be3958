"""Names of the actions of known games, which envpool and gymnax do not provide.

`action_names.json` has the joystick's 18 positions, those of each Atari game (from the Arcade
Learning Environment; a game not in the list has all), and the actions of small games by the
beginning of their ids.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from ez_jax.config.games import is_atari_id
from ez_jax.structs import EnvSpec

_FILE = resources.files("ez_jax.envs") / "action_names.json"


def action_names(spec: EnvSpec) -> tuple[str, ...]:
    """A name for every action, or its number if no name is known.

    Of a continuous action, names of its numbers: a0, a1, ...
    """
    if spec.backend == "envpool" and is_atari_id(spec.task_id):
        joystick = _table()["joystick"]
        game = spec.task_id.rpartition("-v")[0]
        return checked([joystick[i] for i in _table()["atari"].get(game, range(18))], spec)
    base = spec.task_id.partition("-")[0]
    return checked(_table()["others"].get(base, ()), spec)


def minatar_names(positions: Iterable[int], spec: EnvSpec) -> tuple[str, ...]:
    """The names of a MinAtar game's actions: some of six positions."""
    return checked([_table()["minatar"][i] for i in positions], spec)


def checked(names: Iterable[object], spec: EnvSpec) -> tuple[str, ...]:
    """The names in lower case, or numbers if there is not a name for every action."""
    found = tuple(str(name).lower() for name in names)
    count = spec.action_size or spec.num_actions
    prefix = "a" if spec.is_continuous else ""
    return found if len(found) == count else tuple(f"{prefix}{i}" for i in range(count))


@functools.cache
def _table() -> Mapping[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))
