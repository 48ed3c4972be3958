"""Any Gymnasium environment behind the common interface, stepped one after the other in `recv`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ez_jax.config import EnvConfig
from ez_jax.config.games import Task
from ez_jax.envs.action_names import action_names, checked
from ez_jax.envs.observations import describe, learned_reward, make_encoder, picture
from ez_jax.envs.sticky import StickyActions
from ez_jax.structs import TimeStep


class GymnasiumEnv:
    """N environments in this process; see `ez_jax.envs.VectorEnv`.

    What an environment raises is not caught: its own traceback is what its author needs.
    """

    def __init__(
        self, task: Task, config: EnvConfig, *, num_envs: int, seed: int, training: bool
    ) -> None:
        """Build the environments.

        Raises:
            BadInput: actions or observations that cannot be used.
        """
        limit = config.max_episode_steps if training else config.eval_max_episode_steps
        self.max_episode_steps = min(limit, gymnasium.spec(task.task_id).max_episode_steps or limit)
        make = functools.partial(_make, task.task_id, self.max_episode_steps)
        self._env = _side_by_side([make] * num_envs)
        self._encoder = make_encoder(self._env.single_observation_space, task.task_id)
        self.num_envs = num_envs
        self.spec = describe(task, config, self._encoder, self._env.single_action_space)
        self._first_action = int(self._env.single_action_space.start)
        self._clip = training and config.reward_clip
        self._seeds: list[int] | None = [(seed + i) % 2**31 for i in range(num_envs)]
        self._sticky = StickyActions(config.sticky_actions, np.array(self._seeds))
        self._is_first = np.zeros(num_envs, bool)  # of the next time step
        self._observation = np.zeros((num_envs, *self.spec.observation_shape), self._encoder.dtype)
        self._action = np.zeros(num_envs, np.int64)

    def reset(self) -> TimeStep:
        """Start a new game everywhere; only the first call seeds."""
        raw, _ = self._env.reset(seed=self._seeds)
        self._seeds = None
        self._sticky.reset()
        nowhere = np.zeros(self.num_envs, bool)
        self._is_first = ~nowhere
        return self._time_step(raw, nowhere, nowhere, nowhere.astype(np.float32))

    def send(self, action: np.ndarray) -> None:
        """Keep the actions i32[N] for `recv`."""
        self._action = self._sticky(action, self._is_first) + self._first_action

    def recv(self) -> TimeStep:
        """Step all N environments."""
        raw, score, terminated, truncated, _ = self._env.step(self._action)
        return self._time_step(raw, terminated, truncated, score.astype(np.float32))

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""
        self.send(action)
        return self.recv()

    def render(self) -> np.ndarray:
        """Pictures: the game's own, or the observation where it draws none."""
        if self._env.render_mode == "rgb_array":
            return np.stack(self._env.render())
        return picture(self._observation)

    def lives(self) -> np.ndarray:
        """Gymnasium has no word for lives: zeros i32[N]."""
        return np.zeros(self.num_envs, np.int32)

    def action_names(self) -> tuple[str, ...]:
        """What the actions are called: as the environment says, or as is known of it."""
        say = getattr(self._env.envs[0].unwrapped, "get_action_meanings", None)
        return checked(say(), self.spec) if say else action_names(self.spec)

    def close(self) -> None:
        """Close the environments."""
        self._env.close()

    def _time_step(
        self, raw: object, terminated: np.ndarray, truncated: np.ndarray, score: np.ndarray
    ) -> TimeStep:
        self._observation = self._encoder.encode(raw)
        is_first, self._is_first = self._is_first, terminated | truncated
        return TimeStep(
            observation=self._observation,
            reward=learned_reward(score, self._clip),
            score=score,
            discount=1 - terminated.astype(np.float32),
            is_first=is_first,
            is_last=self._is_first,
            game_over=self._is_first,
        )


def _side_by_side(make: Sequence[Callable[[], gymnasium.Env]]) -> Any:
    """A `SyncVectorEnv`, whose types of observations and actions Gymnasium leaves open."""
    return SyncVectorEnv(make, autoreset_mode=AutoresetMode.NEXT_STEP)


def _make(task_id: str, limit: int) -> gymnasium.Env:
    registration = gymnasium.spec(task_id)
    options: dict[str, Any] = {"render_mode": "rgb_array"} if _can_draw(registration) else {}
    return gymnasium.make(registration, max_episode_steps=limit, **options)


def _can_draw(registration: Registration) -> bool:
    """Whether it declares the mode; an environment without need not take the argument."""
    entry = registration.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ())
