"""The golden files, and the official network's named arrays as variables of ours."""

from pathlib import Path

import numpy as np

from experiments.import_official import convert

__all__ = ["GOLDEN", "convert", "load", "under"]

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> dict[str, np.ndarray]:
    """Read one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays below a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
