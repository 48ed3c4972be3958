"""The games by name, and suggestions for misspelt names.

Libraries of environments are imported only when a name has to be looked up (envpool takes about a
second), not when this module is imported.
"""

import dataclasses
import difflib
import functools
import importlib
import re
import warnings
from collections.abc import Iterable, Mapping

from ez_jax.config import opengl
from ez_jax.config.errors import BadInput, exiting_raises, in_short

ATARI_100K = (
    "Alien", "Amidar", "Assault", "Asterix", "BankHeist", "BattleZone", "Boxing", "Breakout",
    "ChopperCommand", "CrazyClimber", "DemonAttack", "Freeway", "Frostbite", "Gopher", "Hero",
    "Jamesbond", "Kangaroo", "Krull", "KungFuMaster", "MsPacman", "Pong", "PrivateEye", "Qbert",
    "RoadRunner", "Seaquest", "UpNDown",
)  # fmt: skip

_ATARI, _MINIGRID = "envpool.atari", "envpool.minigrid"
_MUJOCO = "envpool.mujoco"
_DM_CONTROL, _MUJOCO_OF_GYM = f"{_MUJOCO}.dmc", f"{_MUJOCO}.gym"
# Families of settings (`families.py`) that have whole modules of envpool.
_SETTINGS_OF = {_ATARI: "atari", _DM_CONTROL: "dm_control", _MUJOCO_OF_GYM: "continuous"}
# In the order of precedence of their short names: Tetris means the Atari game.
_FAMILIES = {
    _ATARI: "Atari",
    "envpool.classic_control": "Classic control",
    "envpool.box2d": "Box2D",
    _DM_CONTROL: "DM Control",
    _MUJOCO_OF_GYM: "MuJoCo",
    "envpool.toy_text": "Toy text",
    _MINIGRID: "MiniGrid",
    "envpool.highway": "Highway",
    "envpool.procgen": "Procgen",
}
_PREFIXES = ("gym", "gymnasium")
GYMNAX = "gymnax"  # backend, and the prefix for names that other libraries also have
_GYMNAX_ONLY = ("minatar", "bsuite", "misc")  # endings of ids that only gymnax has


@dataclasses.dataclass(frozen=True)
class Task:
    """A game that was found."""

    game: str  # as the user named it
    name: str  # proper spelling of the same game: Breakout, gym:CartPole, my_pkg:MyEnv
    backend: str  # envpool | gymnasium | gymnax
    task_id: str  # the backend's own id


def find_task(game: str, backend: str = "auto") -> Task:
    """Find a game by name, without creating it.

    Args:
        game: a short name in any case (`breakout`, `LunarLander`), a full id (`CartPole-v1`,
            `MiniGrid-Empty-5x5-v0`), or an id for Gymnasium alone: `gym:Name-v0`, or
            `my_pkg:Name-v0`, where importing `my_pkg` registers the environment; or a game of
            gymnax: `Breakout-MinAtar`, `Catch-bsuite`, `gymnax:CartPole-v1`.
        backend: envpool, gymnasium, gymnax, or auto: envpool if it has the game.

    Raises:
        BadInput: there is no such game; the message has the nearest names.
    """
    if backend not in ("auto", "envpool", "gymnasium", GYMNAX):
        raise BadInput(
            f"env.backend is '{backend}'; it must be auto, envpool, gymnasium or gymnax."
        )
    prefix, _, rest = game.partition(":")
    home = GYMNAX if prefix == GYMNAX else "gymnasium"
    if rest and backend not in ("auto", home):
        raise BadInput(
            f"'{game}' is a name for {home.capitalize()}: set env.backend=auto or {home}."
        )
    if GYMNAX in (backend, rest and prefix) or (backend == "auto" and is_gymnax(game)):
        return _resolve_gymnax(game, rest or game)
    if rest:
        return _resolve_gymnasium(game, rest if prefix in _PREFIXES else game)
    if backend == "gymnasium":
        return _resolve_gymnasium(game, game)
    # Ids of the Arcade Learning Environment mean the same game under this protocol.
    task_id = _find(re.sub(r"^ALE/|NoFrameskip-v\d+$", "", game), _envpool_ids())
    if task_id:
        return Task(game, _proper_name(task_id, _envpool_ids()), "envpool", task_id)
    if backend == "auto" and (task_id := _find(game, _gymnasium_ids())):
        return _resolve_gymnasium(game, task_id)
    raise BadInput(_unknown(game, _suggestible()))


