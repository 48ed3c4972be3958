"""One cell of a study, in a process of its own: only the cell fails if it crashes.

    python -m ez_jax.cell FILE

FILE is what the ledger of `python -m ez_jax.ablate` keeps beside the log of the cell: the whole
configuration of one run, or of several that differ in their seed and are trained together.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ez_jax import arguments, cli, config, interrupt, lock, safe_files
from ez_jax.config import BadInput, Config

# What the process that starts it hands over: the open file of a lock, and its own number.
OWN_KEYS = {"lock": -1, "parent": 0}
KEY = "configs"


def can_be_packed(game: str, backend: str) -> bool:
    """Whether several seeds of a game can be trained in one program."""
    return False


def read(path: Path) -> list[Config]:
    """The configurations that a file holds.

    Raises:
      BadInput: there is no such file, or it is damaged.
    """
    try:
        found = safe_files.read_json(path).get(KEY)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if not (isinstance(found, list) and found):
        raise BadInput(f"{path} is damaged: it holds no configurations")
    return [config.validate(config.from_dict(values)) for values in found]


def run(configs: Sequence[Config]) -> int:
    """Train; returns the exit code."""
    # Imported here: a refusal needs neither.
    if len(configs) == 1:
        from ez_jax.train import train

        return train(configs[0])
    from ez_jax.together import train_together

    return train_together(configs)


def main() -> int:
    """Train what a file holds."""
    path, *words = sys.argv[1:] or [""]
    if not path:
        raise BadInput("which cell? write python -m ez_jax.cell FILE")
    values, _ = arguments.read(words, OWN_KEYS)
    if values["lock"] >= 0:
        lock.hold_inherited(values["lock"])
    if values["parent"]:
        interrupt.end_with(values["parent"])
    return run(read(Path(path)))


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
