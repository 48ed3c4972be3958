"""From the words of a command line to what Hydra is given, and back to sentences.

Hydra wants `game=X` for a group inside the defaults list and `+ablation=X` for one outside; here
either spelling works for every group, games in any case, and mistakes are found before Hydra sees
them.
"""

import collections
import difflib
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException

from ez_jax import config
from ez_jax.config import BadInput, errors, presets

DEFAULT_GAME = "CartPole"
# Groups of named settings; the game group is filled with what the command line names.
GROUPS = {
    "preset": presets.PRESETS,
    "ablation": presets.ABLATIONS,
    "protocol": presets.PROTOCOLS,
    "compat": presets.COMPAT,
}
# Of the training command itself, no settings of a run: whether to plan it only, and how many seeds
# to train in one program.
OWN = {"plan": False, "seeds": 1}
# Free text: Hydra's grammar has a meaning for many characters of a path.
_TEXT_KEYS = ("name", "run_dir")
# What tells the cells of a sweep apart in the path already, or names the path itself.
_NOT_IN_CELL_NAME = ("game", "seed", "name", "run_dir")
_LONGEST_NAME = 100


def rewrite(words: Sequence[str]) -> list[str]:
    """The words as Hydra wants them, with the configurations they name registered.

    Raises:
        BadInput: an unknown key or name, or a word that cannot be read.
    """
    multirun = is_multirun(words)
    return [_rewrite_word(word, multirun=multirun) for word in words]


def take(words: Sequence[str], own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Take the words of a command itself from among those of the configuration.

    Args:
        words: the command line.
        own: the command's keys with their defaults, whose types are kept; text is not parsed.

    Returns:
        The own keys that are given, with their values, and the other words.

    Raises:
        BadInput: a value of the wrong type.
    """
    taken, others = {}, []
    for word in words:
        key, equals, text = word.lstrip("+").partition("=")
        if key not in own or not equals:
            others.append(word)
        elif isinstance(own[key], str):
            taken[key] = text
        else:
            override = _parse(f"{key}={text}")
            value = text if override.is_sweep_override() else override.value()
            taken[key] = config.convert(type(own[key]), value, key)
    return taken, others


def listed(key: str, text: str) -> list[str]:
    """The items of `a,b`, `[a,b]` or `a`.

    Raises:
        BadInput: the text cannot be read so.
    """
    names = _names(_parse(f"{key}={text}"))
    if names is None:
        raise BadInput(f"cannot read '{key}={text}': write a list, such as {key}=a,b")
    return names


def combinations(words: Sequence[str], own: Mapping[str, Any]) -> dict[str, list[str]]:
    """The command lines that a sweep consists of, by a name that tells them apart.

    Raises:
        BadInput: an unknown key, or a word that cannot be read.
    """
    choices = []
    for word in words:
        if word.startswith("-"):
            raise BadInput(f"'{word}' is not needed here: lists of values are swept by themselves")
        key, equals, text = word.lstrip("+").partition("=")
        if not equals:
            raise BadInput(unreadable(word))
        nearest = difflib.get_close_matches(key, own, n=2, cutoff=0.75)
        if nearest and key not in config.dotted_keys() and key not in GROUPS:
            raise BadInput(f"unknown key '{key}'" + errors.suggestion(nearest))
        _rewrite_word(word, multirun=True)  # for its refusals
        choices.append([f"{key}={value}" for value in _values(word, key, text)])
    swept = [len(choice) > 1 for choice in choices]
    return {
        cell_name(list(itertools.compress(chosen, swept))) if any(swept) else "": list(chosen)
        for chosen in itertools.product(*choices)
    }


def _values(word: str, key: str, text: str) -> list[str]:
    """The values of a word, as they are written."""
    override = _parse(f"{key}={text}")
    if not override.is_sweep_override():
        return [text]
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        raise BadInput(f"'{word}' names no values one by one: write {key}=1,2 or {key}=range(1,3)")
    return list(override.sweep_string_iterator())


def is_multirun(words: Sequence[str]) -> bool:
    """Whether the words ask for a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(words))


def register_base() -> None:
    """Store the defaults and the groups where Hydra finds them.

    Later wins: the defaults themselves, the preset, what the preset sets for this game, the game
    (which also chooses a preset where the command line does not), ablations, the command line.
    """
    store = ConfigStore.instance()
    hydra = {
        # No outputs/ folder: a run has its own. A sweep leaves a record of what was asked.
        "run": {"dir": "."},
        "sweep": {"subdir": "."},
        "output_subdir": None,
        "job": {"name": "ez_jax", "chdir": False},
    }
    defaults = [
        "_self_",
        {"preset": "efficientzero"},
        {"tuning": "${preset}_${game}"},
        {"game": DEFAULT_GAME},
        # Hydra's handlers would print what every library logs.
        {"override hydra/job_logging": "none"},
        {"override hydra/hydra_logging": "none"},
    ]
    node = {"defaults": defaults, **config.to_dict(config.Config()), "hydra": hydra}
    store.store(name="config", node=node)
    for group, options in GROUPS.items():
        for name, differences in options.items():
            store.store(group=group, name=name, node=dict(differences), package="_global_")
    _register_games([DEFAULT_GAME])


