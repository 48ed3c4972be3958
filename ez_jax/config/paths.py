"""Folders as users write them."""

import os
import re
from pathlib import Path

from ez_jax.config.errors import BadInput, shown
from ez_jax.config.settings import Config

LONGEST_NAME, LONGEST_PATH = 255, 3_900  # bytes; of Linux's 4,096 some are for what lies inside


def expanded(path: str | Path) -> Path:
    """A path with `~` replaced by the home folder; `~name` is kept if there is no such user.

    Raises:
        BadInput: the home folder is unknown (a container with an unnamed user and without HOME),
            or the path is longer than any file system takes.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise BadInput(f"{text} begins with an unknown home folder: set HOME, or write it")
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
    """The folder of a run: `run_dir`, or `runs/<game>/<name>/seed<seed>`."""
    if config.run_dir:
        return expanded(config.run_dir)
    # A Gymnasium id may contain characters with a meaning in a path.
    game = re.sub(r"[^\w.+-]+", "_", config.game)
    return _short_enough(Path("runs") / game / config.name / f"seed{config.seed}")
