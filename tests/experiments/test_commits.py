"""Two commits side by side: they take turns, and the ratio is that of neighbours in time."""

import json
import subprocess
import sys

import pytest
import runs

from experiments.bench import commits
from ez_jax.config import BadInput


def test_the_ratio_is_that_of_pairs():
    slow_hour = [(10.0, 5.0), (10.0, 5.0), (40.0, 20.0), (10.0, 6.0)]
    row = commits.ratios(slow_hour)
    assert (row["ratio"], row["before_ms"], row["after_ms"], row["pairs"]) == (0.5, 10.0, 5.0, 4)
    assert 0.5 == row["low"] < row["high"] < 0.6
    assert commits.ratios([(4.0, 3.0)])["low"] == commits.ratios([(4.0, 3.0)])["high"] == 0.75


class Clock:
    """A checkout whose calls take known times; it keeps what it was told."""

    def __init__(self, name, milliseconds):
        self.name, self.milliseconds, self.told = name, milliseconds, []

    def call(self, program, times):
        self.told.append((program, times))
        return {"cpu_ms": self.milliseconds, "commit": self.name, "device": "none"}


def test_both_make_as_many_calls_in_turns():
    before, after = Clock("old", 20.0), Clock("new", 10.0)
    rows = list(commits.compared(before, after, repeats=3))
    assert before.told == after.told
    assert [row["case"] for row in rows] == list(commits.PROGRAMS)
    for row in rows:
        assert (row["before"], row["after"], row["ratio"], row["calls"]) == ("old", "new", 0.5, 10)


@pytest.mark.parametrize("words", [["game=CartPole"], ["before=nowhere", "game=CartPole"]])
def test_a_checkout_has_to_be_named(words):
    with pytest.raises(BadInput, match="write before=DIR"):
        commits.main(words)


def test_a_new_key_is_set_in_the_later_commit_alone(monkeypatch, capsys):
    started = []

    class Started(Clock):
        def __init__(self, root, words):
            super().__init__(root.name, 10.0)
            started.append(words)

        def close(self):
            pass

    monkeypatch.setattr(commits, "Checkout", Started)
    words = ["game=Breakout", "new=network.center=false", "repeats=1"]
    assert commits.main([f"before={runs.ROOT}", *words]) == 0
    assert started == [["game=Breakout"], ["game=Breakout", "network.center=false"]]
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["settings"] for row in rows} == {"game=Breakout new=network.center=false"}


@pytest.mark.slow
def test_this_commit_is_compared_with_itself():
    words = ["game=CartPole", "repeats=2", "learner.batch_size=4", "network.vector_width=8"]
    command = [sys.executable, "-m", "experiments.bench.commits", f"before={runs.ROOT}", *words]
    done = subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["case"] for row in rows] == list(commits.PROGRAMS)
    for row in rows:
        assert row["before"] == row["after"]
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert 0.3 < row["of_least"] < 3  # the same program
