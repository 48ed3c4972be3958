"""Every sentence with which the package refuses or warns, read out of its code."""

import ast
from collections.abc import Iterator

from experiments.site import links, places

_REFUSALS = ("BadInput", "Busy")
SHORTEST = 12  # letters; what is shorter is put together elsewhere
# What a message is about, by the folder whose code says it.
TOPICS = {
    "Settings and commands": ("config", "terminal", "structs", "train", "evaluate"),
    "Games and environments": ("envs", "diagnosis", "doctor"),
    "Run folders, checkpoints and resuming": ("storage", "training"),
    "Memory, devices and processes": ("system",),
    "Agent, evaluation and inspection": ("agent", "evaluation", "inspection", "inspect"),
    "Ablations and reports": ("studies", "ablate", "reports", "report"),
    "Other": (),
}


def refusals() -> str:
    """A list per topic, in alphabetical order: each message, linked to the line that says it."""
    lists: dict[str, dict[str, str]] = {topic: {} for topic in TOPICS}
    topic_of = {folder: topic for topic, folders in TOPICS.items() for folder in folders}
    for path in sorted((places.ROOT / "ez_jax").rglob("*.py")):
        name = path.relative_to(places.ROOT).as_posix()
        messages = lists[topic_of.get(name.split("/")[1].removesuffix(".py"), "Other")]
        for number, text in _found(places.parse(name), name):
            messages.setdefault(text, links.line(name, number))
    return "\n\n".join(
        f"### {topic}\n\n" + "\n".join(f"- {text} {link}" for text, link in _sorted(messages))
        for topic, messages in lists.items()
        if messages
    )


def _sorted(messages: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(messages.items(), key=lambda item: item[0].lstrip("…&#;0123456789 '").lower())


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
