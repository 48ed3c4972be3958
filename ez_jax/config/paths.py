"""Folders as users write them."""

import os
import re
from pathlib import Path

from ez_jax.config.errors import BadInput
from ez_jax.config.settings import Config


def expanded(path: str | Path) -> Path:
    """A path with the home folder in the place of `~`; `~name` stays where nobody is called so.

    Raises:
        BadInput: nobody knows the home folder: a container whose user has no name and no HOME.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise BadInput(f"{text} begins with a home folder that nobody knows: set HOME, or write it")
    return Path(text)


def run_folder(config: Config) -> Path:
    """Where the run lives: `run_dir`, or `runs/<game>/<name>/seed<seed>`."""
    if config.run_dir:
        return expanded(config.run_dir)
    # A Gymnasium id may hold characters that mean something in a path.
    game = re.sub(r"[^\w.+-]+", "_", config.game)
    return Path("runs") / game / config.name / f"seed{config.seed}"
