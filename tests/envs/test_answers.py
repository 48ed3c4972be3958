"""What a game returns is looked at where it arrives, and its end is not the end of the process."""

import os
import re

import failing_games
import numpy as np
import pytest

from ez_jax import doctor
from ez_jax.config import BadInput, EnvConfig
from ez_jax.config.errors import Fault
from ez_jax.config.games import find_task
from ez_jax.envs import make_env
from ez_jax.system import exits


def play(game, *, clip=False, steps=60):
    for case in failing_games.CASES:
        getattr(failing_games, case).calls = 0
    config = EnvConfig(reward_clip=clip)
    env = make_env(f"failing_games:{game}-v0", config, num_envs=2, seed=0, training=True)
    env.reset()
    for i in range(steps):
        env.step(np.array([i % 2, i % 3 == 0], np.int32))


@pytest.mark.parametrize(
    ("game", "said"),
    [
        ("NanReward", "reward that is not finite"),
        ("MinusInfinity", "reward that is not finite"),
        ("Overflow", "reward that is not finite .inf in float32."),
        ("Huge", "reward of 3e.38, too large to learn from"),
        ("NoReward", "the reward None, not a number"),
        ("TextReward", "the reward '1.0', not a number"),
        ("TwoRewards", "the reward array.*, not a number"),
        ("TextEnd", "terminated='False', neither true nor false"),
        ("NoEnd", "terminated=None, neither true nor false"),
        ("TwoEnds", "terminated=array.*, neither true nor false"),
        ("HalfAnEnd", "terminated=0.5, neither true nor false"),
        ("NanSeen", r"observation that is not finite .nan in float32 in 1 of 1 numbers"),
        ("InfinitySeen", "observation that is not finite"),
        ("Quits", "ended the process .exit code 0."),
        ("QuitsWithWords", "ended the process .exit code window closed."),
        ("Leaves", "ended the process .exit code 0."),
        ("QuitsInReset", "ended the process .exit code 3."),
        ("QuitsWhenMade", "ended the process"),
        ("Closes", "raised GeneratorExit at"),
        ("Panics", "raised Panic: no row 7 at"),
    ],
)
def test_what_a_game_must_not_do_is_told_with_its_step(game, said):
    leave = os._exit
    with pytest.raises(Fault, match=rf"(?=.*{game}-v0'.*{said})(?=.* step [0-9]+)"):
        play(game)
    assert os._exit is leave


@pytest.mark.parametrize(
    ("game", "fix"),
    [
        ("NanReward", "the reward is NaN, which comes of 0/0"),
        ("MinusInfinity", "the reward is -inf, which comes of a division by 0"),
        ("Huge", "env.reward_clip=true"),
        ("NanSeen", r"the observation's number \[0\] is NaN"),
        ("InfinitySeen", r"the observation's number \[0\] is inf"),
        ("Quits", "leave out sys.exit"),
    ],
)
def test_the_fix_is_that_of_what_was_found(game, fix):
    with pytest.raises(Fault) as fault:
        play(game)
    assert re.match(f".*{fix}", fault.value.fix)


def test_a_clipped_reward_may_be_huge_but_must_be_finite():
    play("Huge", clip=True)
    with pytest.raises(Fault, match="not finite"):
        play("MinusInfinity", clip=True)


@pytest.mark.parametrize("game", ["Sound", "ArraysOfOne"])
def test_a_sound_game_is_left_alone(game):
    play(game)


def test_a_child_of_a_game_may_end(monkeypatch):
    def fail(self):
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    monkeypatch.setattr(failing_games.Sound, "fail", fail)
    play("Sound", steps=20)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("raise SystemExit", "ends the process: put the code"),
        ("os._exit(0)", "ends the process: put the code"),
        ("raise GeneratorExit", "raises GeneratorExit"),
    ],
)
def test_a_module_that_ends_the_process_is_refused(tmp_path, monkeypatch, end, said):
    (tmp_path / "script_of_mine.py").write_text(f"import os\n{end}\n")
    monkeypatch.syspath_prepend(tmp_path)
    leave = os._exit
    # In a test that fails, this process is not to end silently.
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail("the process ended"))
    refused = os._exit
    with pytest.raises(BadInput, match=f"importing 'script_of_mine' .*{said}"):
        find_task("script_of_mine:X-v0")
    assert os._exit is refused
    assert refused is not leave


def test_a_game_that_ends_the_process_when_asked_for_names_is_told(monkeypatch):
    env = make_env("failing_games:Sound-v0", EnvConfig(), num_envs=1, seed=0, training=True)
    quits = failing_games.raising(SystemExit())
    monkeypatch.setattr(failing_games.Sound, "get_action_meanings", quits, raising=False)
    with pytest.raises(Fault, match="Sound-v0' ended the process"):
        env.action_names()


@pytest.mark.parametrize("game", ["QuitsWhenMade", "QuitsInReset", "Leaves", "Closes"])
def test_the_doctor_says_that_a_game_ends_the_process(game, monkeypatch, capsys):
    monkeypatch.setattr(failing_games, "SOUND", 0 if game == "QuitsInReset" else 30)
    getattr(failing_games, game).calls = 1
    assert doctor.main([f"env=failing_games:{game}-v0", "quick=true"]) == exits.FAILED
    said = capsys.readouterr().out
    assert ("raised GeneratorExit" if game == "Closes" else "ended the process") in said


def test_an_interrupt_of_the_user_is_none_of_the_game(monkeypatch):
    monkeypatch.setattr(failing_games.Sound, "fail", failing_games.raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        play("Sound")
