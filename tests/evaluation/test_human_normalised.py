"""Scores beside those of random play and of a human."""

import pytest

from ez_jax.config import games
from ez_jax.evaluation import scores


def test_random_play_scores_0_and_the_human_1():
    assert tuple(scores.RANDOM_AND_HUMAN) == games.ATARI_100K
    for game, (random, human) in scores.RANDOM_AND_HUMAN.items():
        assert scores.human_normalised(game, random) == 0
        assert scores.human_normalised(f"{game.lower()}-v5", human) == 1
    assert scores.human_normalised("Breakout", 414.1) == pytest.approx(14.319, abs=1e-3)


def test_games_without_a_human_score_have_none():
    assert scores.human_normalised("CartPole", 500) is None
