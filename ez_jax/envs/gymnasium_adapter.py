"""Any Gymnasium environment behind the common interface, stepped one after the other in `recv`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator

from ez_jax.config import EnvConfig, opengl
from ez_jax.config.games import Task
from ez_jax.envs.action_names import action_names, checked
from ez_jax.envs.actions import make_actions
from ez_jax.envs.observations import (
    BadPicture,
    describe,
    learned_reward,
    make_encoder,
    picture,
)
from ez_jax.envs.raw_observations import make_taken, stacked
from ez_jax.envs.side_by_side import Answers, SideBySide, api_faults
from ez_jax.envs.sticky import StickyActions
from ez_jax.structs import TimeStep


class GymnasiumEnv:
    """N environments in this process; see `ez_jax.envs.VectorEnv`.

    Exceptions of an environment are not caught, because its author needs the traceback.
    """

    def __init__(
        self,
        task: Task,
        config: EnvConfig,
        *,
        num_envs: int,
        seed: int,
        training: bool,
        render: bool = False,
    ) -> None:
        """Create the environments.

        Raises:
            BadInput: actions or observations that cannot be used, or are not as declared.
        """
        limit = config.max_episode_steps if training else config.eval_max_episode_steps
        self.max_episode_steps = min(limit, gymnasium.spec(task.task_id).max_episode_steps or limit)
        self._envs = [_make(task, self.max_episode_steps, render) for _ in range(num_envs)]
        self.encoder = make_encoder(self._envs[0].observation_space, task.task_id)
        self.actions = make_actions(self._envs[0].action_space, task.task_id)
        self.num_envs = num_envs
        self.spec = describe(task, config, self.encoder, self.actions)
        self._clip = training and config.reward_clip
        seeds = [(seed + i) % 2**31 for i in range(num_envs)]
        self._sticky = StickyActions(config.sticky_actions, np.array(seeds), self.spec.action_shape)
        self._games = SideBySide(
            task, self._envs, seeds, make_taken(self.encoder.space), self.spec.num_actions
        )
        self.spec = dataclasses.replace(self.spec, has_masks=self._games.has_masks)
        self._legal: np.ndarray | None = None
        self._is_first = np.zeros(num_envs, bool)  # of the next time step
        self._observation = np.zeros((num_envs, *self.spec.observation_shape), self.encoder.dtype)
        self._action = np.zeros(0)  # the game's own

    def reset(self) -> TimeStep:
        """Reset all environments; only the first call seeds them."""
        self._is_first = np.ones(self.num_envs, bool)
        self._sticky.reset()
        return self._time_step(self._games.reset())

    def send(self, action: np.ndarray) -> None:
        """Keep the actions for `recv`; an action that is not allowed now is not repeated."""
        executed = self._sticky(action, self._is_first)
        if self._legal is not None:
            is_legal = self._legal[np.arange(self.num_envs), executed]
            executed = np.where(is_legal, executed, action)
        self._action = self.actions.to_game(executed)

    def recv(self) -> TimeStep:
        """Step all N environments."""
        return self._time_step(self._games.step(self._action))

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""
        self.send(action)
        return self.recv()

    def render(self) -> np.ndarray:
        """Images: the game's own, or the observation if it renders none."""
        if self._envs[0].render_mode == "rgb_array":
            pictures = [_drawn(env) for env in self._envs]
            if len({drawn.shape for drawn in pictures}) > 1:
                raise BadPicture("render() returned images of different sizes")
            return np.stack(pictures)
        return picture(self._observation)

    def lives(self) -> np.ndarray:
        """Zeros i32[N]: Gymnasium does not know lives."""
        return np.zeros(self.num_envs, np.int32)

    def action_names(self) -> tuple[str, ...]:
        """The names of the actions: those of the environment, or known ones."""
        say = getattr(self._envs[0].unwrapped, "get_action_meanings", None)
        return checked(say(), self.spec) if say else action_names(self.spec)

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()

    def _time_step(self, told: Answers) -> TimeStep:
        self._observation = self.encoder.encode(stacked(self.encoder.space, told.observations))
        is_first, self._is_first = self._is_first, told.terminated | told.truncated
        self._legal = told.legal
        return TimeStep(
            observation=self._observation,
            reward=learned_reward(told.score, self._clip),
            score=told.score,
            discount=1 - told.terminated.astype(np.float32),
            is_first=is_first,
            is_last=self._is_first,
            game_over=self._is_first,
            legal=told.legal,
        )


def _make(task: Task, limit: int, render: bool) -> gymnasium.Env:
    """Create one game; it renders only if the images are used."""
    registration = gymnasium.spec(task.task_id)
    make: Callable[..., gymnasium.Env] = functools.partial(
        gymnasium.make, registration, max_episode_steps=limit
    )
    fix = f"`python -m ez_jax.doctor env={task.game}` says what to fix"
    with api_faults(f"'{task.task_id}' cannot be made", fix):
        if render and _can_draw(registration):
            opengl.without_display()
            try:
                return make(render_mode="rgb_array")
            except TypeError as error:  # it declares the mode but does not accept the argument
                if "render_mode" not in str(error):
                    raise
        return make()


def _can_draw(registration: Registration) -> bool:
    """Whether it declares the mode; otherwise it need not accept the argument."""
    entry = registration.entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    return "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ())


def _drawn(env: gymnasium.Env) -> np.ndarray:
    """The image that a game renders.

    Raises:
        BadPicture: it renders something else, or fails.
    """
    try:
        drawn: Any = env.render()
    except Exception as error:  # graphics libraries raise anything if there is no screen
        raise BadPicture(f"render() fails: {type(error).__name__}: {error}") from error
    is_array = isinstance(drawn, np.ndarray)
    is_picture = is_array and drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.shape[-1] == 3
    if not is_picture or not drawn.size:
        what = f"{drawn.dtype}{list(drawn.shape)}" if is_array else type(drawn).__name__
        raise BadPicture(f"render() returned {what}, not an image of uint8 [height, width, 3]")
    return drawn
