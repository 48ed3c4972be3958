"""What is measured: settings of Breakout by name, in full or small enough for a CPU."""

import dataclasses
import functools
from typing import Any

from experiments.bench.parts import Setting, make_setting
from ez_jax.config import presets

GAME = "Breakout"
GUMBEL = {
    "search.policy": "gumbel",
    "search.num_simulations": 16,
    "search.max_considered_actions": 4,
}
# By name: the preset, and what differs from it.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "fast": ("fast", {}),
    "published": ("efficientzero", {}),
    "fast gumbel": ("fast", GUMBEL),
    "float32": ("efficientzero", {"precision": "float32"}),
    "small": ("small", {}),
}
# What is measured of each; a program with the same shapes as another's is left out.
PARTS: dict[str, tuple[str, ...]] = {
    "fast": ("acting", "targets", "learning"),
    "published": ("acting", "targets", "learning"),
    "fast gumbel": ("acting", "targets"),
    "float32": ("acting", "targets", "learning"),
    "small": ("acting", "targets", "learning"),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is; the defaults are for an H100."""

    matrix: int = 8_192
    copied: int = 2**28  # floats
    trips: int = 1_000
    roots: tuple[int, ...] = (16, 1_024)
    changes: tuple[tuple[str, Any], ...] = ()  # of every setting


FULL = Sizes()
SMALL = Sizes(
    matrix=256,
    copied=2**16,
    trips=50,
    roots=(4, 8),
    changes=tuple(
        {
            "learner.batch_size": 8,
            "learner.start": 200,
            "search.num_simulations": 4,
            "replay.capacity": 400,
            "network.channels": 16,
            "network.lstm_width": 32,
            "network.projection": 32,
            "network.predictor_hidden": 16,
            "env.image_size": 48,
            "total_agent_steps": 5_000,
        }.items()
    ),
)


def changes_of(name: str, sizes: Sizes) -> dict[str, Any]:
    """What a setting changes in its preset."""
    return {**SETTINGS[name][1], **dict(sizes.changes)}


@functools.cache
def setting_of(name: str, sizes: Sizes) -> Setting:
    """A setting by name."""
    changes = changes_of(name, sizes)
    return make_setting(presets.make_config(GAME, SETTINGS[name][0], changes=changes), ())
