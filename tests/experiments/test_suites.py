"""The commands of a suite, without training them."""

import subprocess

import pytest

from experiments import suites
from ez_jax.config import BadInput
from ez_jax.system import exits
from ez_jax.terminal import arguments


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that would run, in an empty folder; `.code` of each is 0."""
    monkeypatch.chdir(tmp_path)
    ran = []

    def run(command, check):
        assert not check
        ran.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(suites.subprocess, "run", run)
    return ran


@pytest.mark.parametrize("suite", suites.SUITES)
def test_every_run_of_a_suite_is_a_configuration(suite):
    for _, *words in suites.trainings(suite, (0,)):
        config = arguments.compose(words)
        assert config.name == suite
        assert config.preset == "small"


def test_seeds_are_trained_in_turn_and_reported(commands, tmp_path):
    (tmp_path / "runs/Asterix-MinAtar/minatar100k").mkdir(parents=True)
    assert suites.main(["minatar100k", "seeds=0,3"]) == exits.DONE
    *trained, reported = commands
    assert [words[3] for words in trained] == ["seed=0"] * 5 + ["seed=3"] * 5
    assert reported == [
        "ez_jax.report",
        "runs/Asterix-MinAtar/minatar100k",
        "out=experiments/results/minatar100k",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a suite: minatar100k or dm_control"),
        (["atari"], "name a suite"),
        (["dm_control", "seeds=one"], "choose seeds"),
        (["dm_control", "report"], "there are no runs yet"),
    ],
)
def test_what_makes_no_sense_is_refused(commands, words, message):
    with pytest.raises(BadInput, match=message):
        suites.main(words)
    assert commands == []