def _register_games(names: Sequence[str]) -> list[str]:
    """Store games where Hydra finds them; the options that choose them."""
    store = ConfigStore.instance()
    options = []
    for name in names:
        game, family = presets.find_game(name)
        # An id such as module:Name-v0 or ALE/Pong-v5 would be taken for a path.
        option = re.sub(r"[^\w.-]+", "_", game)
        options.append(option)
        node = {
            "defaults": ["_self_", {"override /preset": presets.DEFAULT_PRESETS[family]}],
            **presets.game_differences(game, family),
        }
        store.store(group="game", name=option, node=node, package="_global_")
        for preset in presets.PRESETS:
            node = presets.tuning(preset, game, family)
            store.store(group="tuning", name=f"{preset}_{option}", node=node, package="_global_")
    return options


def _rewrite_word(word: str, *, multirun: bool) -> str:
    if word.startswith("-") or "=" not in word or word.lstrip("+~").startswith("hydra"):
        return word
    if word.startswith("~"):
        raise BadInput(f"'{word}' would remove a key, which is not possible: give it a value")
    key, _, value = word.lstrip("+").partition("=")
    if key in _TEXT_KEYS and not multirun and value[:1] not in ("'", '"'):
        value = quote(value)
    override = _parse(f"{key}={value}")
    if key != "game" and key not in GROUPS and key not in config.dotted_keys():
        raise BadInput(_unknown(key))
    if override.is_sweep_override() and not multirun:
        raise BadInput(
            f"'{word}' gives several values: add -m to run them one after another, "
            f"or write {key}=[{value}] where a list is meant"
        )
    if key == "run_dir" and multirun and not override.is_sweep_override() and "${" not in value:
        raise BadInput("run_dir is one folder, but a sweep has many runs: give a name= instead")
    if key == "game" or key in GROUPS:
        return _rewrite_choice(key, value, override)
    return f"{key}={value}"


def quote(text: str) -> str:
    """Text as Hydra reads it whatever it holds."""
    # Hydra takes a backslash for an escape only where a quote follows.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"


def _rewrite_choice(key: str, value: str, override: Override) -> str:
    names = _names(override)
    if key == "game" and names is not None:
        if isinstance(override.value(), list):
            raise BadInput("a run has one game: for several runs write -m game=A,B")
        return f"game={','.join(_register_games(names))}"
    for name in names or ():
        _check_choice(key, name)
    in_defaults = key in ("game", "preset")
    return f"{key}={value}" if in_defaults else f"+{key}={value}"


def _check_choice(group: str, name: str) -> None:
    if name not in GROUPS[group]:
        nearest = difflib.get_close_matches(name, GROUPS[group], n=2, cutoff=0.6)
        hint = errors.suggestion(nearest) if nearest else f"; choose {_either(GROUPS[group])}"
        raise BadInput(f"unknown {group} '{name}'{hint}")


def _names(override: Override) -> list[str] | None:
    """The options that an override names; None where Hydra finds them itself (glob)."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [str(getattr(item, "text", item)) for item in value.list]
    if isinstance(value, list):
        return [str(item) for item in value]
    return None if override.is_sweep_override() else [str(value)]


def _unknown(key: str) -> str:
    nearest = difflib.get_close_matches(key, ["game", *GROUPS, *OWN], n=1, cutoff=0.7)
    if nearest:
        return f"unknown key '{key}'" + errors.suggestion(nearest)
    return config.unknown_key(key)


def _either(names: Sequence[str] | Mapping[str, Any]) -> str:
    return " or ".join(names)


def _parse(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise BadInput(unreadable(word)) from error


def unreadable(word: str) -> str:
    """The sentence about a word that is no override."""
    return f"cannot read '{word}': write key=value, such as learner.batch_size=64"


def read(words: Sequence[str], own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read `key=value` words for a command that takes its configuration from a run folder.

    Args:
        words: the command line.
        own: the command's own keys with their defaults, whose types are kept.

    Returns:
        The own keys with their values, and the changes to the configuration by dotted key (for
        `config.override`).

    Raises:
        BadInput: an unknown key, a word that cannot be read or a value of the wrong type.
    """
    values, changes = dict(own), {}
    for word in words:
        key, equals, text = word.lstrip("+").partition("=")
        if not equals or word.startswith("-"):
            raise BadInput(unreadable(word))
        if isinstance(own.get(key), str):
            values[key] = text
        elif key in own:
            values[key] = config.convert(type(own[key]), _parse(f"{key}={text}").value(), key)
        elif key in config.dotted_keys():
            changes[key] = text if key in _TEXT_KEYS else _parse(f"{key}={text}").value()
        else:
            nearest = difflib.get_close_matches(key, own, n=2, cutoff=0.6)
            hint = f"unknown key '{key}'" + errors.suggestion(nearest)
            raise BadInput(hint if nearest else config.unknown_key(key))
    return values, changes


def cell_name(overrides: Sequence[str]) -> str:
    """A run name that tells the cells of a sweep apart, from the overrides of one cell.

    Short where it can be: `num_simulations-8` for `search.num_simulations=8` would also stand for
    `eval.num_simulations`, so such keys keep their section.
    """
    leaves = collections.Counter(key.rpartition(".")[2] for key in config.dotted_keys())
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in _NOT_IN_CELL_NAME or key.startswith("hydra"):
            continue
        leaf = key.rpartition(".")[2]
        shown = leaf if leaves[leaf] <= 1 else key
        parts.append(re.sub(r"[^\w.-]+", "-", f"{shown}-{value}").strip("-"))
    name = "_".join(parts) or config.Config.name
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[:_LONGEST_NAME]}-{digest}"
    return name
