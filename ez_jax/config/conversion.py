"""Configurations as dictionaries and dotted keys, and back."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from ez_jax.config import errors
from ez_jax.config.errors import BadInput
from ez_jax.config.settings import Config


def to_dict(config: Config) -> dict[str, Any]:
    """The nested plain dictionary of a configuration (tuples become lists, as in YAML)."""
    return dataclasses.asdict(
        config,
        dict_factory=lambda kv: {k: list(v) if isinstance(v, tuple) else v for k, v in kv},
    )


def from_dict(values: Mapping[Any, Any]) -> Config:
    """The inverse of `to_dict`; missing keys keep their defaults.

    Raises:
        BadInput: an unknown key, or a value of the wrong type.
    """
    return _build(Config, values, "")


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration with some values changed, by dotted key: `{"learner.batch_size": 64}`.

    Raises:
        BadInput: an unknown key, or a value of the wrong type.
    """
    values = to_dict(config)
    for key, value in changes.items():
        if key not in dotted_keys():
            raise BadInput(unknown_key(key))
        *sections, leaf = key.split(".")
        node = values
        for section in sections:
            node = node[section]
        node[leaf] = value
    return from_dict(values)


@functools.cache
def dotted_keys() -> tuple[str, ...]:
    """Every key by its dotted name: `seed`, `learner.batch_size`, ..."""
    return tuple(flatten(Config()))


def unknown_key(key: str) -> str:
    """The message about a key that does not exist, with similar keys."""
    if examples := [name for name in dotted_keys() if name.startswith(f"{key}.")][:3]:
        return f"'{key}' is a section; set one of its keys, such as {', '.join(examples)}"
    return f"unknown key '{key}'" + errors.suggestion(errors.nearest_keys(key, dotted_keys()))


def _build(kind: type, values: Any, prefix: str) -> Any:
    """Build one dataclass from a mapping; `prefix` is its dotted name, for messages."""
    if not isinstance(values, Mapping):
        section = prefix.rstrip(".")
        raise BadInput(f"{section} is {errors.shown(values)}: expected a section of keys")
    types = {item.name: item.type for item in dataclasses.fields(kind)}
    for name in values:
        if name not in types:
            raise BadInput(unknown_key(f"{prefix}{name}"))
    return kind(**{k: convert(types[k], v, f"{prefix}{k}") for k, v in values.items()})


def convert(kind: Any, value: Any, key: str) -> Any:
    """Convert a value to the type of its field: 1e5 is a whole number, "5" is not.

    Raises:
        BadInput: the value is of another type; `key` names it in the message.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build(kind, value, f"{key}.")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_number = is_number and not errors.is_absurd(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and is_number and float(value).is_integer():
        return int(value)
    if kind is float and is_number:
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is str and isinstance(value, int) and is_number:
        return str(value)  # a name may look like a number: name=3
    if kind == tuple[float, ...] and isinstance(value, list | tuple):
        return tuple(convert(float, item, key) for item in value)
    raise BadInput(f"{key} is {errors.shown(value)}: expected {_TYPE_NAMES[kind]}")


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[float, ...]: "a list of numbers, such as [1.0,0.5]",
}


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by dotted key."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[f"{prefix}{item.name}"] = value
    return flat
