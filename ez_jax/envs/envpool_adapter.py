"""envpool behind the common interface, with workarounds for its peculiarities (as of 1.2.5).

- Lost lives are detected here from `lives`. After each, envpool's own `episodic_life` plays 1 to 30
  no-ops that the agent did not choose, and drops their rewards. Here nothing is played: the
  environment rests during the call that would be the reset, and the next episode starts with the
  frame in which the last one ended.
- Episode limits are counted here, in agent steps of a whole game, and enforced by a reset. envpool
  reports a game that terminates in the last allowed step as truncated, and some environments
  (Catch) ignore its `max_episode_steps`.
- Rewards are clipped here, so that the score is the game's own.
- Atari needs frames with channels first and at least one no-op: with `noop_max=0` the process dies.
- DeepMind Control repeats actions here: see `dm_control.py`.
- The seed decides only the no-ops and the sticky actions of an Atari game: of 16 environments a few
  start alike (there are 30 starts), and then differ by their actions and from the second game on.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import envpool
import numpy as np

from ez_jax.config import BadInput, EnvConfig, opengl
from ez_jax.config.games import Task, is_atari_id, is_dm_control_id, is_mujoco_id
from ez_jax.envs import dm_control
from ez_jax.envs.action_names import action_names
from ez_jax.envs.actions import Actions, make_actions
from ez_jax.envs.observations import Encoder, describe, learned_reward, make_encoder, picture
from ez_jax.envs.sticky import StickyActions
from ez_jax.structs import EnvSpec, TimeStep

_NEVER = 2**31 - 1
_DRAWN = 320  # pixels of the sides of MuJoCo's images


class EnvpoolEnv:
    """N environments stepped by envpool's threads; see `ez_jax.envs.VectorEnv`."""

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
            BadInput: actions or observations that cannot be used, or `noop_max` below 1 for Atari.
        """
        del render  # it can always render
        seeds = (seed + np.arange(num_envs)) % 2**31
        with _loading(task.task_id):
            self._env: Any = envpool.make_gymnasium(
                task.task_id,
                num_envs=num_envs,
                seed=seeds.tolist(),
                render_mode="rgb_array",
                **_settings(task, config),
            )
            settings = self._env.spec.config
            self.spec, self.encoder, self.actions = _describe(self._env, settings, task, config)
        self.num_envs = num_envs
        # The Arcade Learning Environment has its own sticky actions and skips, frame by frame.
        is_atari = is_atari_id(task.task_id)
        sticky = 0.0 if is_atari else config.sticky_actions
        self._sticky = StickyActions(sticky, seeds, self.spec.action_shape)
        self._frames = 1 if is_atari else self.spec.frame_skip
        self._limit = config.max_episode_steps if training else config.eval_max_episode_steps
        own_limit = -(-settings.max_episode_steps // self._frames)
        self.max_episode_steps = min(self._limit, own_limit)
        self._lives_matter = training and config.episodic_life
        self._clip = training and config.reward_clip
        self._observation = np.zeros((num_envs, *self.spec.observation_shape), self.encoder.dtype)
        self._lives = np.zeros(num_envs, np.int32)
        self._length = np.zeros(num_envs, np.int64)  # agent steps of the current game
        self._is_first = np.zeros(num_envs, bool)  # of the next time step
        self._rests = np.zeros(num_envs, bool)  # a life was lost: the next call does not step
        self._is_cut = np.zeros(num_envs, bool)  # truncated here: the next call resets
        self._sent = np.zeros(0, np.int32)
        self._action = np.zeros(0)  # the game's own

    def reset(self) -> TimeStep:
        """Reset all environments."""
        raw, info = self._env.reset()
        self._sticky.reset()
        self._observation = self.encoder.encode(raw)
        self._lives = np.array(info.get("lives", self._lives))
        self._length[:] = 0
        everywhere, nowhere = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        self._is_first, self._rests, self._is_cut = nowhere, nowhere, nowhere
        zeros = np.zeros(self.num_envs, np.float32)
        return TimeStep(
            observation=self._observation,
            reward=zeros,
            score=zeros,
            discount=np.ones(self.num_envs, np.float32),
            is_first=everywhere,
            is_last=nowhere,
            game_over=nowhere,
        )

    def send(self, action: np.ndarray) -> None:
        """Send actions i32[N] or f32[N, D] to envpool's threads."""
        action = self.actions.to_game(self._sticky(action, self._is_first))
        self._action = action.astype(np.int32) if self.spec.num_actions else action
        self._sent = np.flatnonzero(~(self._rests | self._is_cut)).astype(np.int32)
        if self._sent.size:
            self._env.send(self._action[self._sent], self._sent)

    def recv(self) -> TimeStep:
        """Wait for the environments that got an action, and join the results of all N."""
        n = self.num_envs
        observation, lives = self._observation.copy(), self._lives.copy()
        score, terminated, truncated = np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool)
        going = self._sent
        for frame in range(self._frames):
            if frame:
                going = np.flatnonzero(~(self._is_first | terminated | truncated)).astype(np.int32)
                if going.size:
                    self._env.send(self._action[going], going)
            if going.size:
                raw, rewards, ended, cut, info = self._env.recv()
                ids = info["env_id"]  # in the order sent, of one part of the environments
                observation[ids] = self.encoder.encode(raw)
                score[ids] += rewards
                terminated[ids], truncated[ids] = ended, cut
                lives[ids] = info.get("lives", 0)
        if self._is_cut.any():
            raw, info = self._env.reset(np.flatnonzero(self._is_cut).astype(np.int32))
            observation[info["env_id"]] = self.encoder.encode(raw)
            lives[info["env_id"]] = info.get("lives", 0)

        is_first, has_restarted = self._is_first, self._is_first & ~self._rests
        self._length = np.where(has_restarted, 0, self._length + ~is_first)
        # Losing the last life ends the game, which some games report frames later.
        has_lost = self._lives_matter & ~is_first & (lives < self._lives) & (lives > 0)
        # Deviates (limit of an episode, V2): the length is that of the game, not of a life.
        self._is_cut = ~is_first & ~terminated & ~truncated & (self._length >= self._limit)
        game_over = terminated | truncated | self._is_cut
        # Deviates (after a lost life): nothing is played, the next episode begins with this frame.
        self._rests = has_lost & ~game_over
        self._observation, self._lives = observation, lives
        self._is_first = is_last = has_lost | game_over
        return TimeStep(
            observation=observation,
            reward=learned_reward(score, self._clip),
            score=score,
            discount=1 - (terminated | has_lost).astype(np.float32),
            is_first=is_first,
            is_last=is_last,
            game_over=game_over,
        )

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""
        self.send(action)
        return self.recv()

    def render(self) -> np.ndarray:
        """Images: the game's own, or the observation if it renders none."""
        if is_mujoco_id(self.spec.task_id) and (missing := opengl.missing()):
            raise RuntimeError(missing)
        task_id = self.spec.task_id
        camera = dm_control.camera(task_id) if is_dm_control_id(task_id) else None  # its own
        try:
            return self._env.render(env_ids=np.arange(self.num_envs), camera_id=camera)
        except RuntimeError:
            return picture(self._observation)

    def lives(self) -> np.ndarray:
        """Lives left i32[N], as of the last time step."""
        return self._lives

    def action_names(self) -> tuple[str, ...]:
        """The names of the actions."""
        return action_names(self.spec)

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


