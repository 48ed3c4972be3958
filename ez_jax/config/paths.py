"""Folders as users write them."""

import os
from pathlib import Path

from ez_jax.config.errors import BadInput


def expanded(path: str | Path) -> Path:
    """A path with the home folder in the place of `~`; `~name` stays where nobody is called so.

    Raises:
        BadInput: nobody knows the home folder: a container whose user has no name and no HOME.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        raise BadInput(f"{text} begins with a home folder that nobody knows: set HOME, or write it")
    return Path(text)
