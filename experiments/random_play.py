"""What random play scores under the protocol of our evaluations: full games, evaluation seeds.

    python -m experiments.random_play --game CrazyClimber --preset small --episodes 20

Prints one line of JSON.
"""

import argparse
import json
import sys

import numpy as np

from ez_jax.config import presets
from ez_jax.envs import make_env


def play(game: str, preset: str, episodes: int, seed: int = 0) -> np.ndarray:
    """Scores of full games [episodes], every action equally likely within its bounds."""
    config = presets.make_config(game, preset)
    env = make_env(
        config.game, config.env, num_envs=episodes, seed=config.eval.seed, training=False
    )
    rng = np.random.default_rng(seed)
    scores, is_over = np.zeros(episodes), np.zeros(episodes, bool)
    env.reset()
    while not is_over.all():
        if env.spec.is_continuous:
            actions = rng.uniform(-1, 1, (episodes, env.spec.action_size)).astype(np.float32)
        else:
            actions = rng.integers(0, env.spec.num_actions, episodes).astype(np.int32)
        step = env.step(actions)
        scores += np.where(is_over, 0.0, step.score)
        is_over |= step.game_over
    env.close()
    return scores


def main(words: list[str]) -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--game", required=True)
    parser.add_argument("--preset", default="", help="whose way of playing; none: the game's own")
    parser.add_argument("--episodes", type=int, default=20)
    chosen = parser.parse_args(words)
    scores = play(chosen.game, chosen.preset, chosen.episodes)
    found = {"game": chosen.game, "mean": scores.mean(), "std": scores.std()}
    sys.stdout.write(json.dumps({**found, "returns": scores.tolist()}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
