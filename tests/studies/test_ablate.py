"""The command for studies: what it asks of the ledger, says, refuses, and how it ends."""

import functools
import json
import re
import signal
import sys
import time

import pytest
import runs
from test_workers import COMMAND, counts, journal

from ez_jax import ablate
from ez_jax.studies import run_process, workers
from ez_jax.studies.ledger import Ledger
from ez_jax.system import exits
from ez_jax.terminal import launch

STUDY = ["+game=CartPole", "switches=consistency", "seeds=2"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command in a folder of its own, with stand-ins for runs: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablate, "Orders", functools.partial(workers.Orders, command=COMMAND))

    def run(*words):
        code = exits.guarded(lambda: ablate.main(words))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_study_ends_with_its_scores_and_what_to_type_next(command, tmp_path):
    code, told, _ = command(*STUDY)
    assert code == 0
    folder = tmp_path / "runs" / "ablations" / "leave_one_out"
    lines = told.splitlines()
    assert re.fullmatch(r"done in \d+ s", lines.pop(-2))
    assert lines[-4:] == [
        "game      arm             seeds  mean score     std  against baseline  time",
        "CartPole  baseline            2        10.5  0.7071                     4 s",
        "          no_consistency      2         7.5  0.7071                -3   4 s",
        f"next: python -m ez_jax.report {folder}",
    ]
    assert "left out" not in told
    # Again, without the words, and with more: nothing is run twice.
    before = journal(folder)
    assert command("name=leave_one_out")[0] == 0
    assert journal(folder) == before
    code, told, _ = command("game=cartpole", "switches=consistency,augmentation", "seeds=3")
    assert code == 0
    assert "warning: left out of CartPole: augmentation: only images of" in told
    assert journal(folder)[: len(before)] == before
    assert len(journal(folder)) == 2 * 6
    assert sorted(path.name for path in folder.iterdir()) == [
        "ablation.json", "cells", "journal", "runs",
    ]  # fmt: skip


def test_a_failure_is_told_and_the_status_shows_it(command, tmp_path):
    (tmp_path / "fail_baseline").write_text("2")
    code, told, _ = command(*STUDY, f"dir={tmp_path}", "retries=0", "fail_fast=true")
    assert code == 1
    assert "not everything is done; the same command resumes it" in told
    code, told, _ = command(f"dir={tmp_path}", "status=true")
    assert code == 0
    lines = told.splitlines()
    assert lines[:3] == [
        "game      arm             done  running  failed  waiting  mean score  time",
        "CartPole  baseline                            1        1                  ",
        "          no_consistency                               2                  ",
    ]
    assert lines[3].startswith("warning: CartPole baseline seed 0: exit code 2: the last line (")
    assert command(*STUDY, f"dir={tmp_path}")[0] == 0
    _, told, _ = command(f"dir={tmp_path}", "status=true")
    assert "baseline           2                                  10.5   4 s" in told


def test_values_of_any_key_are_swept(command, tmp_path):
    words = ["learner.learning_rate=0.001,0.003", "search.num_simulations=range(4,6)", "seeds=[3]"]
    code, told, error = command(*words, f"dir={tmp_path}")
    assert code == 0, told + error
    arms = [(made.config.name, *made.seeds) for made in Ledger.open(tmp_path).runs()]
    assert arms == [
        (f"learning_rate-{rate}_search.num_simulations-{number}", 3)
        for rate in ("0.001", "0.003")
        for number in (4, 5)
    ]
    assert counts(Ledger.open(tmp_path)) == {"done": 4}