def as_written(name: str, task: Task) -> str:
    """The proper name of a game, with prefix and version if the user wrote them.

    `gym:CartPole-v1` asks for Gymnasium; the proper name alone would not.
    """
    prefix, _, bare = name.rpartition(":")
    if not prefix or task.backend != "gymnasium":
        return task.name
    proper = (task.task_id, task.name.rpartition(":")[2])
    return name if bare in proper else f"{prefix}:{task.task_id}"


def is_atari(game: str) -> bool:
    """Whether a name, in any spelling that `find_task` accepts, is an Atari game of envpool."""
    if ":" in game:
        return False
    task_id = _find(re.sub(r"^ALE/|NoFrameskip-v\d+$", "", game), _envpool_ids())
    return task_id is not None and is_atari_id(task_id)


def is_atari_id(task_id: str) -> bool:
    """Whether an id of envpool is an Atari game."""
    return family_of(task_id) == "atari"


def family_of(task_id: str) -> str | None:
    """The family of settings that an id of envpool belongs to by its module, if any."""
    return _SETTINGS_OF.get(_envpool_ids()[task_id])


def is_dm_control_id(task_id: str) -> bool:
    """Whether an id of envpool is a task of the DeepMind Control suite."""
    return family_of(task_id) == "dm_control"


def is_mujoco_id(task_id: str) -> bool:
    """Whether MuJoCo simulates, and draws, a game of envpool."""
    return _envpool_ids()[task_id].startswith(_MUJOCO)


@functools.cache
def list_games() -> Mapping[str, tuple[str, ...]]:
    """The playable games of envpool by family; the Atari-100k games come first.

    Each by its short name, or by its id if the short name means a game of another family. Older
    versions and alternative spellings are left out, but `find_task` knows them.
    """
    ids = _envpool_ids()
    games: dict[str, tuple[str, ...]] = {}
    for family, label in _FAMILIES.items():
        members = {task_id: held for task_id, held in ids.items() if held == family}
        playable = [task_id for task_id in _newest(members) if _is_playable(task_id, family)]
        games[label] = tuple(sorted(_proper_name(task_id, ids) for task_id in playable))
    others = tuple(name for name in games["Atari"] if name not in ATARI_100K)
    games = {"Atari-100k": ATARI_100K if games["Atari"] else ()} | games | {"Atari": others}
    return {label: names for label, names in games.items() if names}


def _is_playable(task_id: str, family: str) -> bool:
    """Whether it has one player, actions that can be used and one array as observation."""
    if family == _ATARI or family.startswith(_MUJOCO):
        return not task_id.startswith("Lqr")  # whose actions have no bounds
    import envpool
    from gymnasium import spaces

    with warnings.catch_warnings():  # bounds of spaces lose digits in float32, which is harmless
        warnings.simplefilter("ignore", UserWarning)
        try:
            made = envpool.make_spec(task_id)
        except ImportError:  # Procgen needs system libraries
            return False
        observation, action = made.observation_space, made.action_space
    # MiniGrid's mission and direction are left out; other dictionaries are not supported.
    can_be_seen = family == _MINIGRID or not isinstance(observation, spaces.Dict)
    is_for_one = made.config.max_num_players == 1
    return is_for_one and can_be_seen and isinstance(action, spaces.Discrete | spaces.Box)


@functools.cache
def _envpool_ids() -> Mapping[str, str]:
    """Ids of envpool and the module each comes from, families of `_FAMILIES` first; empty
    where envpool is not installed."""
    opengl.load()
    try:
        from envpool.registration import registry
    except ModuleNotFoundError as error:
        if error.name != "envpool":
            raise
        return {}
    order = {family: place for place, family in enumerate(_FAMILIES)}
    ids = {task_id: entry[0] for task_id, entry in registry.specs.items()}
    return dict(sorted(ids.items(), key=lambda item: order.get(item[1], len(order))))


def _gymnasium_ids() -> Mapping[str, str]:
    """Ids registered with Gymnasium; not cached, because importing a module may add some."""
    import gymnasium

    return dict.fromkeys(gymnasium.registry, "gymnasium")


def is_gymnax(name: str) -> bool:
    """Whether only gymnax has this game, by the ending of the name."""
    return ":" not in name and name.lower().endswith(tuple(f"-{end}" for end in _GYMNAX_ONLY))


def _resolve_gymnax(game: str, name: str) -> Task:
    import gymnax

    ids = dict.fromkeys(gymnax.registered_envs, GYMNAX)
    task_id = _find(name, ids)
    if task_id is None:
        raise BadInput(_unknown(game, ids))
    proper = task_id if is_gymnax(task_id) else f"{GYMNAX}:{_proper_name(task_id, ids)}"
    return Task(game, proper, GYMNAX, task_id)


