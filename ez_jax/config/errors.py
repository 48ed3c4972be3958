"""Bad input, and the sentences that tell of it: on one line, not too long, with what was meant."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeGuard

_LONGEST_VALUE, _LONGEST_SENTENCE = 80, 2_000  # characters


def one_line(text: object) -> str:
    """A sentence as it can be printed anywhere: control characters escaped, cut where it is long.

    What it quotes may come from a file that a stranger wrote.
    """
    plain = str(text)[: _LONGEST_SENTENCE + 1]
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    return plain if len(plain) <= _LONGEST_SENTENCE else f"{plain[:_LONGEST_SENTENCE]} ..."


def is_absurd(value: object) -> TypeGuard[int]:
    """Whether a whole number is so large that it becomes neither a float nor, perhaps, text."""
    return isinstance(value, int) and value.bit_length() > 1_000


def shown(value: object) -> str:
    """A value as a sentence quotes it: not all of a long one."""
    if is_absurd(value):
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."


def suggestion(nearest: Sequence[str]) -> str:
    """How a sentence about a misspelt name goes on."""
    return f"; did you mean {' or '.join(nearest)}?" if nearest else "; see --help"


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """The sentence about a name that is none of these: what was meant perhaps, or all of them."""
    nearest = difflib.get_close_matches(name, names := tuple(names), n=2, cutoff=0.6)
    hint = suggestion(nearest) if nearest else f"; choose {' or '.join(names)}"
    return f"unknown {kind} '{name}'{hint}"


def nearest_keys(key: str, keys: Sequence[str]) -> list[str]:
    """Keys with a similar last part, those of the same section if there are any."""
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
    """Bad input from the user: one sentence that names the fix; the command exits with 2."""

    def __init__(self, sentence: object):
        """One line, whatever the sentence quotes."""
        super().__init__(one_line(sentence))


class Fault(RuntimeError):
    """What ends a run though its settings are good, a game's or a disk's doing.

    One sentence; the command exits with 1, and the run's crash bundle has the traceback.
    """

    def __init__(self, sentence: object, fix: str = ""):
        """One line, whatever the sentence quotes; what would mend it, for who looks at a game."""
        super().__init__(one_line(sentence))
        self.fix = fix


def in_short(error: BaseException) -> str:
    """An error inside a sentence: its words, with its kind where it is none of ours."""
    is_ours = isinstance(error, BadInput | Fault)
    return one_line(error) if is_ours else one_line(f"{type(error).__name__}: {error}")
