"""Folders as users write them."""

import os
import re
from pathlib import Path

from ez_jax.config.errors import BadInput
from ez_jax.config.settings import Config


def expanded(path: str | Path) -> Path:
    """A path with `~` replaced by the home folder; `~name` is kept if there is no such user.

    Raises:
        BadInput: the home folder is unknown: a container with an unnamed user and without HOME.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise BadInput(f"{text} begins with an unknown home folder: set HOME, or write it")
    return Path(text)


def run_folder(config: Config) -> Path:
    """The folder of a run: `run_dir`, or `runs/<game>/<name>/seed<seed>`."""
    if config.run_dir:
        return expanded(config.run_dir)
    # A Gymnasium id may contain characters with a meaning in a path.
    game = re.sub(r"[^\w.+-]+", "_", config.game)
    return Path("runs") / game / config.name / f"seed{config.seed}"
