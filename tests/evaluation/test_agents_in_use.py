"""An agent in somebody else's code sees and speaks as in training, in games of every library."""

import functools

import envpool
import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy_envs  # noqa: F401 registers its games
from runs import SETTINGS

import ez_jax
from ez_jax.agent.model import make_model
from ez_jax.config.games import find_task
from ez_jax.envs import make_env
from ez_jax.envs.envpool_adapter import _settings
from ez_jax.evaluation.play import make_evaluate
from ez_jax.structs import Clocks

pytestmark = pytest.mark.long  # each compiles a search

EPISODES, LIMIT, SEED = 20, 40, 11
CHANGES = {
    "env.frame_stack": 2,
    "env.sticky_actions": 0.0,
    "env.eval_max_episode_steps": LIMIT,
    "eval.episodes": EPISODES,
    "eval.num_envs": EPISODES,
    "eval.seed": SEED,
    "network.channels": 4,
    "network.blocks": 1,
}


def fresh(game, **more):
    """An agent whose weights are drawn: every output depends on its input."""
    config = ez_jax.make_config(game, changes={**SETTINGS, **CHANGES, **more})
    env = make_env(game, config.env, num_envs=1, seed=0, training=False)
    model = make_model(config, env.spec)
    return ez_jax.Agent(
        *(config, env.spec, tiny.init(model), Clocks()),
        encoder=env.encoder,
        actions=env.actions,
    )


def of_gymnasium(agent):
    """Returns of the game as `gymnasium.make` gives it, one episode after another."""
    returns = []
    for seed in range(SEED, SEED + EPISODES):
        env = gymnasium.make(agent.spec.task_id, max_episode_steps=LIMIT)
        observation, info = env.reset(seed=seed)
        agent.reset(seed)
        total, ended = 0.0, False
        while not ended:
            action = agent.act(observation, action_mask=info.get("action_mask"))
            observation, reward, terminated, truncated, info = env.step(action)
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def of_envpool(agent):
    """Returns of the game as envpool gives it, all episodes side by side."""
    task = find_task(agent.config.game)
    env = envpool.make_gymnasium(
        task.task_id,
        num_envs=EPISODES,
        seed=list(range(SEED, SEED + EPISODES)),
        **_settings(task, agent.config.env),
    )
    observation, _ = env.reset()
    agent.reset(SEED)
    returns, playing = np.zeros(EPISODES), np.ones(EPISODES, bool)
    for _ in range(LIMIT):
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
        returns += reward * playing
        playing &= ~(terminated | truncated)
    return returns


def of_gymnax(agent):
    """Returns of the game as gymnax gives it, all episodes side by side."""
    env, params = gymnax.make(agent.spec.task_id)
    keys = jax.vmap(jax.random.key)(SEED + jnp.arange(EPISODES))

    @jax.jit
    @jax.vmap
    def reset(key):
        key, reset_key = jax.random.split(key)
        return key, *env.reset_env(reset_key, params)

    @jax.jit
    @jax.vmap
    def step(key, state, action):
        key, step_key, _ = jax.random.split(key, 3)
        observation, state, reward, ended, _ = env.step_env(step_key, state, action, params)
        return key, observation, state, reward, ended

    keys, observation, state = reset(keys)
    agent.reset(SEED)
    returns, playing = np.zeros(EPISODES), np.ones(EPISODES, bool)
    for _ in range(LIMIT):
        action = agent.act(observation)
        keys, observation, state, reward, ended = step(keys, state, action)
        returns += np.asarray(reward) * playing
        playing &= ~np.asarray(ended)
    return returns


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiling")
@pytest.mark.parametrize(
    ("game", "play_raw"),
    [
        ("gym:CartPole-v1", of_gymnasium),
        ("toy_envs:ToyBarred-v0", of_gymnasium),
        ("toy_envs:ToyParts-v0", of_gymnasium),
        ("toy_envs:ToyPictureUnit-v0", of_gymnasium),
        ("CartPole", of_envpool),
        ("MiniGrid-Empty-Random-5x5-v0", of_envpool),
        ("Breakout", of_envpool),
        ("Breakout-MinAtar", of_gymnax),
        ("Catch-bsuite", of_gymnax),
    ],
)
def test_in_the_raw_game_it_scores_as_in_its_evaluation(game, play_raw):
    agent = fresh(game, **({"env.image_size": 64} if game == "Breakout" else {}))
    games = make_evaluate(agent.config, agent.model)(agent.variables)
    np.testing.assert_allclose(play_raw(agent), games.returns, rtol=1e-6)


@pytest.fixture(scope="module")
def agents():
    """Agents of some games, each made once."""
    return functools.cache(fresh)


