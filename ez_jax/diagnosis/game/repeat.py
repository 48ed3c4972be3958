"""Does a game repeat itself under the same seed, and only then? Part of `checks.py`."""

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from ez_jax.diagnosis.game.play import Game, allowed, play, play_together, random_actions
from ez_jax.diagnosis.game.spaces import Unfit
from ez_jax.diagnosis.machine_checks import Note
from ez_jax.envs.side_by_side import MASK

COMPARED = 300  # agent steps that two copies are compared over
SEEDS, TRIED, HELD = 3, 6, 25  # trials of actions, actions of each, how long each is held
TOGETHER = 3  # games side by side
AGAIN = 50  # steps after a reset


def actions_matter(game: Game) -> str:
    """Compare the courses that different actions lead to from the same states."""
    tried = min(TRIED, game.spec.num_actions)
    if tried == 1:
        raise Unfit("there is one action only", "give the agent something to choose from")
    most = 1
    for seed in range(SEEDS):
        before = random_actions(5 * seed, game.spec.num_actions, seed)
        courses = [play(game.config, [*before, *[action] * HELD], seed) for action in range(tried)]
        most = max(most, len({(c.digest.tobytes(), c.reward.tobytes()) for c in courses}))
    if most == 1:
        raise Unfit(
            f"{tried} different actions, each held for {HELD} steps, led to the same",
            "use the action in step(): nothing can be learned where it makes no difference",
        )
    return f"{most} of {tried} tried take courses of their own"


def same_seed(game: Game) -> str:
    """Compare two copies that are told the same actions from the same seed."""
    actions = random_actions(min(COMPARED, game.steps), game.spec.num_actions)
    one, other = play(game.config, actions), play(game.config, actions)
    row = one.differs_at(other)
    if row is not None:
        raise Unfit(
            f"two copies with the same seed and the same actions differ in row {row}",
            "draw all that is random from self.np_random, which reset(seed=seed) seeds: else no "
            "result can be had again, and a resumed run begins its games anew",
        )
    return f"{len(one.digest) - 1} steps of two copies are equal"


def other_seed(game: Game) -> str | Note:
    """Compare games of some seeds under the same actions."""
    actions = random_actions(min(COMPARED, game.steps), game.spec.num_actions)
    courses = {play(game.config, actions, seed).digest.tobytes() for seed in range(SEEDS)}
    if len(courses) == 1:
        return Note(
            f"{SEEDS} seeds play the same game",
            "where nothing is random the games of an evaluation are all the same one: "
            "eval.episodes=1 is enough",
        )
    return f"{len(courses)} of {SEEDS} seeds differ"


def side_by_side(game: Game) -> str:
    """Compare games that are played in turn with the same games, each played by itself."""
    actions = random_actions(min(COMPARED, game.steps), game.spec.num_actions)
    together = play_together(game.config, actions, TOGETHER)
    for i, one in enumerate(together):
        alone = play(game.config, actions, i)
        if alone.differs_at(play(game.config, actions, i)) is not None:
            return "cannot be told, as the same seed gives other games"
        row = one.differs_at(alone)
        if row is not None:
            raise Unfit(
                f"of {TOGETHER} games side by side one is another from row {row} on than alone",
                "keep all that a game changes in self: what belongs to the class or the module is "
                "shared by all games of a run",
            )
    return f"{len(actions)} steps of {TOGETHER} games are those of each alone"


def reset_begins_anew(game: Game) -> str:
    """Compare a copy that has played with a fresh one, both reset with the same seed."""
    used, fresh = game.raw(), game.raw()
    past_end = _play_past_the_end(used, random_actions(game.steps, game.spec.num_actions))
    actions = random_actions(AGAIN, game.spec.num_actions, 1)
    courses = zip(_course(used, actions), _course(fresh, actions), strict=False)
    for i, (one, other) in enumerate(courses):
        if not data_equivalence(one, other):
            raise Unfit(
                f"after a game, reset(seed=0) and {i} steps differ from those of a fresh copy",
                "call super().reset(seed=seed), draw from self.np_random, and put back in reset() "
                "all that step() changes",
            )
    return f"begins the same game; step() after the end {past_end}"


def _play_past_the_end(env: gymnasium.Env, actions: np.ndarray) -> str:
    """Play one game, ask for one step more, and say how that was taken."""
    _, info = env.reset(seed=0)
    for action in actions:
        _, _, terminated, truncated, info = env.step(_number(env, action, info))
        if terminated or truncated:
            break
    else:
        return "was not met"
    try:
        env.step(_number(env, actions[0], info))
    except Exception:  # noqa: BLE001 it is free to refuse: a run never asks for it
        return "is refused"
    return "is answered"


def _course(env: gymnasium.Env, actions: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """What a game returns, from its first observation to its end."""
    observation, info = env.reset(seed=0)
    yield (observation,)
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(_number(env, action, info))
        yield observation, float(reward), bool(terminated), bool(truncated)
        if terminated or truncated:
            return


def _number(env: gymnasium.Env, action: int, info: Mapping[str, Any]) -> int:
    """An action that is allowed as the environment numbers it, which need not begin with 0."""
    space = env.action_space
    start = int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0
    return start + allowed(action, info.get(MASK))
