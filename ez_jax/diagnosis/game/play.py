"""The game under test of `python -m ez_jax.doctor env=GAME`, and trials of it, step by step."""

import dataclasses
import functools
import re
import time
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from ez_jax.agent.model import Model, make_model
from ez_jax.config import Config, run_folder
from ez_jax.config.games import find_task
from ez_jax.envs import VectorEnv, make_env
from ez_jax.structs import EnvSpec, TimeStep

MOST_SECONDS = 20.0  # of random play


@dataclasses.dataclass(frozen=True)
class Play:
    """One environment's rows as `ez_jax.envs` defines them; row 0 is that of the reset."""

    digest: np.ndarray  # i64[T+1], distinguishes observations
    low: np.ndarray  # f64[T+1], smallest number of the observation; NaN if any is not finite
    high: np.ndarray  # f64[T+1], largest number of it, likewise
    reward: np.ndarray  # f64[T+1], the reward to learn from
    discount: np.ndarray  # f64[T+1]
    is_first: np.ndarray  # bool[T+1]
    game_over: np.ndarray  # bool[T+1]
    score: np.ndarray  # f64[T+1], the game's own reward
    seconds: float  # of all steps except the first

    @property
    def steps(self) -> int:
        """Number of executed actions."""
        return int((~self.is_first).sum())

    @property
    def lengths(self) -> np.ndarray:
        """i64[games], agent steps of finished games."""
        return np.diff(np.cumsum(~self.is_first)[self.game_over], prepend=0)

    @property
    def returns(self) -> np.ndarray:
        """f64[games], scores of finished games."""
        return np.diff(np.cumsum(self.score)[self.game_over], prepend=0)

    def values(self, discount: float) -> np.ndarray:
        """f64[T], discounted sums of later rewards in the same episode."""
        value, values = 0.0, np.zeros(len(self.reward))
        for t in reversed(range(len(values) - 1)):
            goes_on = 0.0 if self.is_first[t + 1] else 1.0
            after = self.reward[t + 1] + discount * self.discount[t + 1] * value
            values[t] = value = goes_on * after
        return values[:-1]

    def differs_at(self, other: "Play") -> int | None:
        """The first row in which two plays differ; None if they are equal as far as both go."""
        both = min(len(self.digest), len(other.digest))
        same = np.ones(both, bool)
        for name in ("digest", "reward", "discount", "is_first", "game_over"):
            same &= getattr(self, name)[:both] == getattr(other, name)[:both]
        return None if same.all() else int(np.argmin(same))


class Game:
    """The game under test, with the results so far."""

    def __init__(self, config: Config, steps: int):
        """`steps` is the limit of random play; the configuration is validated."""
        self.config, self.steps = config, steps
        self.task = find_task(config.game, config.env.backend)
        self.is_gymnasium = self.task.backend == "gymnasium"
        self.warnings: list[str] = []  # of Gymnasium's own checks, while the game was played

    def raw(self) -> gymnasium.Env:
        """The Gymnasium environment as its author sees it."""
        return gymnasium.make(self.task.task_id, disable_env_checker=True)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        """Its specification for a run."""
        env = open_env(self.config)
        env.close()
        return env.spec

    @functools.cached_property
    def played(self) -> Play:
        """Random play."""
        actions = random_actions(self.steps, self.spec)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            played = play(self.config, actions, most_seconds=MOST_SECONDS)
        told = [re.sub(r"\x1b\[\d*m|WARN: ", "", str(warning.message)) for warning in caught]
        self.warnings = list(dict.fromkeys(told))
        return played

    @functools.cached_property
    def model(self) -> Model:
        """The model that it would get, without weights."""
        return make_model(self.config, self.spec)

    def would_get(self) -> dict[str, str]:
        """Preset, search, length, network and memory of a run, by name."""
        from ez_jax.training.planning.needs import memory_needs, start_rows

        needs = memory_needs(self.config, self.model)
        rows = start_rows(self.config, self.model, needs, run_folder(self.config))
        return {name: text for name, text in rows.items() if name != "folder"}


def play(config: Config, actions: np.ndarray, seed: int = 0, most_seconds: float = 60.0) -> Play:
    """Play the actions, i32[T] or f32[T, D], in one new environment, as far as the time allows."""
    [played] = _play(config, actions, 1, seed, most_seconds)
    return played


def play_together(config: Config, actions: np.ndarray, num_envs: int) -> list[Play]:
    """Play the same actions in several environments side by side, with seeds 0, 1, ..."""
    return _play(config, actions, num_envs, 0, 60.0)


def _play(
    config: Config, actions: np.ndarray, num_envs: int, seed: int, most_seconds: float
) -> list[Play]:
    env = open_env(config, seed, num_envs=num_envs)
    try:
        rows, began = [env.reset()], time.perf_counter()
        for action in actions:
            legal = rows[-1].legal
            masks = [None] * num_envs if legal is None else legal
            executed = [allowed(action, mask) for mask in masks]
            rows.append(env.step(np.array(executed, env.spec.action_dtype)))
            if len(rows) == 2:
                began = time.perf_counter()  # the first step may compile
            elif time.perf_counter() - began > most_seconds:
                break
        seconds = time.perf_counter() - began
        return [_record(rows, i, seconds) for i in range(num_envs)]
    finally:
        env.close()


def open_env(
    config: Config, seed: int = 0, *, num_envs: int = 1, render: bool = False
) -> VectorEnv:
    """One or several environments, as in training."""
    return make_env(
        config.game, config.env, num_envs=num_envs, seed=seed, training=True, render=render
    )


def random_actions(count: int, spec: EnvSpec, seed: int = 0) -> np.ndarray:
    """i32[count] or f32[count, D], uniformly random actions."""
    draw = np.random.default_rng(seed)
    if spec.is_continuous:
        return draw.uniform(-1, 1, (count, spec.action_size)).astype(np.float32)
    return draw.integers(0, spec.num_actions, count).astype(np.int32)


def allowed(action: Any, legal: np.ndarray | None) -> Any:
    """The action, or the next allowed one if a mask [A] or [1, A] forbids it."""
    if legal is None or not np.any(legal):
        return action
    places = np.flatnonzero(legal)
    return int(places[np.searchsorted(places, action) % len(places)])


def _record(rows: Sequence[TimeStep], i: int, seconds: float) -> Play:
    seen = [row.observation[i] for row in rows]
    names = ("reward", "discount", "is_first", "game_over", "score")
    # In float64, because float32 sums would distinguish less.
    fields = {name: np.array([getattr(row, name)[i] for row in rows]) for name in names}
    numbers = {name: x.astype(np.float64) for name, x in fields.items() if x.dtype != bool}
    return Play(
        digest=np.array([zlib.crc32(np.asarray(x).tobytes()) for x in seen]),
        # The sum of opposite infinities, or of NaN and anything, is NaN.
        low=np.array([np.min(x) + 0.0 * np.sum(x, dtype=np.float64) for x in seen]),
        high=np.array([np.max(x) + 0.0 * np.sum(x, dtype=np.float64) for x in seen]),
        seconds=seconds,
        **(fields | numbers),
    )
