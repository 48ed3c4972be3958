"""From the words of a command line to a configuration or an error message.

Words follow Hydra's grammar, with tolerance: `game=X` and `+game=X` are the same, the case of a
game does not matter, and mistakes are found before anything starts.
"""

import collections
import difflib
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ez_jax import config
from ez_jax.config import BadInput, Config, errors, families, paths, presets

DEFAULT_GAME = "CartPole"
# Keys of the training command itself, not settings of a run: only plan it, and how many seeds to
# train in one program.
OWN = {"plan": False, "seeds": 1}
# Free text: many characters of a path have a meaning in Hydra's grammar.
_TEXT_KEYS = ("name", "run_dir")
# Keys that already distinguish the paths of the runs of a sweep, or name the path itself.
_NOT_IN_RUN_NAME = ("game", "seed", "name", "run_dir")
_LONGEST_NAME = 100
_INTERPOLATION = "; ${key} inserts another setting; write \\${ for these two characters"


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into settings of a run, and flags and keys for Hydra."""
    hydras = [word for word in words if _is_for_hydra(word)]
    return [word for word in words if not _is_for_hydra(word)], hydras


def _is_for_hydra(word: str) -> bool:
    # A bare word is the value of a flag, as in `--cfg job`.
    is_bare = "=" not in word and not word.startswith("~")
    return word.startswith("-") or is_bare or word.lstrip("+~").startswith("hydra")


def compose(words: Sequence[str]) -> Config:
    """The configuration that these words mean for the training command.

    Raises:
        BadInput: a word cannot be read, or the configuration is impossible.
    """
    return finish(configuration(parse(words)))


def parse(
    words: Sequence[str], *, sweep: bool = False, own: Iterable[str] = ("game", *OWN)
) -> list[Override]:
    """Read settings and check each of them.

    Args:
        words: `key=value` each.
        sweep: whether a setting may have several values.
        own: further keys to suggest for an unknown one.

    Raises:
        BadInput: an unknown key or name, or a word that cannot be read.
    """
    overrides = [_parse_setting(word, sweep, own) for word in words]
    given = collections.Counter(override.key_or_group for override in overrides)
    for key in ("ablation", "protocol", "compat"):
        if given[key] > 1:
            raise BadInput(f"{key} is given {given[key]} times: write one list, {key}=[A,B]")
    return overrides


def _parse_setting(word: str, sweep: bool, own: Iterable[str]) -> Override:
    if word.startswith("~"):
        raise BadInput(f"'{word}' would remove a key, which is not possible: give it a value")
    key, text = _key_and_text(word)
    if key != "game" and key not in presets.SETS and key not in config.dotted_keys():
        raise BadInput(_unknown(key, [*own, *presets.SETS]))
    if key in _TEXT_KEYS and not sweep and not _is_quoted(text):
        text = _quoted(text)
    override = _parse(f"{key}={text}")
    has_several = override.is_sweep_override()
    if has_several and not sweep:
        raise BadInput(
            f"'{word}' has several values: add -m to run them one after another, "
            f"or write {key}=[{text}] for a list"
        )
    if key == "run_dir" and sweep and not has_several and "${" not in text:
        raise BadInput("run_dir is one folder, but a sweep has many runs: set name= instead")
    if key in ("game", "preset") and any(isinstance(item, list) for item in _items(override)):
        raise BadInput(f"a run has one {key}: for several runs write -m {key}=A,B")
    for name in _names(override) if key == "game" else ():
        families.name_and_family(name)
    for name in _names(override) if key in presets.SETS else ():
        presets.named(key, name)
    return override


def configuration(overrides: Iterable[Override]) -> DictConfig:
    """All settings with these changes, unchecked; references (`${seed}`) are not resolved."""
    game, preset = DEFAULT_GAME, ""
    chosen: list[tuple[str, str]] = []
    changes: dict[str, Any] = {}
    for override in overrides:
        key = override.key_or_group
        if key == "game":
            (game,) = _names(override)
        elif key == "preset":
            (preset,) = _names(override)
        elif key in presets.SETS:
            chosen += [(key, name) for name in _names(override)]
        else:
            changes[key] = override.value()
    node = OmegaConf.create(presets.compose(game, preset, chosen))
    for key, value in changes.items():
        try:
            OmegaConf.update(node, key, value)
        except OmegaConfBaseException as error:
            raise BadInput(first_line(error) + _INTERPOLATION) from error
    return node


def finish(node: DictConfig, name: str = "") -> Config:
    """The checked configuration from an OmegaConf node, with another name if one is given.

    Raises:
        BadInput: a value of the wrong type, or an impossible configuration.
    """
    if name:
        node.name = name
    try:
        values = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise BadInput(first_line(error) + _INTERPOLATION) from error
    assert isinstance(values, dict)
    return config.validate(config.from_dict(values))


def for_sweeper(override: Override) -> str:
    """A setting in Hydra's syntax; keys of named sets need `+`, because they have no value yet."""
    key, text = override.key_or_group, override.get_value_string()
    if key == "game" or isinstance(override.value(), Glob):
        text = ",".join(_names(override))
    return f"{key}={text}" if key in config.dotted_keys() else f"+{key}={text}"


