"""Results of evaluations: episodes, protocol, human-normalised scores."""

import dataclasses
import re
from typing import Any

import numpy as np

from ez_jax.config import Config, eval_simulations

LIMIT = "eval/max_episode_steps"  # agent steps after which episodes of an evaluation were cut


@dataclasses.dataclass(frozen=True)
class Games:
    """The results of an evaluation by episode."""

    returns: np.ndarray  # f64[episodes], the game's own score
    lengths: np.ndarray  # i64[episodes], agent steps
    pictures: tuple[np.ndarray, ...] = ()  # u8[t, H, W, 3] of the recorded episodes
    digests: np.ndarray | None = None  # u64[episodes], equal if actions and rewards are equal
    limit: int = 0  # agent steps after which an episode was cut; 0: as configured
    no_pictures: str = ""  # why recording failed, if it did

    @property
    def distinct(self) -> int:
        """The number of distinct episodes."""
        known = np.arange(len(self.returns)) if self.digests is None else self.digests
        return len(np.unique(known))


# Random and human score per game: Wang et al. (2016), "Dueling network architectures", the table
# used by the Atari-100k papers.
RANDOM_AND_HUMAN: dict[str, tuple[float, float]] = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "DemonAttack": (152.1, 1971.0),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Hero": (1027.0, 30826.4),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MsPacman": (307.3, 6951.6),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "RoadRunner": (11.5, 7845.0),
    "Seaquest": (68.4, 42054.7),
    "UpNDown": (533.4, 11693.2),
}
_BY_LOWER = {game.lower(): scores for game, scores in RANDOM_AND_HUMAN.items()}


def human_normalised(game: str, score: float) -> float | None:
    """(score - random) / (human - random).

    Args:
        game: a name in any case, with or without its version.
        score: mean unclipped return of full episodes.

    Returns:
        The normalised score, not in percent; None if no human score is known.
    """
    name = re.sub(r"^ALE/|(NoFrameskip)?-v\d+$|[^A-Za-z0-9]", "", game).lower()
    if name not in _BY_LOWER:
        return None
    random, human = _BY_LOWER[name]
    return (score - random) / (human - random)


def while_training(config: Config) -> Config:
    """Use the limit of evaluations during training instead of the final one's."""
    limit = config.eval.max_episode_steps or config.env.eval_max_episode_steps
    limit = min(limit, config.env.eval_max_episode_steps)
    env = dataclasses.replace(config.env, eval_max_episode_steps=limit)
    return dataclasses.replace(config, env=env)


def protocol(config: Config, limit: int = 0) -> dict[str, Any]:
    """The protocol of an evaluation; scores of different protocols are not comparable.

    Args:
        config: of the evaluation.
        limit: agent steps after which episodes were cut; 0: as configured.
    """
    env = config.env
    return {
        "game": config.game,
        "frame_skip": env.frame_skip,
        "sticky_actions": env.sticky_actions,
        "noop_max": env.noop_max,
        "max_episode_steps": limit or env.eval_max_episode_steps,
        "episodic_life": False,
        "reward_clip": False,
        "search": config.search.policy,
        "num_simulations": config.eval.num_simulations or config.search.num_simulations,
        "first_seed": config.eval.seed,
        "epsilon": config.eval.epsilon,
    }


def protocol_name(config: Config) -> str:
    """A short name of a protocol, by what affects scores most.

    Examples:
        >>> protocol_name(make_config("Breakout-MinAtar", changes={"eval.epsilon": 0.05}))
        'sticky actions 0.1, epsilon 0.05'
    """
    sticky, epsilon = config.env.sticky_actions, config.eval.epsilon
    parts = [f"sticky actions {sticky:g}" if sticky else "no sticky actions"]
    return ", ".join(parts + ([f"epsilon {epsilon:g}"] if epsilon else []))


def summary(config: Config, games: Games) -> dict[str, float]:
    """Evaluation metrics by name; the human-normalised score if one is known."""
    mean = float(games.returns.mean())
    metrics = {
        "eval/return_mean": mean,
        "eval/return_std": float(games.returns.std()),
        "eval/return_median": float(np.median(games.returns)),
        "eval/length_mean": float(games.lengths.mean()),
        "eval/episodes": len(games.returns),
        "eval/distinct": games.distinct,
        LIMIT: games.limit or config.env.eval_max_episode_steps,
    }
    normalised = human_normalised(config.game, mean)
    return metrics if normalised is None else metrics | {"eval/human_normalised": normalised}


def scores(config: Config, num_actions: int, games: Games) -> dict[str, Any]:
    """The content of scores.json, apart from clocks and versions."""
    mean = float(games.returns.mean())
    played = {"num_simulations": eval_simulations(config, num_actions)}
    how = protocol(config, games.limit) | played
    limit = how["max_episode_steps"]
    return {
        "protocol": how,
        "protocol_name": protocol_name(config),
        "limit": {"agent_steps": limit, "env_frames": limit * config.env.frame_skip},
        "seed": config.seed,
        "preset": config.preset,
        "episodes": len(games.returns),
        "distinct": games.distinct,
        "returns": games.returns.tolist(),
        "mean": mean,
        "human_normalised": human_normalised(config.game, mean),
    }
