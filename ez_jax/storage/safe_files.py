"""Reads small text files from untrusted sources, as data only and within limits.

Only regular files up to a limit of bytes are read. JSON and YAML become plain mappings, lists and
scalars, without duplicate keys, deep nesting, NaN or infinity, and without YAML's tags, which build
objects, and aliases, which can multiply the content.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ez_jax.config import BadInput

SMALL = 2**16  # bytes; a configuration has 4,000
LARGE = 2**24  # bytes; the index of a checkpoint has 100 per array
DEEPEST = 16  # levels of nesting in YAML


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole file; pipes and devices, which may never end, are refused.

    Raises:
      OSError: there is no such file, or it cannot be opened.
      BadInput: it is not a regular file, or larger than `limit` bytes.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as opened:
        check_regular(path, os.fstat(file), limit)
        return opened.read(limit)


def check_regular(path: Path, status: os.stat_result, limit: int) -> None:
    """Refuse what cannot be read to its end.

    Raises:
      OSError: it is a folder.
      BadInput: it is not a regular file, or larger than `limit` bytes.
    """
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is damaged: it is not a regular file")
    if status.st_size > limit:
        raise BadInput(f"{path} is damaged: it has {status.st_size:,} bytes, at most {limit:,} fit")


def read_json(path: Path, limit: int = LARGE) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      OSError: there is no such file, or it cannot be opened.
      BadInput: it cannot be read as JSON, or as an object.
    """
    try:
        return parse_json(read_bytes(path, limit))
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(f"{path} is damaged: it is not JSON ({error})") from error


def parse_json(raw: bytes) -> dict[str, Any]:
    """The object that some JSON holds.

    Raises:
      ValueError: it is not JSON, no object, nested too deeply, or names a key twice.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_number
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def read_yaml(path: Path, limit: int = SMALL) -> dict[Any, Any]:
    """The mapping that a YAML file holds.

    Raises:
      OSError: there is no such file, or it cannot be opened.
      BadInput: it cannot be read as YAML, or as a mapping.
    """
    raw = read_bytes(path, limit)
    try:
        value = yaml.load(raw.decode("utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        reason = getattr(error, "problem", None)
        raise BadInput(
            f"{path} is damaged: it is not YAML{f' ({reason})' * bool(reason)}"
        ) from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} is damaged: it contains no settings")
    return value


def write_whole(path: Path, text: str) -> None:
    """Write a file such that a kill leaves the old one or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def check_links(folder: Path, entries: Iterable[Path]) -> None:
    """Refuse entries of a folder that lead out of it, or are neither a file nor a folder.

    Raises:
      BadInput: names the entry.
    """
    root = folder.resolve()
    for entry in entries:
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            raise BadInput(f"{entry} is a link that leads outside; put there what it leads to")
        if entry.exists() and not (entry.is_file() or entry.is_dir()):
            raise BadInput(f"{entry} is neither a file nor a folder; remove it")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


class _PlainLoader(yaml.SafeLoader):
    """What `yaml.safe_dump` makes of plain values, and no more."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node with all that is below it; here aliases and tags are still to be seen."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.MarkedYAMLError(problem="aliases are not allowed")
        if event.tag is not None:
            raise yaml.MarkedYAMLError(problem="tags are not allowed")
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping; the last of two equal keys would win otherwise."""
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key occurs twice")
        return found