def take(words: Sequence[str], own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Separate a command's own words from those of the configuration.

    Args:
        words: the command line.
        own: the command's keys with their defaults, which give the types; text is not parsed.

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


def read(words: Sequence[str], own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read `key=value` words for a command that takes its configuration from a run folder.

    Args:
        words: the command line.
        own: the command's own keys with their defaults, which give the types.

    Returns:
        The own keys with their values, and changes to the configuration by dotted key, for
        `config.override`.

    Raises:
        BadInput: an unknown key, a word that cannot be read or a value of the wrong type.
    """
    taken, others = take(words, own)
    changes: dict[str, Any] = {}
    for word in others:
        key, text = _key_and_text(word)
        if key not in config.dotted_keys():
            raise BadInput(_unknown(key, own))
        changes[key] = text if key in _TEXT_KEYS else _parse(f"{key}={text}").value()
    return {**own, **taken}, changes


def folders(words: Sequence[str], own: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split words into those that name folders and the others.

    An existing folder counts even if it is called `lr=0.1` or `-o`, unless the word sets a key of
    the command. Keys contain no slash.
    """
    own = tuple(own)

    def is_folder(word: str) -> bool:
        key, equals, _ = word.partition("=")
        if equals and key in own:
            return False
        is_key = bool(equals) and "/" not in key
        return not (is_key or word.startswith("-")) or paths.expanded(word).is_dir()

    named = [word for word in words if is_folder(word)]
    return named, [word for word in words if word not in named]


def listed(key: str, text: str) -> list[str]:
    """The items of `a,b`, `[a,b]` or `a`.

    Raises:
        BadInput: the text is not such a list.
    """
    names = _names(_parse(f"{key}={text}"))
    if not names:
        raise BadInput(f"cannot read '{key}={text}': write a list, such as {key}=a,b")
    return names


def combinations(words: Sequence[str], own: Mapping[str, Any]) -> dict[str, list[str]]:
    """The command lines of a sweep, by a name that distinguishes them.

    Raises:
        BadInput: an unknown key, or a word that cannot be read.
    """
    for word in words:
        if word.startswith("-"):
            raise BadInput(f"'{word}' is not needed here: lists of values are swept anyway")
    choices = [
        [f"{override.key_or_group}={value}" for value in _values(override)]
        for override in parse(words, sweep=True, own=own)
    ]
    swept = [len(choice) > 1 for choice in choices]
    return {
        run_name(list(itertools.compress(chosen, swept))) if any(swept) else "": list(chosen)
        for chosen in itertools.product(*choices)
    }


def _values(override: Override) -> list[str]:
    """The values of a setting, as text."""
    if not override.is_sweep_override():
        return [override.get_value_string()]
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        key = override.key_or_group
        raise BadInput(
            f"'{override.input_line}' does not list its values: write {key}=1,2 or {key}=range(1,3)"
        )
    return list(override.sweep_string_iterator())


def run_name(words: Sequence[str]) -> str:
    """A name for a run of a sweep, from its settings.

    Sections are dropped if that is unambiguous: `num_simulations-8` could also mean
    `eval.num_simulations`, so such keys keep theirs.
    """
    leaves = collections.Counter(key.rpartition(".")[2] for key in config.dotted_keys())
    parts = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key in _NOT_IN_RUN_NAME or key.startswith("hydra"):
            continue
        leaf = key.rpartition(".")[2]
        shown = leaf if leaves[leaf] <= 1 else key
        parts.append(re.sub(r"[^\w.-]+", "-", f"{shown}-{value}").strip("-"))
    name = "_".join(parts) or Config.name
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[:_LONGEST_NAME]}-{digest}"
    return name


def _parse(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise BadInput(unreadable(word)) from error


def _key_and_text(word: str) -> tuple[str, str]:
    key, equals, text = word.lstrip("+").partition("=")
    if not equals or word.startswith("-"):
        raise BadInput(unreadable(word))
    return key, text


def _quoted(text: str) -> str:
    """Quote text so that Hydra reads it literally."""
    # For Hydra a backslash is an escape only before a quote.
    return "'" + re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _items(override: Override) -> list[Any]:
    """The values that an override chooses from; none if they cannot be listed."""
    value = override.value()
    if isinstance(value, Glob):
        known = presets.SETS.get(override.key_or_group, families.GAMES)
        return value.filter(list(known))
    if isinstance(value, ChoiceSweep):
        return value.list
    return [] if override.is_sweep_override() else [value]


def _names(override: Override) -> list[str]:
    """The names in an override, single or in lists."""
    lists = [item if isinstance(item, list) else [item] for item in _items(override)]
    return [str(getattr(name, "text", name)) for names in lists for name in names]


def _unknown(key: str, own: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(key, list(own), n=2, cutoff=0.7)
    if nearest:
        return f"unknown key '{key}'" + errors.suggestion(nearest)
    return config.unknown_key(key)


def unreadable(word: str) -> str:
    """The message about a word that is not an override."""
    return f"cannot read '{word}': write key=value, such as learner.batch_size=64"


def first_line(error: Exception) -> str:
    """The first line of an error of Hydra, without its advice."""
    return str(error).strip().partition("\n")[0]
