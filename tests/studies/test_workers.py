"""Workers of a study: every run once, whoever works on it and whatever ends it.

The runs are stand-ins (`stand_in_run.py`), in processes of their own as the real ones.
"""

import collections
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import runs
import stand_in_run

from ez_jax import ablate
from ez_jax.studies import workers
from ez_jax.studies.ledger import Ledger, read_attempt
from ez_jax.studies.status import arm_statuses
from ez_jax.studies.study import Request
from ez_jax.studies.workers import Orders, Worker
from ez_jax.terminal.progress import Progress

COMMAND = (sys.executable, stand_in_run.__file__)


def create(folder, seeds=((0, 1),), games=("CartPole",), switches=("consistency",)):
    request = Request("leave_one_out", games, switches, seeds, ())
    return Ledger.create(folder, request, ablate._make_study)


def work(ledger, invocation="one", **orders):
    return Worker(ledger, Orders(invocation, command=COMMAND, **orders), Progress()).work()


def journal(folder):
    there = folder / "journal"
    lines = there.read_text().splitlines() if there.exists() else []
    return [tuple(line.split()[:3]) for line in lines]


def counts(ledger):
    found = collections.Counter()
    for row in arm_statuses(ledger):
        found.update(+row.seeds)
    return dict(found)


def crowd(folder, count):
    """Workers in other processes; the process that waits for them, and their numbers."""
    environment = {**os.environ, "PYTHONPATH": f"{runs.ROOT}:{runs.ROOT / 'tests'}"}
    environment["PYTHONWARNINGS"] = "ignore"  # of JAX, about the fork
    process = subprocess.Popen(
        [sys.executable, stand_in_run.__file__, "crowd", str(folder), str(count)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Workers may have told of their first runs already.
    line = next(line for line in process.stdout if line[0].isdecimal())
    return process, [int(word) for word in line.split()]


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_every_run_is_trained_once_in_order_and_then_none(tmp_path, capsys):
    ledger = create(tmp_path)
    assert work(ledger) is False
    arms = ["baseline", "no_consistency"]
    expected = [(what, arm, seed) for seed in "01" for arm in arms for what in ("begin", "end")]
    assert journal(tmp_path) == expected
    assert "CartPole no_consistency seed 1: 8 (" in capsys.readouterr().out
    assert work(ledger, "two") is False
    assert journal(tmp_path) == expected
    assert counts(ledger) == {"done": 4}


@pytest.mark.long
@pytest.mark.parametrize("locks", [True, False])
def test_of_workers_that_race_one_is_killed_and_none_is_ever_trained_twice_at_once(tmp_path, locks):
    ledger = create(tmp_path, seeds=((0, 1, 2),))
    if not locks:
        (tmp_path / "no_locks").touch()
    (tmp_path / "hold").touch()
    process, children = crowd(tmp_path, 3)
    wait_for(lambda: counts(ledger) == {"running": 3, "waiting": 3})
    wait_for(lambda: len(journal(tmp_path)) == 3)
    os.kill(children[0], signal.SIGKILL)
    # Its run is asked to stop, and holds the lock until it has.
    wait_for(lambda: journal(tmp_path)[3:4])
    what, arm, seed = journal(tmp_path)[3]
    assert what == "stop"
    wait_for(lambda: counts(ledger) == {"running": 2, "waiting": 4})
    (tmp_path / "hold").unlink()
    runs.wait(process)
    assert counts(ledger) == {"done": 6}
    told = collections.Counter(journal(tmp_path))
    arms = ("baseline", "no_consistency")
    every = [(arm, str(seed)) for arm in arms for seed in range(3)]
    assert told == collections.Counter(
        [("begin", *one) for one in every]
        + [("end", *one) for one in every]
        + [("stop", arm, seed), ("begin", arm, seed)]
    )


@pytest.mark.parametrize("locks", [pytest.param(True, marks=pytest.mark.long), False])
def test_many_workers_of_unrelated_processes_train_every_run_once(tmp_path, locks):
    ledger = create(tmp_path, seeds=(tuple(range(10)),))
    if not locks:
        (tmp_path / "no_locks").touch()
    (tmp_path / "hold").touch()
    processes = [crowd(tmp_path, 4)[0] for _ in range(3)]
    (tmp_path / "hold").unlink()
    assert [runs.wait(process).returncode for process in processes] == [0] * 3
    every = [(arm, str(seed)) for arm in ("baseline", "no_consistency") for seed in range(10)]
    expected = [(what, *one) for what in ("begin", "end") for one in every]
    assert sorted(journal(tmp_path)) == sorted(expected)
    assert counts(ledger) == {"done": 20}
    assert list(tmp_path.glob("cells/**/*.lock*")) == []


def test_a_signal_stops_the_run_which_is_to_be_continued(tmp_path):
    ledger = create(tmp_path)
    (tmp_path / "hold").touch()

    def ask():
        wait_for((tmp_path / "journal").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        asked = executor.submit(ask)
        assert work(ledger) is True
        asked.result()
    assert journal(tmp_path) == [("begin", "baseline", "0"), ("stop", "baseline", "0")]
    assert read_attempt(ledger.runs()[0]).status == "interrupted"
    assert counts(ledger) == {"waiting": 4}
    (tmp_path / "hold").unlink()
    assert work(ledger) is False
    assert counts(ledger) == {"done": 4}


def test_a_failing_run_is_tried_again_and_what_it_said_is_kept(tmp_path, capsys):
    ledger = create(tmp_path, seeds=((0,),))
    (tmp_path / "fail_baseline").write_text("11")
    work(ledger, retries=2)
    begun = [line for line in journal(tmp_path) if line[0] == "begin"]
    assert collections.Counter(begun) == {
        ("begin", "baseline", "0"): 3,
        ("begin", "no_consistency", "0"): 1,
    }
    assert counts(ledger) == {"done": 2}
    told = capsys.readouterr().out
    assert told.count("CartPole baseline seed 0 failed: exit code 1: the last line (") == 2
    log = ledger.runs()[0].file("log")
    assert log.read_text() == "one line\nthe last line\n" * 2


@pytest.mark.parametrize(
    ("failures", "begun", "told"),
    [("1" * 9, 2, "exit code 1: the last line"), ("2", 1, "exit code 2: the last line")],
)
def test_a_run_is_given_up_until_the_next_invocation(tmp_path, failures, begun, told):
    ledger = create(tmp_path, seeds=((0,),))
    (tmp_path / "fail_baseline").write_text(failures)
    work(ledger, retries=1)
    assert journal(tmp_path).count(("begin", "baseline", "0")) == begun
    assert counts(ledger) == {"failed": 1, "done": 1}
    attempt = read_attempt(ledger.runs()[0])
    assert attempt.reason == told
    assert attempt.output == ("one line", "the last line") or attempt.output[-1] == "the last line"
    (tmp_path / "fail_baseline").unlink()
    work(ledger, "two", retries=1)
    assert counts(ledger) == {"done": 2}


def test_fail_fast_stops_at_the_first_failure(tmp_path):
    ledger = create(tmp_path, seeds=((0,),))
    (tmp_path / "fail_baseline").write_text("1")
    work(ledger, fail_fast=True)
    assert journal(tmp_path) == [("begin", "baseline", "0")]
    assert counts(ledger) == {"failed": 1, "waiting": 1}


def test_a_run_killed_for_memory_is_only_its_own_failure(tmp_path):
    ledger = create(tmp_path, seeds=((0,),))
    command = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    Worker(ledger, Orders("one", retries=0, command=command), Progress()).work()
    reasons = {read_attempt(run).reason for run in ledger.runs()}
    assert reasons == {"killed by SIGKILL, probably out of memory"}


def test_seeds_of_a_pack_are_one_run_and_the_missing_ones_are_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "runs_on_device", lambda game, backend: True)
    ledger = create(tmp_path, seeds=((0, 1, 2),))
    assert [str(run) for run in ledger.runs()] == [
        "CartPole baseline seeds 0, 1, 2",
        "CartPole no_consistency seeds 0, 1, 2",
    ]
    baseline, _ = ledger.runs()
    stand_in_run.complete(_plain(baseline.configs()[1]))
    work(ledger)
    begun = [line[1:] for line in journal(tmp_path) if line[0] == "begin"]
    assert begun == [
        *(("baseline", seed) for seed in "02"),
        *(("no_consistency", seed) for seed in "012"),
    ]
    assert counts(ledger) == {"done": 6}


def _plain(chosen):
    from ez_jax.config import to_dict

    return to_dict(chosen)


@pytest.mark.parametrize(
    ("launcher", "count"),
    [
        ("joblib", 1),
        pytest.param("joblib", 2, marks=pytest.mark.slow),
        pytest.param("submitit_local", 2, marks=pytest.mark.long),
    ],
)
def test_launchers_of_hydra_start_workers_of_the_ledger(tmp_path, monkeypatch, launcher, count):
    ledger = create(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablate"])
    monkeypatch.setenv("PYTHONPATH", f"{runs.ROOT}:{runs.ROOT / 'tests'}")
    orders = Orders("one", command=COMMAND)
    (tmp_path / "hold").touch()  # until each worker has a run

    def let_go():
        wait_for(lambda: len(journal(tmp_path)) == count)
        (tmp_path / "hold").unlink()

    words = [f"hydra/launcher={launcher}"]
    words += [f"hydra.launcher.n_jobs={count}"] if launcher == "joblib" else []
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(let_go)
        assert workers.launch(ledger, orders, count, words) is False
        waiting.result()
    lines = (tmp_path / "journal").read_text().splitlines()
    parents = {line.split()[3] for line in lines}
    assert len(parents) == count
    assert str(os.getpid()) not in parents or count == 1
    assert collections.Counter(journal(tmp_path)) == {
        (what, arm, seed): 1
        for what in ("begin", "end")
        for arm in ("baseline", "no_consistency")
        for seed in "01"
    }
    assert counts(ledger) == {"done": 4}


def test_every_way_to_end_has_its_words():
    assert workers._how(-11) == "killed by SIGSEGV"
    assert workers._how(130) == "stopped from outside"
    assert workers._how(0) == "it ended without being complete"
    assert re.fullmatch(r"exit code \d+", workers._how(3))
