"""Playing full episodes for an evaluation.

Episode i has the seed `eval.seed + i`, from which all its random numbers come, the game's and the
agent's. So a score does not depend on how many episodes run side by side. Training and
`ez_jax.evaluate` call the same functions.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ez_jax.agent.actor import EvalPolicy, Playing, init_playing, make_eval_policy
from ez_jax.agent.model import Model
from ez_jax.config import Config
from ez_jax.envs import VectorEnv, make_env
from ez_jax.evaluation.scores import Games, while_training
from ez_jax.structs import SearchOutput, Variables
from ez_jax.system import devices, watchdog

EvaluateFn = Callable[..., Games | None]  # None if it was stopped


def make_evaluate(config: Config, model: Model) -> EvaluateFn:
    """Make `evaluate(variables, film=0, stop, is_final)`, which plays `eval.episodes` episodes.

    The first `film` are recorded. The limit of an episode is that of evaluations during training,
    unless `is_final`. Returns None if `stop()` became true.
    """
    policy = jax.jit(make_eval_policy(config, model), donate_argnums=1)
    num_envs = min(config.eval.num_envs, config.eval.episodes)

    @watchdog.at("evaluating")
    def evaluate(
        variables: Variables,
        film: int = 0,
        stop: Callable[[], bool] = lambda: False,
        *,
        is_final: bool = True,
    ) -> Games | None:
        waves, limits = [], config if is_final else while_training(config)
        for first in range(0, config.eval.episodes, num_envs):
            seed, render = config.eval.seed + first, film > first
            env = make_env(
                *(config.game, limits.env),
                num_envs=num_envs, seed=seed, training=False, render=render,
            )  # fmt: skip
            playing = init_playing(env.spec, seed, num_envs)
            try:
                games = _play(policy, variables, env, playing, film=max(0, film - first), stop=stop)
            finally:
                env.close()
            if games is None:
                return None
            waves.append(games)
        count = config.eval.episodes  # the last wave may play more
        return Games(
            returns=np.concatenate([games.returns for games in waves])[:count],
            lengths=np.concatenate([games.lengths for games in waves])[:count],
            pictures=sum((games.pictures for games in waves), ())[:film],
            digests=np.concatenate([games.digests for games in waves])[:count],
            limit=waves[0].limit,
            no_pictures=next((games.no_pictures for games in waves if games.no_pictures), ""),
        )

    return evaluate


def _play(
    policy: EvalPolicy[SearchOutput],
    variables: Variables,
    env: VectorEnv,
    begun: Playing,
    *,
    film: int,
    stop: Callable[[], bool],
) -> Games | None:
    """One episode in each environment, until the last is over; None if stopped."""
    num_envs = env.num_envs
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    playing, digests = np.ones(num_envs, bool), np.zeros(num_envs, np.uint64)
    pictures: list[list[np.ndarray]] = [[] for _ in range(min(film, num_envs))]
    memory = jax.device_put(begun, devices.everywhere())
    no_pictures = ""
    step = env.reset()
    while playing.any():
        if stop():
            return None
        no_pictures = no_pictures or _film(pictures, env, playing)
        found, memory = policy(variables, memory, step)
        acted = playing & ~step.is_last  # after a lost life, an action is ignored
        action = np.asarray(found.action)
        step = env.step(action)
        watchdog.beat()
        returns += step.score * playing
        lengths += acted
        digests = np.where(playing, digested(digests, action, step.score), digests)
        playing &= ~step.game_over
    films = () if no_pictures else tuple(np.stack(film) for film in pictures)
    return Games(returns, lengths, films, digests, env.max_episode_steps, no_pictures)


def digested(digest: np.ndarray, action: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Update the digests u64[N] of episodes with actions and their rewards f32[N].

    Args:
      digest: u64[N].
      action: i32[N] or f32[N, D].
      score: f32[N].
    """
    told = score.astype(np.float32).view(np.uint32).astype(np.uint64) + np.uint64(1)
    numbers = [action] if action.ndim == 1 else action.astype(np.float32).view(np.uint32).T
    for number in numbers:
        told = told * _ODD + number.astype(np.uint64)
    return (digest ^ (digest >> np.uint64(29)) ^ told) * _STEP


_STEP, _ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def _film(pictures: list[list[np.ndarray]], env: Any, playing: np.ndarray) -> str:
    """Add an image of each recorded episode that is not over; returns the reason if it cannot."""
    if not any(playing[: len(pictures)]):
        return ""
    try:
        drawn = env.render()[: len(pictures)]
    except RuntimeError as error:
        return str(error)
    for i, picture in enumerate(drawn):
        if playing[i]:
            pictures[i].append(picture)
            if pictures[i][0].shape != picture.shape:
                return "render() returned images of different sizes"
    return ""
