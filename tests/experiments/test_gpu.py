"""First light on an accelerator: what is told of it, and all of it in a size for a CPU."""

import dataclasses
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from runs import ROOT

import ez_jax
from experiments.gpu import probe
from experiments.gpu.__main__ import main
from experiments.gpu.rows import Rows
from experiments.gpu.settings import PARTS, SETTINGS, SMALL
from experiments.gpu.traces import summary
from ez_jax.config import presets


def test_a_row_is_on_disk_at_once_and_known_to_the_next_call(tmp_path):
    Rows(tmp_path, 60).add("update", setting="fast", ms=1.0)
    again = Rows(tmp_path, 60)
    assert again.has("update", setting="fast")
    assert not again.has("update", setting="small")
    assert not again.has("part", setting="fast")


def test_a_failure_is_a_row_and_the_others_go_on(tmp_path):
    rows = Rows(tmp_path, 60)
    assert rows.guarded("division", lambda: 1 / 0) is None
    assert rows.guarded("sum", sum, [1, 2]) == 3
    (failed,) = rows.read("failed")
    assert failed["what"] == "division"
    assert "ZeroDivisionError" in failed["error"]


def test_time_that_kernels_share_counts_once():
    found = summary([("gemm_1", 0.0, 10.0), ("gemm_2", 5.0, 12.0), ("copy", 20.0, 21.0)])
    assert (found["launches"], found["span_us"], found["busy_us"]) == (3, 21.0, 13.0)
    assert found["alike"][0] == ["gemm", 17.0]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("changes", [{}, dict(SMALL.changes)])
def test_every_setting_is_one(name, changes):
    preset, own = SETTINGS[name]
    presets.make_config("Breakout", preset, changes={**own, **changes})
    assert set(PARTS[name]) <= {"acting", "targets", "learning"}


def test_an_unknown_setting_is_refused():
    with pytest.raises(SystemExit) as refusal:
        main(["learn", "--setting", "quick"])
    assert refusal.value.code == 2


def test_the_words_of_a_run_may_stand_anywhere(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr("experiments.gpu.learn.learn", lambda *args: told.append(args) or 0)
    assert (
        main(["learn", "--out", str(tmp_path), "seed=1", "--seconds", "9", "learner.start=4"]) == 0
    )
    (_, _, setting, words, _), = told  # fmt: skip
    assert (setting, words) == ("fast", ["seed=1", "learner.start=4"])


def test_the_machine_itself_is_measured(tmp_path):
    rows, sizes = Rows(tmp_path, 60), dataclasses.replace(SMALL, matrix=32, copied=2**10, trips=3)
    probe.ceilings(rows, sizes)
    probe.loops(rows, sizes)
    assert {row["what"] for row in rows.read("ceiling")} >= {"product bfloat16", "copy"}
    assert all(row["ms"] >= row["least_ms"] > 0 for row in rows.read("ceiling"))
    lengths = [(row["length"], row["kernels"]) for row in rows.read("loop")]
    assert sorted(lengths) == [("known", 2), ("known", 16), ("unknown", 2), ("unknown", 16)]


@pytest.mark.slow
def test_it_measures_then_learns_and_goes_on(tmp_path):
    def call(*words):
        command = [sys.executable, "-m", "experiments.gpu", *words, "--small"]
        places = [f"--out={tmp_path}", f"--runs={tmp_path / 'runs'}"]
        done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, [json.loads(row) for row in (tmp_path / "rows.jsonl").open()]

    code, rows = call("measure", "--seconds=900")
    assert code == 0
    assert [row for row in rows if row["kind"] == "failed"] == []
    measured = {(row["setting"], row["part"]) for row in rows if row["kind"] == "part"}
    assert measured >= {("fast", part) for part in PARTS["fast"]}
    (update,) = (r for r in rows if r["kind"] == "update" and r["setting"] == "fast")
    assert update["update_ms"] == pytest.approx(
        update["targets_ms_per_update"] + update["learning_ms"]
    )
    reached = 0
    for _ in range(2):
        code, rows = call("learn", "--seconds=160")
        assert code == 128 + signal.SIGINT
        assert rows[-1]["kind"] == "run"
        now = json.loads((tmp_path / "curve.json").read_text())["curve"][-1]["updates"]
        assert now > reached
        reached = now
    agent = ez_jax.load(tmp_path / "runs" / "fast")
    kept = np.load(tmp_path / "weights0.npz")
    bias = agent.variables["params"]["policy_head"]
    assert sum(kept[name].size for name in kept) >= sum(x.size for x in _leaves(bias))


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)