@contextlib.contextmanager
def _loading(task_id: str) -> Iterator[None]:
    with warnings.catch_warnings():  # bounds of spaces lose digits in float32, which is harmless
        warnings.simplefilter("ignore", UserWarning)
        try:
            yield
        except ImportError as error:  # Procgen needs system libraries
            raise BadInput(f"'{task_id}' cannot be loaded: {error}") from error


def _describe(
    made: Any, settings: Any, task: Task, config: EnvConfig
) -> tuple[EnvSpec, Encoder, Actions]:
    if settings.max_num_players > 1:
        raise BadInput(f"'{task.task_id}' is for several players; choose a game for one.")
    is_atari, space = is_atari_id(task.task_id), made.observation_space
    is_suite = is_dm_control_id(task.task_id)
    if is_suite:
        space = dm_control.own_parts(space, task.task_id)
    encoder = make_encoder(space, task.task_id, channels_first=is_atari)
    actions = make_actions(made.action_space, task.task_id)
    frame_skip = config.frame_skip if is_atari or is_suite else 1
    return describe(task, config, encoder, actions, frame_skip), encoder, actions


def _settings(task: Task, config: EnvConfig) -> dict[str, Any]:
    """The settings for envpool: the published protocol for Atari, sizes of images for MuJoCo."""
    if is_mujoco_id(task.task_id):
        return {"render_width": _DRAWN, "render_height": _DRAWN}
    if not is_atari_id(task.task_id):
        return {}
    if config.noop_max < 1:
        raise BadInput(f"env.noop_max is {config.noop_max}; Atari needs at least 1.")
    return {
        "img_height": config.image_size,
        "img_width": config.image_size,
        "gray_scale": config.grayscale,
        "use_inter_area_resize": True,
        "stack_num": 1,
        "frame_skip": config.frame_skip,
        "noop_max": config.noop_max,
        "use_fire_reset": False,
        "full_action_space": False,
        "repeat_action_probability": config.sticky_actions,
        "episodic_life": False,
        "reward_clip": False,
        "max_episode_steps": _NEVER,
    }
