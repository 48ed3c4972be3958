"""Runs the notebooks from top to bottom, like *Run all*, each in its own folder.

    python -m experiments.notebooks                             all, with small settings
    python -m experiments.notebooks 01_quickstart 02_atari_gpu  only these
    python -m experiments.notebooks 01_quickstart write=true    full settings, and keep the outputs

Notebooks that need an accelerator keep outputs of the small settings. Needs
`pip install -e ".[notebooks]"`. Exit code 0: all succeeded, 1: one failed, 2: bad input.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from ez_jax.config import BadInput
from ez_jax.notebook import SMALL
from ez_jax.system import exits
from ez_jax.terminal import arguments, start

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
ACCELERATED = ("02_atari_gpu", "03_tpu")  # outputs are from the small settings
LONGEST_CELL = 1_800  # seconds


def names() -> list[str]:
    """All notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(name: str, folder: Path, *, small: bool) -> nbformat.NotebookNode:
    """Run a notebook in a folder; returns it with the outputs of all cells.

    Raises:
      CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=LONGEST_CELL,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    environment = {
        **os.environ,
        SMALL: "small" if small else "",
        "IPYTHONDIR": str(folder / ".ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        # `!python` of a cell is this Python.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    if small:
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiles in half the time
    client.execute(env=environment)
    notebook.metadata["language_info"] = {"name": "python"}  # and not this machine's version
    return notebook


def main(words: list[str]) -> int:
    """Run some notebooks; returns the exit code."""
    chosen = [word for word in words if "=" not in word and not word.startswith("-")]
    others = [word for word in words if word not in chosen]
    values, changes = arguments.read(others, {"write": False})
    for name in [*chosen, *changes]:
        if name not in names():
            raise BadInput(f"'{name}' is none of {', '.join(names())}")
    for name in chosen or names():
        began = time.perf_counter()
        small = not values["write"] or name in ACCELERATED
        with tempfile.TemporaryDirectory() as folder:
            try:
                notebook = execute(name, Path(folder), small=small)
            except CellExecutionError as error:
                sys.stderr.write(f"{name}: {error}\n")
                return exits.FAILED
        sys.stdout.write(f"{name}: {time.perf_counter() - began:.0f} s\n")
        if values["write"]:
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    return exits.DONE


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
