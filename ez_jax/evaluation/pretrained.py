"""Trained agents that come with the package: `pretrained:Breakout-MinAtar`.

Each is a run folder whose checkpoint has the weights alone, parameters in half precision:

    agents/<name>/config.yaml     the settings of its training
                 /scores.json     what exactly these weights scored
                 /card.json       where they come from
                 /checkpoints/    one checkpoint, written and read like all others

`python -m experiments.pretrained` makes them.
"""

from pathlib import Path
from typing import Any

from ez_jax.config import BadInput, paths
from ez_jax.config.errors import unknown
from ez_jax.storage import safe_files
from ez_jax.storage.run_folder import SCORES_FILE

PREFIX = "pretrained:"
AGENTS = Path(__file__).parent / "agents"
CARD_FILE = "card.json"


def names() -> list[str]:
    """All agents that come with the package."""
    return sorted(path.name for path in AGENTS.iterdir() if path.is_dir())


def folder_of(run: str | Path) -> Path:
    """The folder to read: that of an agent of the package, or a run's own.

    Raises:
      BadInput: there is no such agent.
    """
    if not str(run).startswith(PREFIX):
        return paths.expanded(run)
    name = str(run).removeprefix(PREFIX)
    by_lower = {known.lower(): known for known in names()}
    if name.lower() not in by_lower:
        raise BadInput(unknown("pretrained agent", name, names()))
    return AGENTS / by_lower[name.lower()]


def output_folder(run: str | Path) -> Path:
    """Where scores, videos and pages go: `runs/pretrained/<name>`, or the run's own folder."""
    folder = folder_of(run)
    if not str(run).startswith(PREFIX):
        return folder
    return Path("runs") / "pretrained" / folder.name


def card(name: str) -> dict[str, Any]:
    """Where an agent comes from, and its scores."""
    read = [safe_files.read_json(AGENTS / name / file) for file in (CARD_FILE, SCORES_FILE)]
    return {"card": read[0], "scores": read[1]}
