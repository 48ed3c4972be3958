"""Games of gymnax: pure functions on the device, for programs that contain the game itself.

`DeviceGame` is one game as two pure functions, `reset` and `step`, with the contract of
`ez_jax.envs`; `jax.vmap` makes many of it. `GymnaxEnv` puts N of them behind the interface of all
other libraries, so that the usual loop, evaluation and `ez_jax.load` can play them, too.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.spaces import gymnax_space_to_gym_space
from jaxtyping import Array, Int, Key, Num

from ez_jax.config import EnvConfig
from ez_jax.config.games import Task
from ez_jax.envs.action_names import action_names, minatar_names
from ez_jax.envs.actions import Actions, make_actions
from ez_jax.envs.observations import Encoder, describe, learned_reward, make_encoder, picture
from ez_jax.structs import EnvSpec, TimeStep

STICK = 1  # random stream of a game's key: whether the last action is repeated
# gymnax cuts MinAtar games after 1,000 steps (Freeway: 2,500); the original has only this limit.
_LIMIT_OF_MINATAR = {"Freeway-MinAtar": 2_501}


class GameState(flax.struct.PyTreeNode, kw_only=True):
    """State of one game."""

    key: jax.Array  # of all its random numbers
    inner: Any  # gymnax's own state
    is_over: jax.Array  # bool[], the episode has ended: the next action starts another
    last_action: jax.Array | None  # i32[] or f32[D], last executed; None without sticky actions


class DeviceGame(NamedTuple):
    """One game as pure functions; made by `make_game`."""

    spec: EnvSpec
    env: Any  # of gymnax
    params: Any  # of gymnax
    encoder: Encoder
    actions: Actions
    clips: bool  # learn from the sign of the reward
    sticky: float  # probability that the last action is repeated
    limit: int  # agent steps after which an episode is cut

    def reset(self, key: Key[Array, ""]) -> tuple[GameState, TimeStep]:
        """Start a game, which depends only on the key and the actions."""
        key, reset_key = jax.random.split(key)
        raw, inner = self.env.reset_env(reset_key, self.params)
        # With the types after a step: a loop needs constant types, and gymnax starts with ints.
        nothing = jnp.zeros(self.spec.action_shape, self.spec.action_dtype)
        stepped = jax.eval_shape(self._step_inner, reset_key, inner, nothing)[1]
        inner = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), inner, stepped)
        over = jnp.zeros((), bool)
        last = nothing if self.sticky else None
        state = GameState(key=key, inner=inner, is_over=over, last_action=last)
        return state, self._time_step(raw, jnp.zeros(()), ~over, over, over)

    def step(self, state: GameState, action: Num[Array, "..."]) -> tuple[GameState, TimeStep]:
        """Execute an action; after a final observation, start the next episode instead."""
        key, step_key, reset_key = jax.random.split(state.key, 3)
        first, new = self.env.reset_env(reset_key, self.params)
        begins, last = state.is_over, state.last_action
        if last is not None:  # as `sticky.StickyActions`
            sticks = jax.random.bernoulli(jax.random.fold_in(state.key, STICK), self.sticky)
            action = jnp.where(sticks, last, action)
            last = jnp.where(begins, 0, action).astype(last.dtype)
        raw, inner, reward, terminated = self._step_inner(step_key, state.inner, action)
        pick = lambda a, b: jnp.where(begins, jnp.asarray(a, b.dtype), b)  # noqa: E731
        raw, inner = jax.tree.map(pick, (first, new), (raw, inner))
        truncated = self.env.is_truncated(inner, self.params) & ~begins
        terminated = terminated & ~begins
        score = jnp.where(begins, 0.0, reward)
        is_over = terminated | truncated
        state = GameState(key=key, inner=inner, is_over=is_over, last_action=last)
        return state, self._time_step(raw, score, begins, is_over, terminated)

    def _step_inner(self, key: Array, inner: Any, action: Array) -> tuple[Any, Any, Array, Array]:
        if self.actions.action_size:
            action = self.actions.to_game(action[None])[0]
        raw, inner, reward, terminated, _ = self.env.step_env(key, inner, action, self.params)
        inner = jax.tree.map(jnp.asarray, inner)
        return raw, inner, jnp.asarray(reward, jnp.float32), jnp.asarray(terminated, bool)

    def _time_step(
        self, raw: Any, score: Array, is_first: Array, is_last: Array, terminated: Array
    ) -> TimeStep:
        fields: dict[str, Any] = {  # of JAX, inside a program
            "observation": self.encoder.encode(jnp.asarray(raw)[None])[0],
            "reward": learned_reward(score, self.clips),
            "score": score,
            "discount": 1 - terminated.astype(jnp.float32),
            "is_first": is_first,
            "is_last": is_last,
            "game_over": is_last,
        }
        return TimeStep(**fields)


@functools.lru_cache(maxsize=16)
def make_game(task: Task, config: EnvConfig, *, training: bool) -> DeviceGame:
    """Create a game of gymnax; equal arguments give the same object.

    Raises:
        BadInput: actions or observations that cannot be used.
    """
    env, params = gymnax.make(task.task_id)
    space = gymnax_space_to_gym_space(env.observation_space(params))
    actions = make_actions(gymnax_space_to_gym_space(env.action_space(params)), task.task_id)
    encoder = make_encoder(space, task.task_id)
    limit = config.max_episode_steps if training else config.eval_max_episode_steps
    limit = int(min(limit, _own_limit(task.task_id, params) or limit))
    return DeviceGame(
        spec=describe(task, config, encoder, actions),
        env=env,
        params=params.replace(max_steps_in_episode=limit),
        encoder=encoder,
        actions=actions,
        clips=training and config.reward_clip,
        sticky=config.sticky_actions,
        limit=limit,
    )


def _own_limit(task_id: str, params: Any) -> int | None:
    """Agent steps after which the rules of a game end its episodes; None if there is no limit."""
    if task_id.endswith("-MinAtar"):
        return _LIMIT_OF_MINATAR.get(task_id)
    return params.max_steps_in_episode


def game_keys(seed: Int[Array, ""] | int, num_envs: int) -> Key[Array, " N"]:
    """Keys of N games; that of game i comes from seed + i."""
    return jax.vmap(jax.random.key)(seed + jnp.arange(num_envs))


@functools.lru_cache(maxsize=16)
def _programs(task: Task, config: EnvConfig, training: bool) -> tuple[Callable, Callable]:
    """`reset` and `step` of N games, jitted and cached, because evaluations repeat."""
    game = make_game(task, config, training=training)
    return jax.jit(jax.vmap(game.reset)), jax.jit(jax.vmap(game.step))


class GymnaxEnv:
    """N games on the device, one call of a program per step; see `ez_jax.envs.VectorEnv`."""

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
        """Create the games.

        Raises:
            BadInput: actions or observations that cannot be used.
        """
        del render  # it only renders observations
        game = make_game(task, config, training=training)
        self.spec, self.encoder, self.actions = game.spec, game.encoder, game.actions
        self._positions = getattr(game.env, "action_set", None)  # MinAtar's
        self.num_envs, self.max_episode_steps = num_envs, game.limit
        self._reset, self._step = _programs(task, config, training)
        # Made here by an explicit transfer, so that the loop makes no implicit ones.
        self._keys = jax.jit(game_keys, static_argnums=1)(jax.device_put(np.int32(seed)), num_envs)
        self._state: GameState | None = None
        self._next: TimeStep | None = None
        self._observation = np.zeros((num_envs, *self.spec.observation_shape))

    def reset(self) -> TimeStep:
        """Reset all games; a second call starts other episodes than the first."""
        keys = self._keys if self._state is None else self._state.key
        self._state, self._next = self._reset(keys)
        return self.recv()

    def send(self, action: np.ndarray) -> None:
        """Send the actions i32[N] or f32[N, D] to the device, which steps the games."""
        action = jax.device_put(np.asarray(action, self.spec.action_dtype))
        self._state, self._next = self._step(self._state, action)

    def recv(self) -> TimeStep:
        """Fetch the results."""
        step = jax.device_get(self._next)
        self._observation = step.observation
        return step

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""
        self.send(action)
        return self.recv()

    def render(self) -> np.ndarray:
        """Images of the observations."""
        return picture(self._observation)

    def lives(self) -> np.ndarray:
        """Zeros i32[N]: lives are not known."""
        return np.zeros(self.num_envs, np.int32)

    def action_names(self) -> tuple[str, ...]:
        """The names of the actions."""
        if self._positions is None:
            return action_names(self.spec)
        return minatar_names(np.asarray(self._positions), self.spec)

    def close(self) -> None:
        """Nothing to close."""