def _resolve_gymnasium(game: str, name: str) -> Task:
    module, colon, bare = name.rpartition(":")
    if colon and not module:
        raise BadInput(f"'{game}' names no module: write my_package:MyEnv-v0, or the id alone")
    if module:
        _import(module, game)
    ids = _gymnasium_ids()
    task_id = _find(bare, ids)
    if task_id is None and is_atari(bare):
        raise BadInput(f"'{game}' is played with envpool: set env.backend=auto or envpool.")
    if task_id is None:
        raise BadInput(_unknown(game, _gymnasium_names()))
    proper = _proper_name(task_id, ids)
    return Task(game, f"{module or _PREFIXES[0]}:{proper}", "gymnasium", task_id)


def _import(module: str, game: str) -> None:
    if module.endswith(".py"):
        fix = game.replace(f"{module}:", f"{module.removesuffix('.py').replace('/', '.')}:")
        raise BadInput(f"'{game}' names a file: write the module, game={fix.lstrip('.')}")
    if not all(part.isidentifier() for part in module.split(".")):
        raise BadInput(f"'{module}' in game '{game}' is not the name of a Python module")
    try:
        with exiting_raises():
            importlib.import_module(module)
    except SystemExit as error:
        raise BadInput(
            f"importing '{module}' for game '{game}' ends the process: put the code of a script "
            'under `if __name__ == "__main__":`'
        ) from error
    except ModuleNotFoundError as error:
        # A module that the user's own code misses: show the original error.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise BadInput(
            f"cannot import '{module}' for game '{game}': "
            "install it, or start in a folder where Python finds it."
        ) from error
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:  # nothing else would report it
        raise BadInput(
            f"importing '{module}' for game '{game}' raises {in_short(error)}"
        ) from error


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9/]", "", name.lower())


def _split(task_id: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)-v(\d+)", task_id)
    return (match[1], int(match[2])) if match else (task_id, 0)


def _find(name: str, ids: Mapping[str, str]) -> str | None:
    if name in ids:
        return name
    return _short_names(tuple(ids.items())).get(_key(name))


@functools.lru_cache(maxsize=8)
def _short_names(ids: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Ids by short name and by id, in lower case and without punctuation.

    A short name means the newest version in the first family that has it.
    """
    newest: dict[str, tuple[str, int, str]] = {}  # short name: family, version, id
    for task_id, family in ids:
        base, version = _split(task_id)
        held = newest.get(_key(base))
        if held is None or (held[0] == family and held[1] < version):
            newest[_key(base)] = (family, version, task_id)
    exact = {_key(task_id): task_id for task_id, _ in reversed(ids)}
    return exact | {short: task_id for short, (_, _, task_id) in newest.items()}


def _proper_name(task_id: str, ids: Mapping[str, str]) -> str:
    """The short name if it resolves to this id, otherwise the id."""
    base, _ = _split(task_id)
    return base if _find(base, ids) == task_id else task_id


def _newest(ids: Mapping[str, str]) -> list[str]:
    """Ids without older versions, alternative spellings and copies in a namespace (`phys2d/`)."""
    short = _short_names(tuple(ids.items()))
    return [
        task_id
        for task_id in ids
        if short[_key(_split(task_id)[0])] == task_id
        and ("/" not in task_id or _key(_split(task_id)[0].rpartition("/")[2]) not in short)
    ]


@functools.cache
def _suggestible() -> tuple[str, ...]:
    names = [name for listed in list_games().values() for name in listed]
    return (*names, *_gymnasium_names())


def _gymnasium_names() -> list[str]:
    ids = _gymnasium_ids()
    return [_proper_name(task_id, ids) for task_id in _newest(ids)]


def _unknown(game: str, known: Iterable[str]) -> str:
    spelling = {_key(name): name for name in reversed(list(known))}
    wanted = _key(game.rpartition(":")[2])
    near = difflib.get_close_matches(wanted, spelling, n=3, cutoff=0.6)
    # BreakoutDeterministic-v4, Pong-ram: a known name with an ending.
    begun = [key for key in spelling if len(key) > 3 and wanted.startswith(key)]
    near = near or sorted(begun, key=len)[-1:]
    if near:
        names = " or ".join(spelling[key] for key in near)
        return f"unknown game '{game}'; did you mean {names}?"
    fix = "write a name such as Breakout, CartPole, MiniGrid-Empty-5x5-v0 or my_package:MyEnv-v0"
    if not _envpool_ids():
        fix = "envpool is not installed, so only games of Gymnasium can be played"
    return f"unknown game '{game}'; {fix}"
