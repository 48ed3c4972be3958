"""Environments: N copies side by side behind one interface, whichever library steps them.

`make_env` gives a `VectorEnv`; `config.games.find_task` says at once whether a game exists. The
adapters differ, what they return does not:

- After a row with `is_last` the next action is not executed; that call returns the first
  observation of the next episode with `is_first`, reward 0, score 0 and discount 1. Every other
  row answers one executed action, so agent steps = rows without `is_first`.
- `discount` is 0 where the episode terminated and 1 elsewhere, truncation included.
- Only the newest frame is returned, channels last; stacking is the actor's business.
- Nothing returned is written to again.
"""

import functools
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np

from ez_jax.config import EnvConfig
from ez_jax.config.games import find_task
from ez_jax.envs.answers import Answering
from ez_jax.envs.observations import Encoder
from ez_jax.structs import EnvSpec, TimeStep


class VectorEnv(Protocol):
    """N environments of one game; environment i plays from seed + i."""

    spec: EnvSpec
    num_envs: int
    max_episode_steps: int  # agent steps after which an episode is really cut, at the latest
    encoder: Encoder  # from what the game itself returns to what the agent sees
    first_action: int  # the game's own number of action 0

    def reset(self) -> TimeStep:
        """Start a new game everywhere; every row has `is_first`."""

    def send(self, action: np.ndarray) -> None:
        """Hand over actions i32[N] in 0..num_actions-1; envpool works on them in its threads."""

    def recv(self) -> TimeStep:
        """Wait for what the actions last sent led to."""

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""

    def render(self) -> np.ndarray:
        """Pictures u8[N, H, W, 3] of the present states, not between `send` and `recv`.

        The game's own, or those of the observations.

        Raises:
            RuntimeError: the game draws nothing and its observation is no image, or it does not
                draw as it says.
        """

    def lives(self) -> np.ndarray:
        """Lives left i32[N], 0 where a game has none to count."""

    def action_names(self) -> tuple[str, ...]:
        """What the actions are called, their numbers where nobody knows."""

    def close(self) -> None:
        """Release what the environments hold."""


def runs_on_device(game: str, backend: str = "auto") -> bool:
    """Whether a game is a function that a program can contain (`ez_jax.training.vmapped`)."""
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
    """Build N environments.

    Args:
        game: a name as `find_task` takes it.
        config: what the agent sees and how episodes are cut.
        num_envs: N.
        seed: environment i is seeded with seed + i.
        training: whether lost lives end episodes, rewards are clipped (where the configuration
            says so) and `max_episode_steps` holds; else `eval_max_episode_steps` does.
        render: whether `render` will be called, by default where not training; without, the game
            is asked for no pictures.

    Raises:
        BadInput: an unknown game, actions that are not a finite set, or observations of a kind
            that no network takes.
        Fault: where a game ends the process, or returns what is not finite, now and later.

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
    """Imported late: each loads its library."""
    if backend == "envpool":
        from ez_jax.envs.envpool_adapter import EnvpoolEnv

        return EnvpoolEnv
    if backend == "gymnax":
        from ez_jax.envs.gymnax_adapter import GymnaxEnv

        return GymnaxEnv
    from ez_jax.envs.gymnasium_adapter import GymnasiumEnv

    return GymnasiumEnv
