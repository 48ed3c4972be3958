"""The reference of the configuration, from its dataclasses, comments and checks."""

import ast
import dataclasses
import html
import io
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.site import links, places
from ez_jax.config import Config, checks, families, presets

CONFIG = "ez_jax/config/settings.py"
NOT_ATARI = "every game but Atari"
SECTIONS = [item.name for item in dataclasses.fields(Config) if dataclasses.is_dataclass(item.type)]


def reference() -> str:
    """A section per dataclass with a table of its keys."""
    told = comments()
    parts = [_section("The run", Config, "", told)]
    for item in dataclasses.fields(Config):
        if dataclasses.is_dataclass(item.type):
            parts.append(_section(item.name, item.type, f"{item.name}.", told))
    return "\n\n".join(parts)


def _section(title: str, kind: type, prefix: str, told: Mapping[tuple[str, str], str]) -> str:
    anchor = f" {{ #{prefix.rstrip('.')} }}" if prefix else ""
    lines = [f"## `{title}`{anchor}" if prefix else f"## {title}", "", kind.__doc__ or "", ""]
    lines += [links.code(f"ez_jax.config.settings:{kind.__name__}"), ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    differing = changed_by()
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.type):
            continue
        key = f"{prefix}{item.name}"
        name = f'<a id="{key}" href="#{key}"><code>{key}</code></a>'
        others = "".join(
            f'<span class="differs">{who}: <code>{typed(value)}</code></span>'
            for who, value in differing.get(key, {}).items()
        )
        default = f"`{typed(item.default)}`<span class='allowed'>{allowed(key, item.type)}</span>"
        text = _plain(told[kind.__name__, item.name])
        lines.append(f"| {name} | {default} | {text}{others} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A comment as a cell of a table that prints it as it is."""
    return html.escape(text, quote=False).replace("|", "&#124;").replace("*", "&#42;")


def comments() -> dict[tuple[str, str], str]:
    """What stands beside and above each field of each dataclass, by class and field."""
    source = (places.ROOT / CONFIG).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    lines, found = source.splitlines(), {}
    for node in places.parse(CONFIG).body:
        for field in getattr(node, "body", []):
            if isinstance(node, ast.ClassDef) and isinstance(field, ast.AnnAssign):
                above = field.lineno - 1
                text = by_line.get(field.end_lineno or 0, "")
                while lines[above - 1].lstrip().startswith("#"):
                    text = f"{by_line[above]} {text}".strip()
                    above -= 1
                found[node.name, ast.unparse(field.target)] = text
    return found


def allowed(key: str, kind: Any) -> str:
    """The values that a check lets pass, in words."""
    if key in checks.CHOICES:
        return "one of " + ", ".join(checks.CHOICES[key])
    if kind is bool:
        return "true or false"
    if kind is str:
        return "text"
    least = "at least 1" if key in checks.AT_LEAST_ONE else "at least 0"
    if key in checks.POSITIVE:
        least = "above 0"
    most = 1 if key in checks.SHARES else checks.AT_MOST.get(key)
    whole = {int: "whole number, ", float: ""}.get(kind, "list of numbers, each ")
    return f"{whole}{least}" + (f", at most {most:,}" if most else "")


def typed(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(typed, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else str(value) or '""'


def changed_by() -> dict[str, dict[str, Any]]:
    """By key: which presets, kinds of games and games set another value, and which."""
    found: dict[str, dict[str, Any]] = {}
    for who, differences in _layers():
        for key, value in flat(differences):
            found.setdefault(key, {})[who] = value
    return found


def _layers() -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((f"preset {name}", values) for name, values in presets.PRESETS.items())
    for (preset, scope), values in presets.PRESETS_FOR.items():
        yield f"preset {preset}, {scope}", values
    yield NOT_ATARI, families.FAMILIES["other"]
    common = dict(flat(families.FAMILIES["other"]))
    for family, values in families.FAMILIES.items():
        yield family, {k: v for k, v in flat(values) if common.get(k) != v}
    yield from ((game, values) for game, (_, values) in families.GAMES.items())


def flat(differences: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested differences by dotted key."""
    for key, value in differences.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def groups() -> str:
    """Tables of the named sets of settings beside the presets."""
    parts = []
    for title, group in (
        ("ablation", presets.ABLATIONS),
        ("protocol", presets.PROTOCOLS),
        ("compat", presets.COMPAT),
    ):
        rows = [f"| `{title}=` | is the same as |", "|---|---|"]
        for name, differences in group.items():
            words = " ".join(f"`{key}={typed(value)}`" for key, value in flat(differences))
            rows.append(f"| `{name}` | {words or 'nothing: the defaults'} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)
