"""Folders as users write them."""

import os
import re
from pathlib import Path

from ez_jax.config.errors import BadInput, shown
from ez_jax.config.settings import Config

LONGEST_NAME, LONGEST_PATH = 255, 3_900  # bytes; of Linux's 4,096 some are for what lies inside


def expanded(path: str | Path) -> Path:
    """A path with the home folder in the place of `~`; `~name` stays where nobody is called so.

    Raises:
        BadInput: nobody knows the home folder: a container whose user has no name and no HOME; or
            no file system takes so long a name.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise BadInput(f"{text} begins with a home folder that nobody knows: set HOME, or write it")
    return _short_enough(Path(text))


def _short_enough(path: Path) -> Path:
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    length = len(os.fsencode(path))
    if longest > LONGEST_NAME or length > LONGEST_PATH:
        raise BadInput(
            f"{shown(os.fspath(path))} is too long for a path: it has {length:,} bytes, "
            f"{longest:,} in one name, and at most {LONGEST_PATH:,} and {LONGEST_NAME} are taken"
        )
    return path


def run_folder(config: Config) -> Path:
    """Where the run lives: `run_dir`, or `runs/<game>/<name>/seed<seed>`."""
    if config.run_dir:
        return expanded(config.run_dir)
    # A Gymnasium id may hold characters that mean something in a path.
    game = re.sub(r"[^\w.+-]+", "_", config.game)
    return _short_enough(Path("runs") / game / config.name / f"seed{config.seed}")
