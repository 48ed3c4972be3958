"""Playing full games without noise, to see how good an agent is.

Game i is played from `eval.seed + i`, so a score does not depend on how many games run side by
side. Training and `ez_jax.evaluate` call the same functions.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ez_jax.agent.actor import EvalPolicy, make_eval_policy
from ez_jax.agent.frames import init_frames
from ez_jax.agent.model import Model
from ez_jax.config import Config
from ez_jax.envs import VectorEnv, make_env
from ez_jax.evaluation.scores import Games
from ez_jax.structs import SearchOutput, Variables
from ez_jax.system import devices, watchdog

EvaluateFn = Callable[..., Games | None]  # None: it was stopped


def make_evaluate(config: Config, model: Model) -> EvaluateFn:
    """`evaluate(variables, film=0, stop)` plays `eval.episodes` games; the first `film` are filmed.

    None if `stop()` became true meanwhile.
    """
    policy = jax.jit(make_eval_policy(config, model), donate_argnums=1)
    num_envs = min(config.eval.num_envs, config.eval.episodes)

    @watchdog.at("evaluating")
    def evaluate(
        variables: Variables, film: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> Games | None:
        waves = []
        for first in range(0, config.eval.episodes, num_envs):
            env = make_env(
                config.game,
                config.env,
                num_envs=num_envs,
                seed=config.eval.seed + first,
                training=False,
            )
            try:
                games = _play(policy, variables, env, film=max(0, film - first), stop=stop)
            finally:
                env.close()
            if games is None:
                return None
            waves.append(games)
        count = config.eval.episodes  # the last wave may have played more
        return Games(
            returns=np.concatenate([games.returns for games in waves])[:count],
            lengths=np.concatenate([games.lengths for games in waves])[:count],
            pictures=sum((games.pictures for games in waves), ())[:film],
        )

    return evaluate


def _play(
    policy: EvalPolicy[SearchOutput],
    variables: Variables,
    env: VectorEnv,
    *,
    film: int,
    stop: Callable[[], bool],
) -> Games | None:
    """One game in each environment, until the last is over; None if stopped."""
    num_envs = env.num_envs
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    playing = np.ones(num_envs, bool)
    pictures: list[list[np.ndarray]] = [[] for _ in range(min(film, num_envs))]
    frames = jax.device_put(init_frames(env.spec, num_envs), devices.everywhere())
    step = env.reset()
    while playing.any():
        if stop():
            return None
        _film(pictures, env, playing)
        found, frames = policy(variables, frames, step)
        acted = playing & ~step.is_last  # after a lost life an action is swallowed
        step = env.step(np.asarray(found.action))
        watchdog.beat()
        returns += step.score * playing
        lengths += acted
        playing &= ~step.game_over
    return Games(returns, lengths, tuple(np.stack(film) for film in pictures))


def _film(pictures: list[list[np.ndarray]], env: Any, playing: np.ndarray) -> None:
    if any(playing[: len(pictures)]):
        for i, picture in enumerate(env.render()[: len(pictures)]):
            if playing[i]:
                pictures[i].append(picture)