def test_what_every_run_gets_and_the_presets_of_a_game_reach_the_runs(command, tmp_path):
    words = ["game=CartPole,Catch", "total_agent_steps=600", "+ablation=no_value_prefix"]
    assert command(*words, "switches=consistency", "seeds=1", f"dir={tmp_path}")[0] == 0
    for made in Ledger.open(tmp_path).runs():
        content = json.loads(made.file("run.json").read_text())
        (given,) = content["configs"]
        assert given["total_agent_steps"] == 600
        assert given["value_prefix"] is False
        assert given["targets"]["td_steps"] == {"CartPole": 20, "Catch": 10}[given["game"]]
        assert given["run_dir"] == str(tmp_path / "runs" / given["game"] / given["name"] / "seed0")
        assert run_process.read(made.file("run.json")) == run_process.Job(
            made.configs(), together=False
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sedds=3"], "unknown key 'sedds'; did you mean seeds?"),
        (["seed=3"], "write seeds=5, or seeds=[3,7]"),
        (["seeds=0"], "it must lie between 1 and 10,000"),
        (["seeds=few"], "write seeds=5, or seeds=[3,7]"),
        (["run_dir=x"], "set that with dir="),
        (["design=leave_one"], "unknown design 'leave_one'; did you mean leave_one_out?"),
        (["design=sweep"], "a sweep needs several values"),
        (["switches=consistancy"], "unknown switch 'consistancy'; did you mean consistency?"),
        (["learner.batchsize=3"], "did you mean learner.batch_size?"),
        (["learner.batch_size=0"], "learner.batch_size is 0: it must be at least 1"),
        (["learner.learning_rate=interval(0,1)"], "does not list its values"),
        (["ablation=glob(no_*)"], "does not list its values"),
        (["game=Cartpoel"], "did you mean CartPole"),
        (["consistency"], "cannot read 'consistency'"),
        (["-m"], "'-m' is not needed here"),
        (["workers=3"], "write workers=4 hydra/launcher=joblib"),
        (["hydra/launcher=joblib"], "write workers=4 hydra/launcher=joblib"),
        (["hydra.sweep.dir=x"], "write workers=4 hydra/launcher=joblib"),
        (["retries=-1"], "must lie between 0 and"),
        (["status=maybe"], "expected true or false"),
        (["status=true", "name=none"], "has no study: ablation.json: No such file"),
        (["switches=augmentation"], "there is nothing to compare in CartPole (augmentation: only"),
        (["workers=1", "hydra/launcher=jobslib"], "jobslib"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence_and_nothing_is_run(command, tmp_path, words, told):
    code, _, error = command(*words)
    assert code == 2
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("journal"))


def test_a_pack_is_trained_by_one_call(tmp_path, monkeypatch):
    calls = []
    together = type(sys)("ez_jax.training.vmapped")
    together.train_together = lambda configs: calls.append(list(configs)) or 0
    monkeypatch.setitem(sys.modules, "ez_jax.training.vmapped", together)
    pack = [runs.config(f"seed{seed}", {"seed": seed}) for seed in range(3)]
    path = tmp_path / "seeds0-2.run.json"
    run_process.Job(pack, together=True).write(path)
    assert run_process.run(run_process.read(path)) == 0
    assert calls == [pack]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is damaged"),
        ('{"configs": [], "together": true}', "has no configurations"),
        ('{"configs": [{}, {}], "together": false}', "has no configurations"),
        ('{"configs": [{"lerner": {}}], "together": true}', "unknown key 'lerner'"),
    ],
)
def test_a_file_of_a_run_that_cannot_be_read_is_told(tmp_path, text, told):
    path = tmp_path / "seed0.run.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(launch.BadInput, match=told):
        run_process.read(path)


@pytest.mark.slow
def test_a_real_study_that_is_stopped_goes_on_in_the_middle_of_its_run(tmp_path):
    settings = [f"{key}={value}" for key, value in runs.SETTINGS.items()]
    words = [*settings, "total_agent_steps=600", "checkpoint.minutes=0", "switches=consistency"]
    words += ["seeds=1", f"dir={tmp_path}"]
    process = runs.start("ez_jax.ablate", *words)
    metrics = tmp_path / "runs" / "CartPole" / "baseline" / "seed0" / "metrics.jsonl"
    until = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    stopped = runs.wait(process)
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    assert "CartPole baseline seed 0: stopped, to be continued" in stopped.stdout
    ledger = Ledger.open(tmp_path)
    assert counts(ledger) == {"waiting": 2}
    done = runs.wait(runs.start("ez_jax.ablate", *words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(ledger) == {"done": 2}
    log = ledger.runs()[0].file("log").read_text()
    assert "resumed at" in log
    assert log.count("done: 600 agent steps") == 1
