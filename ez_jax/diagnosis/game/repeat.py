"""Does a game repeat itself with the same seed, and only then? Part of `checks.py`."""

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from ez_jax.diagnosis.game.play import Game, allowed, play, play_together, random_actions
from ez_jax.diagnosis.game.spaces import Unfit
from ez_jax.diagnosis.machine_checks import Note
from ez_jax.envs.actions import make_actions
from ez_jax.envs.side_by_side import MASK
from ez_jax.structs import EnvSpec

COMPARED = 300  # agent steps over which two copies are compared
SEEDS, TRIED, HELD = 3, 6, 25  # seeds, actions to try, steps for which an action is held
TOGETHER = 3  # games side by side
AGAIN = 50  # steps after a reset


def actions_matter(game: Game) -> str:
    """Compare the results of different actions from the same states."""
    if game.spec.num_actions == 1:
        raise Unfit("there is only one action", "give the agent a choice")
    choices = _to_try(game.spec)
    tried, most = len(choices), 1
    for seed in range(SEEDS):
        before = random_actions(5 * seed, game.spec, seed)
        held = [np.concatenate([before, np.stack([action] * HELD)]) for action in choices]
        courses = [play(game.config, actions, seed) for actions in held]
        most = max(most, len({(c.digest.tobytes(), c.reward.tobytes()) for c in courses}))
    if most == 1:
        raise Unfit(
            f"{tried} different actions, each held for {HELD} steps, led to the same",
            "use the action in step(): nothing can be learned if it makes no difference",
        )
    return f"{most} of {tried} tried actions give different results"


def _to_try(spec: EnvSpec) -> np.ndarray:
    """Actions that differ much, i32[TRIED] or f32[TRIED, D]."""
    if not spec.is_continuous:
        return np.arange(min(TRIED, spec.num_actions), dtype=np.int32)
    ends = np.stack([np.full(spec.action_size, end, np.float32) for end in (-1, 1)])
    return np.concatenate([ends, random_actions(TRIED - 2, spec)])


def same_seed(game: Game) -> str:
    """Compare two copies with the same seed and the same actions."""
    actions = random_actions(min(COMPARED, game.steps), game.spec)
    one, other = play(game.config, actions), play(game.config, actions)
    row = one.differs_at(other)
    if row is not None:
        raise Unfit(
            f"two copies with the same seed and the same actions differ in row {row}",
            "draw all random numbers from self.np_random, which reset(seed=seed) seeds: otherwise "
            "no result can be reproduced, and a resumed run starts new games",
        )
    return f"{len(one.digest) - 1} steps of two copies are equal"


def other_seed(game: Game) -> str | Note:
    """Compare games with different seeds under the same actions."""
    actions = random_actions(min(COMPARED, game.steps), game.spec)
    courses = {play(game.config, actions, seed).digest.tobytes() for seed in range(SEEDS)}
    if len(courses) == 1:
        return Note(
            f"{SEEDS} seeds give the same game",
            "without randomness all episodes of an evaluation are equal: eval.episodes=1 is enough",
        )
    return f"{len(courses)} of {SEEDS} seeds differ"


def side_by_side(game: Game) -> str:
    """Compare games that are played in turns with the same games, each played alone."""
    actions = random_actions(min(COMPARED, game.steps), game.spec)
    together = play_together(game.config, actions, TOGETHER)
    for i, one in enumerate(together):
        alone = play(game.config, actions, i)
        if alone.differs_at(play(game.config, actions, i)) is not None:
            return "unknown, because the same seed gives different games"
        row = one.differs_at(alone)
        if row is not None:
            raise Unfit(
                f"of {TOGETHER} games side by side one differs from itself alone from row {row} on",
                "keep the state of a game in self: what belongs to the class or the module is "
                "shared by all games of a run",
            )
    return f"{len(actions)} steps of {TOGETHER} games equal those of each alone"


def reset_begins_anew(game: Game) -> str:
    """Compare a used copy with a new one, both reset with the same seed."""
    used, fresh = game.raw(), game.raw()
    past_end = _play_past_the_end(used, random_actions(game.steps, game.spec))
    actions = random_actions(AGAIN, game.spec, 1)
    courses = zip(_course(used, actions), _course(fresh, actions), strict=False)
    for i, (one, other) in enumerate(courses):
        if not data_equivalence(one, other):
            raise Unfit(
                f"after a game, reset(seed=0) and {i} steps differ from those of a fresh copy",
                "call super().reset(seed=seed), draw from self.np_random, and restore in reset() "
                "everything that step() changes",
            )
    return f"starts the same game; step() after the end {past_end}"


def _play_past_the_end(env: gymnasium.Env, actions: np.ndarray) -> str:
    """Play one game, make one more step, and report what happened."""
    _, info = env.reset(seed=0)
    for action in actions:
        _, _, terminated, truncated, info = env.step(own_action(env, action, info))
        if terminated or truncated:
            break
    else:
        return "was not reached"
    try:
        env.step(own_action(env, actions[0], info))
    except Exception:  # noqa: BLE001 it may refuse: a run never does this
        return "is refused"
    return "is answered"


def _course(env: gymnasium.Env, actions: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Everything that a game returns, from its first observation to its end."""
    observation, info = env.reset(seed=0)
    yield (observation,)
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(own_action(env, action, info))
        yield observation, float(reward), bool(terminated), bool(truncated)
        if terminated or truncated:
            return


def own_action(env: gymnasium.Env, action: Any, info: Mapping[str, Any]) -> Any:
    """An allowed action as the environment itself takes it."""
    actions = make_actions(env.action_space, str(env.spec and env.spec.id))
    own = actions.to_game(np.array([allowed(action, info.get(MASK))]))
    return own[0, ...] if actions.action_size else own[0]
