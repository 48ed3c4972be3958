"""The example of a game of one's own: sound, playable, and trained by the command of its file."""

import shlex

import numpy as np
import pytest
import runs

from experiments import own_game
from ez_jax.config import presets
from ez_jax.envs import make_env
from ez_jax.storage.metrics import read_metrics
from ez_jax.system import exits

GAME = "experiments.own_game:Bird-v0"
EVALUATION = "eval/return_mean"


def command():
    """The words that its file gives to the training command."""
    words = shlex.split(own_game.__doc__)
    start = words.index("ez_jax.train") + 1
    return [word for word in words[start : words.index("Random")] if word.strip()]


def play(choose, seed):
    """Steps of one game."""
    bird = own_game.Bird()
    observation, _ = bird.reset(seed=seed)
    steps, terminated = 0, False
    while not terminated and steps < 200:
        observation, reward, terminated, truncated, _ = bird.step(choose(observation))
        assert (reward, truncated) == (1.0, False)
        steps += 1
    return steps


def test_random_play_ends_soon_and_a_simple_rule_flies_on():
    rng = np.random.default_rng(0)
    assert np.mean([play(lambda _: rng.integers(2), seed) for seed in range(50)]) < 15
    assert all(play(lambda seen: int(seen[0] < seen[3] - 0.05), seed) == 200 for seed in range(20))


def test_the_picture_shows_bird_and_wall():
    bird = own_game.Bird(render_mode="rgb_array")
    bird.reset(seed=0)
    for _ in range(8):
        bird.step(1 if bird.height < 0.5 else 0)
    colours = {tuple(pixel) for pixel in bird.render().reshape(-1, 3)}
    assert colours == {own_game.SKY, own_game.WALL, own_game.BIRD}


@pytest.mark.long
def test_the_doctor_finds_nothing_to_fix():
    done = runs.wait(runs.start("ez_jax.doctor", f"env={GAME}", "network.support=14", "quick=true"))
    assert (done.returncode, done.stderr) == (exits.DONE, "")
    assert "all 20 checks succeeded\n" in done.stdout


@pytest.mark.long
def test_it_trains_and_is_watched_by_commands(tmp_path):
    # Its shapes are those of CartPole: with these settings the programs of `runs` are compiled.
    settings = {**runs.SETTINGS, "reanalyse.mode": "buffer", "reanalyse.chunk": 64}
    words = [f"{key}={value}" for key, value in settings.items()]
    run, film = tmp_path / "run", [f"episodes={settings['eval.episodes']}", "video=1"]
    done = runs.wait(runs.start("ez_jax.train", f"game={GAME}", *words, f"run_dir={run}"))
    assert done.returncode == exits.DONE, done.stderr
    last = read_metrics(run)[-1]
    assert last["agent_steps"] >= runs.STEPS
    assert last["updates"] > 0
    done = runs.wait(runs.start("ez_jax.evaluate", f"run={run}", *film))
    assert done.returncode == exits.DONE, done.stderr
    assert [path.stat().st_size > 0 for path in (run / "videos").iterdir()] == [True]


def test_a_game_is_cut_after_200_steps():
    env = make_env(GAME, presets.make_config(GAME).env, num_envs=1, seed=0, training=True)
    step, lasted = env.reset(), 0
    while not step.game_over[0]:
        seen = step.observation[0]
        step = env.step(np.array([int(seen[0] < seen[3] - 0.05)], np.int32))
        lasted += 1
    assert (lasted, step.discount[0]) == (200, 1)


@pytest.mark.slow
def test_it_is_learned_by_the_command_of_its_file(tmp_path):
    done = runs.wait(runs.start("ez_jax.train", *command(), f"run_dir={tmp_path}"))
    assert done.returncode == exits.DONE, done.stderr
    scores = [line[EVALUATION] for line in read_metrics(tmp_path) if EVALUATION in line]
    assert max(scores) > 150  # random play: 11
