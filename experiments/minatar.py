"""Compares gymnax's MinAtar games with the original package (Young & Tian, 2019).

    pip install minatar
    python -m experiments.minatar rules            every transition, compared with the original
    python -m experiments.minatar random           random play of both, with 95 % intervals

Prints a line of JSON for each game.
"""

import argparse
import functools
import json
import sys
from typing import Any

import gymnax
import jax
import numpy as np

from ez_jax.config.presets import make_config
from ez_jax.envs import make_env

GAMES = {
    "Asterix-MinAtar": "asterix",
    "Breakout-MinAtar": "breakout",
    "Freeway-MinAtar": "freeway",
    "Seaquest-MinAtar": "seaquest",
    "SpaceInvaders-MinAtar": "space_invaders",
}
# Fields of the original that gymnax has as lists of fixed length, and how many are in use.
LISTS = {
    "f_bullets": "f_bullet_count",
    "e_bullets": "e_bullet_count",
    "e_fish": "e_fish_count",
    "e_subs": "e_subs_count",
    "divers": "divers_count",
}
NOT_THERE = ("time", "terminal", "entities", "cars", *LISTS, *LISTS.values())


def as_original(env: Any, state: Any) -> None:
    """Put a state of gymnax (NumPy) into a game of the original."""
    for name, value in vars(state).items():
        if name not in NOT_THERE and hasattr(env, name):
            setattr(env, name, np.array(value, float) if value.ndim else value.item())
    for name, count in LISTS.items():
        if hasattr(env, name):
            rows = getattr(state, name)[: getattr(state, count)]
            setattr(env, name, [[*row[:2], bool(row[2]), *row[3:]] for row in rows.tolist()])
    if hasattr(env, "entities"):
        rows = state.entities.tolist()
        env.entities = [[x, y, bool(r), bool(gold)] if on else None for x, y, r, gold, on in rows]
    if hasattr(env, "cars"):
        env.cars, env.terminate_timer = state.cars.tolist(), 2_500 - int(state.time)
    env.terminal = False


def draws(state: Any, reward: float) -> bool:
    """Whether the transition from a state is random, so that the two may differ."""
    timers = (getattr(state, name, 1) for name in ("spawn_timer", "e_spawn_timer", "d_spawn_timer"))
    return any(timer == 0 for timer in timers) or (hasattr(state, "cars") and reward > 0)


def chosen(key: jax.Array, state: Any, count: int) -> jax.Array:
    """An action: random, but often towards the ball or the other side of the road."""
    at_random = jax.random.randint(key, (), 0, count)
    if hasattr(state, "ball_x"):
        to_ball = (state.ball_x < state.pos) + 2 * (state.ball_x > state.pos)
        return jax.numpy.where(jax.random.bernoulli(key, 0.9), to_ball, at_random)
    if hasattr(state, "cars"):
        return jax.numpy.where(jax.random.bernoulli(key, 0.8), 1, at_random)
    return at_random


@functools.partial(jax.jit, static_argnums=(0, 3))
def transitions(env: Any, params: Any, key: jax.Array, steps: int) -> Any:
    """States, actions and results of a gymnax game that continues after its end if possible."""
    start = env.reset_env(key, params)[1]
    _, start = env.step_env(key, start, 0, params)[:2]  # as a step leaves it: one type
    ends = hasattr(start, "ball_x")  # a lost ball leaves the board

    def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
        act_key, step_key, reset_key = jax.random.split(key, 3)
        action = chosen(act_key, state, len(env.action_set))
        raw, after, reward, terminal, _ = env.step_env(step_key, state, action, params)
        row = state, env.action_set[action], raw, reward, terminal
        after = after.replace(terminal=jax.numpy.zeros_like(after.terminal))
        fresh = env.reset_env(reset_key, params)[1]
        follow = lambda new, old: jax.numpy.where(terminal & ends, new, old)  # noqa: E731
        return jax.tree.map(lambda a, b: follow(a, b).astype(b.dtype), fresh, after), row

    return jax.lax.scan(step, start, jax.random.split(key, steps))[1]


def rules(game: str, steps: int, games: int) -> dict[str, Any]:
    """Count the transitions in which gymnax and the original agree."""
    from minatar import Environment

    env, params = gymnax.make(game)
    env_of = Environment(GAMES[game], sticky_action_prob=0.0).env
    counts = {"compared": 0, "drawn": 0, "observation": 0, "reward": 0, "terminal": 0}
    for seed in range(games):
        states, *rows = jax.device_get(transitions(env, params, jax.random.key(seed), steps))
        for t in range(steps):
            state = jax.tree.map(lambda x, t=t: np.asarray(x[t]), states)
            action, raw, reward, terminal = (row[t] for row in rows)
            if draws(state, reward):
                counts["drawn"] += 1
                continue
            as_original(env_of, state)
            told, ended = env_of.act(int(action))
            counts["compared"] += 1
            counts["reward"] += told != reward
            # gymnax leaves the end of Freeway to the limit of its episodes.
            ended = ended and env_of.__dict__.get("terminate_timer", 0) >= 0
            counts["terminal"] += bool(ended) != bool(terminal)
            counts["observation"] += not ended and (env_of.state() != raw).any()
    return {"game": game, **{name: int(count) for name, count in counts.items()}}


def of_gymnax(game: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths [episodes] of random play, as in evaluations."""
    config = make_config(game)
    env = make_env(game, config.env, num_envs=episodes, seed=config.eval.seed, training=False)
    rng, playing = np.random.default_rng(0), np.ones(episodes, bool)
    returns, lengths = np.zeros(episodes), np.zeros(episodes)
    env.reset()
    while playing.any():
        step = env.step(rng.integers(0, env.spec.num_actions, episodes).astype(np.int32))
        returns += step.score * playing
        lengths += playing
        playing &= ~step.game_over
    return returns, lengths


def of_original(game: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for the original, with its minimal actions and sticky actions of 0.1."""
    from minatar import Environment

    env = Environment(GAMES[game])
    env.seed(0)
    rng, actions = np.random.default_rng(1), env.minimal_action_set()
    played = []
    for _ in range(episodes):
        env.reset()
        score, length, ended = 0.0, 0, False
        while not ended:
            reward, ended = env.act(actions[rng.integers(len(actions))])
            score, length = score + reward, length + 1
        played.append((score, length))
    returns, lengths = np.array(played, float).T
    return returns, lengths


def interval(values: np.ndarray) -> list[float]:
    """Mean and half the width of its 95 % interval."""
    return [float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))]


def at_random(game: str, episodes: int) -> dict[str, Any]:
    """Mean return and length of random play in both, each with half its interval."""
    told: dict[str, Any] = {"game": game, "episodes": episodes}
    for name, play in (("gymnax", of_gymnax), ("original", of_original)):
        returns, lengths = play(game, episodes)
        told[name] = {"return": interval(returns), "length": interval(lengths)}
    return told


def main(words: list[str]) -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("rules", "random"))
    parser.add_argument("--game", choices=GAMES, help="none: all of them")
    parser.add_argument("--episodes", type=int, default=2_000, help="of random play")
    parser.add_argument("--steps", type=int, default=1_500, help="of each game whose rules are")
    parser.add_argument("--games", type=int, default=20, help="from which transitions are taken")
    asked = parser.parse_args(words)
    for game in [asked.game] if asked.game else GAMES:
        is_long = game == "Freeway-MinAtar"  # always 2,501 steps
        told = (
            rules(game, asked.steps, asked.games)
            if asked.what == "rules"
            else at_random(game, asked.episodes // (10 if is_long else 1))
        )
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
