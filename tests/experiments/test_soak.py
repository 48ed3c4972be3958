"""The soak itself: a few minutes of its hour, and that it sees what it has to see."""

import json
import random

import pytest

from experiments import soak
from ez_jax.system import exits


@pytest.mark.slow
def test_a_few_minutes_of_accidents_cost_nothing(capsys):
    assert soak.main(["seconds=180", "seed=0"]) == exits.DONE, capsys.readouterr().out


def test_a_case_follows_from_its_numbers(tmp_path):
    one, other = (soak.Case(3, 5, tmp_path) for _ in range(2))
    assert (one.trouble, one.words, one.run_dir) == (other.trouble, other.words, other.run_dir)
    drawn = {soak.Case(3, number, tmp_path).trouble for number in range(80)}
    assert drawn == set(soak.TROUBLES)


def test_what_is_not_kept_is_told(tmp_path, monkeypatch, capsys):
    def broken(case):
        case.expect(False, "a promise")

    monkeypatch.setattr(soak.Case, "run", broken)
    clock = iter(range(100))
    monkeypatch.setattr(soak.time, "monotonic", lambda: next(clock))
    assert soak.main(["seconds=2", "seed=1"]) == exits.FAILED
    told = capsys.readouterr().out
    assert "a promise" in told
    assert told.splitlines()[-1].endswith(" failed")


def test_curves_are_compared_without_their_seconds(tmp_path):
    lines = [{"agent_steps": 20, "seconds": random.random(), "loss": 1.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert soak.curve(tmp_path) == [{"agent_steps": 20, "loss": 1.5}]
    assert soak.curve(tmp_path / "nowhere") == []
