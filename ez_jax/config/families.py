"""Settings of a family of games, or of one game, in every preset."""

from collections.abc import Mapping
from typing import Any

from ez_jax.config import games

Differences = Mapping[str, Any]  # nested like the configuration


def merge(*layers: Differences) -> dict[str, Any]:
    """Merge nested dictionaries; the last one wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping):
                merged[key] = merge(merged.get(key, {}), value)
            else:
                merged[key] = value
    return merged


_NOT_ATARI: Differences = {
    "discount": 0.997,
    "env": {
        "frame_stack": 1,
        "frame_skip": 1,
        "noop_max": 0,
        "episodic_life": False,
        "reward_clip": False,
        # Large enough not to cut episodes that end by themselves.
        "max_episode_steps": 10_000,
        "eval_max_episode_steps": 10_000,
    },
}


def _episode(steps: int) -> dict[str, Any]:
    return {"env": {"max_episode_steps": steps, "eval_max_episode_steps": steps}}


FAMILIES: dict[str, Differences] = {
    "atari": {"eval": {"max_episode_steps": 3_000}},  # as published; the final one has no such cut
    "control": {**_NOT_ATARI, "total_agent_steps": 25_000},
    "continuous": {**_NOT_ATARI, "total_agent_steps": 200_000, "discount": 0.99},
    # As in EfficientZero V2: episodes of 1,000 frames, two for each agent step.
    "dm_control": merge(
        _NOT_ATARI,
        _episode(500),
        {"total_agent_steps": 100_000, "discount": 0.997**2, "env": {"frame_skip": 2}},
    ),
    "grid": {**_NOT_ATARI, "total_agent_steps": 25_000},
    # Sticky actions as published (Young & Tian, 2019).
    "minatar": merge(_NOT_ATARI, {"total_agent_steps": 100_000, "env": {"sticky_actions": 0.1}}),
    "other": _NOT_ATARI,
}
_PENDULUM: Differences = {**_episode(200), "total_agent_steps": 20_000, "discount": 0.97}
_HILL: Differences = {**_episode(999), "total_agent_steps": 50_000}

# Games with settings of their own: (family, differences).
GAMES: dict[str, tuple[str, Differences]] = {
    "CartPole": ("control", {**_episode(500), "total_agent_steps": 10_000}),
    # A lower discount than the rest, so that hovering does not pay.
    "LunarLander": (
        "control",
        {**_episode(1_000), "total_agent_steps": 300_000, "discount": 0.99},
    ),
    "Acrobot": ("control", {**_episode(500), "total_agent_steps": 50_000}),
    "MountainCar": ("control", {**_episode(200), "total_agent_steps": 100_000}),
    "Pendulum": ("continuous", _PENDULUM),
    "MountainCarContinuous": ("continuous", _HILL),
    "LunarLanderContinuous": ("continuous", {**_episode(1_000), "total_agent_steps": 300_000}),
    "BipedalWalker": ("continuous", {**_episode(1_600), "total_agent_steps": 500_000}),
    "CarRacing": ("continuous", merge(_episode(1_000), {"env": {"frame_stack": 4}})),
    "Catch": ("grid", {**_episode(100), "total_agent_steps": 5_000}),
    "gymnax:Pendulum": ("continuous", _PENDULUM),
    "gymnax:MountainCarContinuous": ("continuous", _HILL),
    "gymnax:CartPole": ("control", {**_episode(500), "total_agent_steps": 10_000}),
    "gymnax:Acrobot": ("control", {**_episode(500), "total_agent_steps": 50_000}),
    "Catch-bsuite": ("grid", {**_episode(100), "total_agent_steps": 5_000}),
}


# By a part of the name.
FAMILY_OF = {"MiniGrid": "grid", "BabyAI": "grid", "-MinAtar": "minatar"}


def name_and_family(name: str) -> tuple[str, str]:
    """The proper name of a game and its family.

    Raises:
        BadInput: no backend has it.
    """
    by_lower = {game.lower(): game for game in GAMES}
    game = by_lower.get(name.lower())
    if game is None:
        # Only for games not known here: looking a name up imports the environments.
        # `gym:CartPole-v1` asks for Gymnasium; the proper name alone would not.
        task = games.find_task(name)
        game = games.as_written(name, task)
        if task.backend == "envpool" and (family := games.family_of(task.task_id)):
            return game, family
    if game in GAMES:
        return game, GAMES[game][0]
    return game, next((FAMILY_OF[part] for part in FAMILY_OF if part in game), "other")
