"""Every sentence with which the package refuses or warns, read out of its code."""

import ast
from collections.abc import Iterator

from experiments.site import links, places

_REFUSALS = ("BadInput", "Busy")
SHORTEST = 12  # letters; what is shorter is put together elsewhere


def refusals() -> str:
    """A list per file: each sentence, linked to the line that says it."""
    parts = []
    for path in sorted((places.ROOT / "ez_jax").rglob("*.py")):
        name = path.relative_to(places.ROOT).as_posix()
        rows = [
            f"- {text} {links.line(name, number)}"
            for number, text in dict(_found(places.parse(name), name)).items()
        ]
        if rows:
            parts.append("\n".join([f"### `{name}` {{ #{name.replace('/', '-')} }}", "", *rows]))
    return "\n\n".join(parts)


def _found(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        told = None
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            told = node.args[0] if called in _REFUSALS or called == "warn" else None
        if isinstance(node, ast.Yield) and name.endswith("/checks.py"):
            told = node.value
        if told is not None and sum(map(str.isalpha, text := spoken(told))) >= SHORTEST:
            yield node.lineno, text


def spoken(node: ast.AST) -> str:
    """The words of a string expression; what is filled in is an ellipsis."""
    if isinstance(node, ast.Constant):
        return _plain(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(spoken, node.values))
    if isinstance(node, ast.BinOp):
        return spoken(node.left) + spoken(node.right)
    return "…"


def _plain(text: str) -> str:
    """Text that Markdown prints as it is."""
    for character in "\\`*_[]<>|{}":
        text = text.replace(character, f"&#{ord(character)};")
    return text
