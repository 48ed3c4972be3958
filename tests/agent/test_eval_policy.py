"""What the policy of evaluation draws: from the seed of the game and the step, and nothing else."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from ez_jax.agent.actor import decision_keys, init_playing, make_eval_policy
from ez_jax.agent.model import make_model
from ez_jax.structs import TimeStep

SPEC = tiny.make_spec(3, actions=4)
# puct_ez: every first choice at a node is a tie.
CONFIG = tiny.make_config({"search.policy": "puct_ez", "search.num_simulations": 3})


def draws(playing):
    return jax.random.key_data(decision_keys(playing))


def test_the_draws_of_a_decision_follow_from_game_and_step():
    together = init_playing(SPEC, 5, 4)
    alone = init_playing(SPEC, 7, 1)
    np.testing.assert_array_equal(draws(together)[2], draws(alone)[0])
    later = dataclasses.replace(together, step=together.step + 1)
    both = np.concatenate([draws(together), draws(later)])
    assert len(np.unique(both, axis=0)) == 8


def time_step(rng, num_envs, t):
    zeros = np.zeros(num_envs, np.float32)
    nowhere = np.zeros(num_envs, bool)
    return TimeStep(
        observation=rng.normal(size=(num_envs, *SPEC.observation_shape)).astype(np.float32),
        reward=zeros,
        score=zeros,
        discount=zeros + 1,
        is_first=nowhere | (t in (0, 3)),
        is_last=nowhere,
        game_over=nowhere,
    )


def actions(config, games, steps=6, seed=10):
    """What some of four games did [T, number of games]; an episode begins at 0 and at 3."""
    model = make_model(config, SPEC)
    variables = tiny.init(model)
    policy = jax.jit(make_eval_policy(config, model))
    rng = np.random.default_rng(0)
    playing = init_playing(SPEC, seed, 4)
    of = lambda tree: jax.tree.map(lambda x: np.asarray(x)[games], tree)  # noqa: E731
    playing, done = of(playing), []
    for t in range(steps):
        found, playing = policy(variables, playing, of(time_step(rng, 4, t)))
        done.append(np.asarray(found.action))
    assert (playing.step == 3).all()
    return np.stack(done)


def test_a_game_draws_the_same_in_every_company():
    noisy = tiny.make_config(
        {"search.policy": "puct_ez", "search.num_simulations": 3, "eval.epsilon": 0.5}
    )
    together = actions(noisy, [0, 1, 2, 3])
    np.testing.assert_array_equal(actions(noisy, [2]), together[:, [2]])
    np.testing.assert_array_equal(actions(noisy, [3, 1]), together[:, [3, 1]])


@pytest.mark.long
def test_epsilon_is_the_share_of_random_actions():
    quiet = actions(CONFIG, [0, 1, 2, 3])
    always = tiny.make_config(
        {"search.policy": "puct_ez", "search.num_simulations": 3, "eval.epsilon": 1.0}
    )
    random = actions(always, [0, 1, 2, 3], steps=6)
    assert (random != quiet).any()
    assert len(np.unique(random)) == 4