def test_it_says_the_games_own_number_of_an_action(agents):
    agent = agents("toy_envs:ToyCounter-v0")  # its actions are 3 and 4
    agent.reset()
    assert agent.act(np.zeros(1, np.float32)) == 3 + int(agent.found.action[0])
    agent.reset()
    actions = agent.act(np.zeros((5, 1), np.float32))
    assert actions.shape == (5,)
    assert set(actions) <= {3, 4}


def test_games_side_by_side_are_remembered_apart_and_begin_where_first_says(agents):
    agent = agents("toy_envs:ToyCounter-v0")
    rows = np.random.default_rng(0).normal(size=(3, 4, 1)).astype(np.float32)
    agent.reset()
    for row in rows:
        agent.act(row)
    together = np.asarray(agent.found.policy)
    for i in range(4):
        agent.reset(i)
        for row in rows:
            agent.act(row[i])
        np.testing.assert_allclose(agent.found.policy[0], together[i], rtol=1e-4)
    agent.reset()
    agent.act(rows[0])
    agent.act(rows[1], first=[True, False, True, False])
    begun = np.asarray(agent._playing.frames)
    np.testing.assert_array_equal(begun[0, 0], begun[0, 1])
    np.testing.assert_array_equal(begun[1, 0], rows[0, 1])
    with pytest.raises(ez_jax.BadInput, match="2 observations, but 4 before"):
        agent.act(rows[0, :2])


@pytest.mark.parametrize(
    ("game", "observation", "sentence"),
    [
        ("ToyCounter", np.full(1, np.nan, np.float32), "not finite"),
        ("ToyCounter", np.full(1, np.inf), "not finite"),
        ("ToyCounter", np.full(1, 1e300), "infinity in float32"),
        ("ToyCounter", np.zeros((0, 1)), "given no observation"),
        ("ToyParts", {"inner": {}, "z": [[1], [1, 2]], "m": 0}, "cannot return this observation"),
        ("ToyCounter", np.zeros(1, complex), "complex128"),
        ("ToyCounter", np.zeros(2), r"shape \(1,\), but this one is \(2,\)"),
        ("ToyCounter", None, "but this one is"),
        ("ToyCounter", ["a"], "but the space is"),
        ("ToyPictureUnit", np.full((12, 10, 3), 255, np.uint8), "of 255 to 255"),
        ("ToyPictureUnit", np.full((12, 10, 3), np.nan, np.float32), "but the space is"),
        ("ToyCamera", np.zeros((12, 10, 3), np.float32), "float32"),
        ("ToyCamera", np.zeros((10, 12, 3), np.uint8), "shape"),
        ("ToyCode", 9, "but the space is"),
        ("ToyParts", {"z": np.zeros(2, np.int8)}, "parts inner, m, z"),
        ("ToyParts", np.zeros(11), "parts inner, m, z"),
    ],
)
def test_what_the_game_cannot_return_is_refused_in_a_sentence(agents, game, observation, sentence):
    agent = agents(f"toy_envs:{game}-v0")
    agent.reset()
    with pytest.raises(ez_jax.BadInput, match=sentence) as caught:
        agent.act(observation)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"num_simulations": -1}, "num_simulations is -1: it must be"),
        ({"num_simulations": 10**9}, "num_simulations is 1000000000: it must be at most"),
        ({"num_simulations": 2.5}, "expected a whole number"),
        ({"first": [True, False]}, r"first is \[True, False\]: give one bool, or 1"),
    ],
)
def test_other_arguments_are_refused_as_well(agents, given, sentence):
    agent = agents("toy_envs:ToyCounter-v0")
    agent.reset()
    with pytest.raises(ez_jax.BadInput, match=sentence):
        agent.act(np.zeros(1), **given)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (None, r"act.observation, action_mask=info.*action_mask"),
        (np.zeros(4, np.int8), "allows no action"),
        (np.ones(3, np.int8), r"int8\[3\], not one number"),
        ([0, 1, 2, 0], "other numbers than 0 and 1"),
    ],
)
def test_a_game_with_masks_wants_one(agents, mask, sentence):
    agent = agents("toy_envs:ToyBarred-v0")
    agent.reset()
    with pytest.raises(ez_jax.BadInput, match=sentence):
        agent.act(np.zeros(4, np.float32), action_mask=mask)


def test_the_only_action_that_is_allowed_is_taken(agents):
    agent = agents("toy_envs:ToyBarred-v0")
    for action in range(4):
        agent.reset()
        mask = np.arange(4) == action
        assert agent.act(np.zeros(4, np.float32), action_mask=mask) == 2 + action
    agent.reset()
    assert agent.act(np.zeros((4, 4)), action_mask=np.eye(4, dtype=np.int8)).tolist() == [
        2,
        3,
        4,
        5,
    ]


def test_it_plays_whole_games_of_its_own(finished):
    games = ez_jax.play(finished.folder, episodes=3, seed=5)
    assert games.returns.shape == (3,)
    again = ez_jax.load(finished.folder).play(3, seed=5)
    np.testing.assert_array_equal(games.returns, again.returns)
