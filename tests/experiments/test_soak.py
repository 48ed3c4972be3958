"""The soak itself: a few minutes of its hour, and that it sees what it has to see."""

import json
import os
import random
import subprocess
import sys

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


WRITES = """
import os, sys, time
for _ in range(200):
    try:
        with open(sys.argv[1], "ab", 0) as file:
            file.write(bytes(2**16))
    except OSError as error:
        sys.exit({words})
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("words", "failures"), [("f'error: {error}'", 0), ("f'{error}'", 1)])
@pytest.mark.parametrize("trouble", ["full disk", "largest file"])
def test_what_is_full_has_to_be_told(tmp_path, monkeypatch, trouble, words, failures):
    if trouble == "full disk" and not may_mount(tmp_path):
        pytest.skip("this user may not mount a disk")

    def train(case, run_dir, *more, after=None):
        code = WRITES.replace("{words}", words)
        command = [sys.executable, "-c", code, str(run_dir.parent / "written")]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, preexec_fn=after)

    monkeypatch.setattr(soak.Case, "train", train)
    case = soak.Case(3, 5, tmp_path)
    case.trouble = trouble
    case.run_dir.parent.mkdir()
    with case.disk():
        assert os.path.ismount(case.run_dir.parent) == (trouble == "full disk")
        {"full disk": case.fill, "largest file": case.limit}[trouble](0.5)
    assert len(case.failures) == failures
    assert not os.path.ismount(case.run_dir.parent)


def may_mount(folder):
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", os.fspath(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        return False
    subprocess.run(["umount", os.fspath(folder)], check=True)
    return True


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
