"""Runs killed again and again end bit by bit as those that were never stopped. Minutes: -m slow."""

import random
import signal
import time

import pytest
import runs

ATARI = {
    "env.image_size": 24,
    "env.grayscale": True,
    "env.max_episode_steps": 100,
    "env.eval_max_episode_steps": 30,
    "network.channels": 4,
    "network.blocks": 1,
    "network.head_channels": 2,
    "learner.augment": False,
}
GAMES = {"CartPole": {}, "Breakout": ATARI}
KILLS = 12  # of each game; every other one while a checkpoint is being written


def words(game, folder):
    changes = {
        **runs.SETTINGS,
        **GAMES[game],
        "total_agent_steps": 1500,
        "replay.capacity": 400,  # the ring is overwritten several times
        "log.every": 20,
        "eval.every": 100,
        "checkpoint.every": 30,
        "run_dir": folder,
    }
    return [f"game={game}", "preset=small", *(f"{key}={value}" for key, value in changes.items())]


def kill(process, folder, rng, *, while_writing):
    """Kill a run some time after it went on, and perhaps only when a checkpoint is half written."""
    for line in process.stdout:
        if "compiled" in line:
            break
    time.sleep(rng.uniform(0, 4))
    checkpoints = folder / "checkpoints"
    while while_writing and process.poll() is None and not list(checkpoints.glob("*.part")):
        time.sleep(0.001)
    was_writing = bool(list(checkpoints.glob("*.part")))
    process.send_signal(signal.SIGKILL)
    runs.wait(process)
    return was_writing


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_a_run_killed_many_times_is_the_run_that_was_never_stopped(tmp_path, game):
    rng = random.Random(game)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert runs.wait(runs.start("ez_jax.train", *words(game, straight))).returncode == 0
    kills = writing = 0
    while True:
        process = runs.start("ez_jax.train", *words(game, killed))
        if kills == KILLS:
            done = runs.wait(process)
            break
        writing += kill(process, killed, rng, while_writing=kills % 2 == 1)
        assert process.returncode == -signal.SIGKILL, "it was over too soon: give it more to do"
        kills += 1
    assert done.returncode == 0, done.stderr
    assert writing >= KILLS // 3, "of the kills that met a checkpoint half written"
    runs.assert_same_end(straight, killed)
