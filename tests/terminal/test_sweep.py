"""Sweeps by launchers of Hydra: every cell is told of, and none is left alone.

The cells are those of `print_config.py`, in processes of their own.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
import runs

from ez_jax.terminal.sweep import Outcome, Sweep

ELSEWHERE = ["joblib", "submitit_local"]
LAUNCHERS = ["basic", *(pytest.param(name, marks=pytest.mark.long) for name in ELSEWHERE)]
JOBS = {"joblib": ["hydra.launcher.n_jobs=2"]}  # on a machine with one core as well


def start(folder, launcher, *words):
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    environment.pop("HYDRA_FULL_ERROR", None)
    words = ["-m", *words, f"hydra/launcher={launcher}", *JOBS.get(launcher, [])]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.print_config", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_there(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_tells_of_every_cell_that_failed_and_runs_the_others(tmp_path, launcher):
    words = ["name=plain,crash", "learner.batch_size=8,many"]
    done = runs.wait(start(tmp_path, launcher, *words))
    assert [line for line in done.stderr.splitlines() if line.startswith("sweep, ")] == [
        "sweep, run 2 (name=plain learner.batch_size=many): exit code 2: "
        "learner.batch_size is 'many': expected a whole number",
        "sweep, run 3 (name=crash learner.batch_size=8): exit code 1: "
        "ZeroDivisionError: the original message",
        "sweep, run 4 (name=crash learner.batch_size=many): exit code 2: "
        "learner.batch_size is 'many': expected a whole number",
    ]
    assert done.returncode == 2  # that of the first
    logs = [path.read_text() for path in tmp_path.rglob("*_log.out")]
    text = "".join([done.stdout, *logs])
    for name in ("plain", "crash"):
        assert text.count(f": runs/CartPole/{name}/seed0\n") == 1


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_without_failures_ends_with_0_and_says_nothing_of_them(tmp_path, launcher):
    done = runs.wait(start(tmp_path, launcher, "seed=0,1"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("launcher", ELSEWHERE)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_has_every_cell_save_wherever_it_runs(tmp_path, launcher, number):
    process = start(tmp_path, launcher, "name=waits", "seed=0,1")
    wait_for(lambda: len(list(tmp_path.glob("begun?"))) == 2)
    others = [int(path.read_text()) for path in tmp_path.glob("begun?")]
    assert len({*others, process.pid}) == 3
    process.send_signal(number)
    done = runs.wait(process)
    assert done.returncode == 130, done.stderr
    assert [path.name for path in sorted(tmp_path.glob("saved?"))] == ["saved0", "saved1"]
    assert "sweep, run 2 (name=waits seed=1): exit code 130" in done.stderr
    wait_for(lambda: not any(map(is_there, others)))


def test_a_cell_that_is_interrupted_ends_the_others(tmp_path):
    done = runs.wait(start(tmp_path, "joblib", "name=waits,default", "seed=7"))
    assert done.returncode == 130, done.stderr


def test_cells_that_have_not_begun_when_a_sweep_is_stopped_do_not_begin(tmp_path):
    done = runs.wait(start(tmp_path, "basic", "seed=7,0,1"))
    assert done.returncode == 130
    assert done.stdout.count("sweep, run") == 1


def test_failures_are_told_in_the_order_of_the_cells(tmp_path):
    sweep = Sweep.begin(tmp_path)
    for number, code in ((11, 1), (2, 2), (3, 0)):
        sweep.note(Outcome(number, code, "why", "seed=0"))
    assert [each.number for each in sweep.failures()] == [2, 11]


def test_cells_save_when_the_command_is_killed(tmp_path):
    process = start(tmp_path, "joblib", "name=waits", "seed=0,1")
    wait_for(lambda: len(list(tmp_path.glob("begun?"))) == 2)
    process.kill()
    wait_for(lambda: len(list(tmp_path.glob("saved?"))) == 2)
    for path in tmp_path.glob("begun?"):  # joblib lets them wait for five minutes
        os.kill(int(path.read_text()), signal.SIGKILL)
    process.communicate()
