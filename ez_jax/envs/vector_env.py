"""Environments: N copies side by side behind one interface, for every library.

`make_env` returns a `VectorEnv`; `config.games.find_task` quickly checks whether a game exists. All
adapters return the same:

- After a row with `is_last` the next action is not executed; that call returns the first
  observation of the next episode with `is_first`, reward 0, score 0 and discount 1. Every other row
  is the result of one executed action, so agent steps = rows without `is_first`.
- `discount` is 0 if the episode terminated, otherwise 1, also after a truncation.
- Only the newest frame is returned, channels last; the actor stacks frames.
- Returned arrays are never changed later.
"""

import functools
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np

from ez_jax.config import EnvConfig
from ez_jax.config.games import find_task
from ez_jax.envs.actions import Actions
from ez_jax.envs.answers import Answering
from ez_jax.envs.observations import Encoder
from ez_jax.structs import EnvSpec, TimeStep


class VectorEnv(Protocol):
    """N environments of one game; environment i has the seed `seed + i`."""

    spec: EnvSpec
    num_envs: int
    max_episode_steps: int  # agent steps after which an episode is cut
    encoder: Encoder  # from the game's own observation to what the agent sees
    actions: Actions  # from the agent's actions to the game's own

    def reset(self) -> TimeStep:
        """Reset all environments; every row has `is_first`."""

    def send(self, action: np.ndarray) -> None:
        """Send actions i32[N] in 0..num_actions-1, or f32[N, D] in -1..1 if they are continuous.

        envpool steps in its own threads.
        """

    def recv(self) -> TimeStep:
        """Wait for the results of the last actions."""

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""

    def render(self) -> np.ndarray:
        """Images u8[N, H, W, 3] of the current states; not between `send` and `recv`.

        The game's own, or its observations.

        Raises:
            RuntimeError: the game cannot render and its observation is not an image, or rendering
                fails.
        """

    def lives(self) -> np.ndarray:
        """Lives left i32[N], 0 for games without lives."""

    def action_names(self) -> tuple[str, ...]:
        """The names of the actions, or their numbers; of the numbers of a continuous one."""

    def close(self) -> None:
        """Close the environments."""


def runs_on_device(game: str, backend: str = "auto") -> bool:
    """Whether a game is a function on the device (see `ez_jax.training.vmapped`)."""
    return find_task(game, backend).backend == "gymnax"


def make_env(
    game: str,
    config: EnvConfig,
    *,
    num_envs: int,
    seed: int,
    training: bool,
    render: bool | None = None,
) -> VectorEnv:
    """Create N environments.

    Args:
        game: a name that `find_task` accepts.
        config: what the agent sees and how long an episode is.
        num_envs: N.
        seed: environment i is seeded with seed + i.
        training: whether lost lives end episodes and rewards are clipped (if so configured), with
            the limit `max_episode_steps`; otherwise the limit is `eval_max_episode_steps`.
        render: whether `render` will be called; by default only if not training.

    Raises:
        BadInput: an unknown game, actions that are neither a finite set nor numbers with bounds, or
            observations of a kind that no network accepts.
        Fault: the game ends the process or returns numbers that are not finite, now or later.

    Examples:
        >>> env = ez_jax.make_env("CartPole", config.env, num_envs=2, seed=0, training=True)
        >>> step = env.reset()
        >>> step.observation.shape, step.is_first.tolist()  # [N, *obs], bool[N]
        ((2, 4), [True, True])
        >>> env.step(np.zeros(2, np.int32)).reward.tolist()
        [1.0, 1.0]
    """
    task = find_task(game, config.backend)
    adapter = _adapter(task.backend)
    render = not training if render is None else render
    options = {"num_envs": num_envs, "seed": seed, "training": training, "render": render}
    return cast(VectorEnv, Answering(game, functools.partial(adapter, task, config, **options)))


def _adapter(backend: str) -> Callable[..., VectorEnv]:
    """The adapter of a backend; imported late, because each loads its library."""
    if backend == "envpool":
        from ez_jax.envs.envpool_adapter import EnvpoolEnv

        return EnvpoolEnv
    if backend == "gymnax":
        from ez_jax.envs.gymnax_adapter import GymnaxEnv

        return GymnaxEnv
    from ez_jax.envs.gymnasium_adapter import GymnasiumEnv

    return GymnasiumEnv
