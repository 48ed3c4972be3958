"""Bad input, and the messages about it: one line, not too long, with a suggestion."""

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn, TypeGuard

_LONGEST_VALUE, _LONGEST_SENTENCE = 80, 2_000  # characters


def one_line(text: object) -> str:
    """Make a sentence safe to print: control characters escaped, cut if it is too long.

    It may quote a file from an untrusted source.
    """
    plain = str(text)[: _LONGEST_SENTENCE + 1]
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    return plain if len(plain) <= _LONGEST_SENTENCE else f"{plain[:_LONGEST_SENTENCE]} ..."


def is_absurd(value: object) -> TypeGuard[int]:
    """Whether an integer is too large to become a float or, perhaps, text."""
    return isinstance(value, int) and value.bit_length() > 1_000


def shown(value: object) -> str:
    """A value as messages quote it; long ones are cut."""
    if is_absurd(value):
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."


def suggestion(nearest: Sequence[str]) -> str:
    """The end of a message about a misspelt name."""
    return f"; did you mean {' or '.join(nearest)}?" if nearest else "; see --help"


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """The message about an unknown name: the nearest names, or all of them."""
    nearest = difflib.get_close_matches(name, names := tuple(names), n=2, cutoff=0.6)
    hint = suggestion(nearest) if nearest else f"; choose {' or '.join(names)}"
    return f"unknown {kind} '{name}'{hint}"


def nearest_keys(key: str, keys: Sequence[str]) -> list[str]:
    """Keys with a similar last part, preferably in the same section."""
    key = key[:_LONGEST_VALUE]
    section, _, leaf = key.rpartition(".")
    by_leaf: dict[str, list[str]] = {}
    for name in keys:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
    similar = difflib.get_close_matches(leaf, by_leaf, n=2, cutoff=0.75)
    names = [name for near in similar for name in by_leaf[near]]
    same_section = [name for name in names if name.rpartition(".")[0] == section]
    return same_section or names or difflib.get_close_matches(key, keys, n=1, cutoff=0.8)


class BadInput(ValueError):
    """Bad input from the user: one sentence that names the fix. The command exits with code 2."""

    def __init__(self, sentence: object):
        """One line, whatever the sentence quotes."""
        super().__init__(one_line(sentence))


class Fault(RuntimeError):
    """A failure that the settings do not cause, but the game or the disk.

    One sentence. The command exits with code 1, and the run's crash bundle has the traceback.
    """

    def __init__(self, sentence: object, fix: str = ""):
        """One line, whatever the sentence quotes; `fix` is for the checks of a game."""
        super().__init__(one_line(sentence))
        self.fix = fix


def in_short(error: BaseException) -> str:
    """An error inside a sentence: its text, with its type unless it is one of ours."""
    if isinstance(error, BadInput | Fault):
        return one_line(error)
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))


@contextlib.contextmanager
def exiting_raises() -> Iterator[None]:
    """Let `os._exit` raise SystemExit, as `sys.exit` does, while a user's code runs."""
    process, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:  # a child process of that code may end
            leave(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave
