"""`plan=true`: what a run would need, how long it would take, refusals; nothing is left behind."""

import dataclasses
import re
import shutil
import tempfile
from types import SimpleNamespace

import flax.struct
import jax
import numpy as np
import pytest
import runs
from print_config import command

from ez_jax import train
from ez_jax.agent.replay.ring import init_replay
from ez_jax.config import BadInput, Config, override, validate
from ez_jax.config.errors import Fault
from ez_jax.config.presets import make_config
from ez_jax.structs import NEVER
from ez_jax.system import exits, free_memory
from ez_jax.system.free_memory import Available
from ez_jax.terminal import arguments
from ez_jax.training import run
from ez_jax.training.planning import memory, needs, preview, rehearsal
from ez_jax.training.planning.rehearsal import Rates

pytestmark = pytest.mark.usefixtures("quick_compiling")

ROWS = ("game", "memory", "folder", "disk", "largest")
ROWS += ("compiling", "acting", "learning", "evaluation", "whole run")
RATES = Rates(
    compiling={"start": 1.0, "acting": 2.0, "learning": 3.0, "evaluation": 4.0},
    decision=0.5,
    update=2.0,
    evaluation=0.25,
    batch_size=4,
    capacity=100,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny run that was never made: configuration, model, memory."""
    config = runs.config(tmp_path_factory.mktemp("plan") / "run")
    model = preview.model_of(config)
    return SimpleNamespace(config=config, model=model, needs=needs.memory_needs(config, model))


# The command line.


@pytest.mark.parametrize(
    ("words", "asked", "others"),
    [
        (["plan=true", "seed=1"], True, ["seed=1"]),
        (["seed=1", "+plan=True"], True, ["seed=1"]),
        (["++plan=TRUE", "plan=false"], False, []),
        (["game=Pong"], False, ["game=Pong"]),
    ],
)
def test_plan_is_a_word_of_the_command_and_no_setting(words, asked, others):
    taken, left = arguments.take(words, arguments.OWN)
    assert ({**arguments.OWN, **taken}, left) == ({"plan": asked, "seeds": 1}, others)
    assert "plan" not in {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize("word", ["plan=maybe", "plan=1", "plan=", "plan=true,false"])
def test_a_plan_is_true_or_false(word):
    with pytest.raises(BadInput, match="expected true or false"):
        arguments.take([word], arguments.OWN)


def test_a_misspelt_plan_is_refused_with_the_right_word():
    with pytest.raises(BadInput, match="unknown key 'plam'; did you mean plan"):
        arguments.parse(["plam=true"])


def test_a_sweep_is_planned_run_by_run_and_leaves_no_record(tmp_path):
    done = command("-m", "plan=true", "seed=3,4", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall("plan of seed .", done.stdout) == ["plan of seed 3", "plan of seed 4"]
    assert list(tmp_path.iterdir()) == []


# What is said.


class Group(flax.struct.PyTreeNode, kw_only=True):
    """What of the prepared updates is looked at."""

    batch: object = None
    index: object = None


def compile_nothing(monkeypatch):
    """A run whose steps do nothing, so that they are compiled at once."""

    def make_act(*_):
        return jax.jit(
            lambda variables, replay, sums, frames, step, *_: (
                step.is_last * 1,
                replay,
                sums,
                frames,
            )
        )

    def make_prepare(*_):
        def prepare(target, replay, sums, key, updates, drawn):
            return Group(batch=Group(index=updates)), replay, sums

        return jax.jit(prepare)

    def make_learn(*_):
        return jax.jit(lambda train, replay, sums, key, group, i: (train, replay, sums))

    monkeypatch.setattr(run, "make_act", make_act)
    monkeypatch.setattr(run, "make_prepare", make_prepare)
    monkeypatch.setattr(run, "make_learn", make_learn)


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_fits_is_told_in_full_and_leaves_nothing(
    is_whole, tmp_path, capsys, monkeypatch
):
    if not is_whole:
        compile_nothing(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(rehearsal, "SECONDS", dict.fromkeys(rehearsal.SECONDS, 0.01))
    assert train.plan(runs.config(tmp_path / "run")) == exits.DONE
    assert list(tmp_path.iterdir()) == []
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert max(map(len, lines)) <= 100
    positions = [next(i for i, x in enumerate(lines) if x.startswith(name)) for name in ROWS]
    assert positions == sorted(positions)


def test_a_game_that_fails_while_it_is_planned_leaves_no_bundle_and_names_none(capsys):
    config = make_config("failing_games:QuitsWhenMade-v0", "small")
    with pytest.raises(Fault, match="ended the process"), rehearsal._opened(config):
        pass
    assert capsys.readouterr() == ("", "")


def test_the_whole_run_is_the_sum_of_its_parts():
    changes = {"actor.num_envs": 4, "eval.episodes": 3, "eval.num_envs": 2, "eval.every": 50}
    config = runs.config("run", {**changes, "updates_per_step": 0.5, "final_updates": 10})
    updates = (runs.STEPS - runs.START) * 0.5 + 10
    evaluations = 4  # of 160 steps and the worth of 20 more: at 50, 100, 150 and 180
    games = evaluations * 2 * config.env.eval_max_episode_steps * 0.25
    parts = {"compiling": 10.0, "acting": 40 * 0.5, "learning": updates * 2.0, "evaluation": games}
    assert preview.seconds(config, RATES) == parts
    whole = preview.time_rows(config, RATES)["whole run"]
    fewest, most = sum(parts.values()) - games, sum(parts.values())
    assert whole.startswith(
        f"{preview.duration(fewest)} without evaluation, at most {preview.duration(most)} with it"
    )


def test_what_was_not_measured_is_said():
    config = runs.config("run")
    assert preview.caveats(config, RATES, load=0.1, cores=2) == {}
    smaller = dataclasses.replace(RATES, batch_size=2, capacity=50)
    rows = preview.caveats(config, smaller, load=4.0, cores=2)
    told = rows["estimated"]
    assert "2 were measured" in told
    assert "a replay of 50 agent steps" in told
    assert "load 4.0 on 2 cores" in rows["busy"]
    assert set(preview.caveats(config, RATES, load=4.0, cores=2)) == {"busy"}


# What is measured.


def test_what_the_first_call_takes_longer_is_compiling():
    now = 0.0

    def work(times):
        nonlocal now
        now += times * 0.5 + (7.0 if now == 0.0 else 0.0)
        return 2 * times  # a group of two

    timing = rehearsal._repeat(work, 5.0, clock=lambda: now)
    assert timing == rehearsal.Timing(first=7.0, each=0.25)
    assert now == 7.0 + 0.5 * (1 + 1 + 10)


def test_a_batch_that_takes_a_cpu_too_long_is_made_smaller(tiny, monkeypatch):
    flops = rehearsal.CPU_FLOP_PER_S * 3 * rehearsal.LONG
    monkeypatch.setattr(rehearsal, "update_flops", lambda *_: flops)
    monkeypatch.setattr(rehearsal.os, "cpu_count", lambda: 1)
    config = override(tiny.config, {"learner.batch_size": 64})
    assert rehearsal.measured_batch(config, tiny.model, "cpu") == 16
    assert rehearsal.measured_batch(config, tiny.model, "gpu") == 64


def test_the_share_of_old_policies_is_that_of_a_long_run(tiny):
    ring = init_replay(tiny.model.spec, rows=500, num_envs=4)
    ring = rehearsal._as_full(ring, jax.random.key(0), np.int32(7), share=0.3)
    assert np.mean(ring.rows.searched == NEVER) == pytest.approx(0.3, abs=0.05)
    assert ring.count >= 500
    config = override(tiny.config, {"reanalyse.mode": "buffer", "replay.capacity": 10**6})
    positions = config.learner.batch_size * 2
    assert needs.searched_share(config) == pytest.approx(
        min(1.0, runs.STEPS / config.reanalyse.max_age / positions)
    ), "of what is played, not of what there is room for"


# What fits.


def test_needs_grow_with_the_replay_and_what_is_kept(tiny):
    larger = tiny.needs.at(capacity=10 * tiny.needs.sizes.capacity)
    assert larger.device > tiny.needs.device
    assert larger.host > tiny.needs.host
    before = needs.disk_bytes(tiny.config, tiny.needs)
    assert needs.disk_bytes(tiny.config, larger) > before
    kept = override(tiny.config, {"checkpoint.keep": 3})
    assert needs.disk_bytes(kept, tiny.needs) == before + needs.checkpoint_bytes(tiny.needs)


def test_memory_of_a_device_of_its_own_is_told_apart_from_that_of_the_host(tiny, tmp_path):
    available = Available(device=8 * 10**9, host=3 * 10**9, is_shared=False)
    rows = preview.need_rows(tiny.config, tiny.needs, available, tmp_path / "run")
    assert "of 8 GB available" in rows["memory"]
    assert "of 3 GB available" in rows["host"]


@pytest.mark.parametrize("capacity", [10**4, 10**8])
@pytest.mark.parametrize("where", ["device", "host", "auto"])
def test_frames_are_planned_for_where_they_will_lie(where, capacity, tiny, tmp_path, monkeypatch):
    available = Available(device=10**9, host=10**11, is_shared=False)
    monkeypatch.setattr(free_memory, "available_memory", lambda: available)
    config = override(tiny.config, {"replay.memory": where, "replay.capacity": capacity})
    planned = needs.memory_needs(config, tiny.model)
    assert planned.sizes.on_host == (where == "host" or (where == "auto" and capacity == 10**8))
    rows = preview.need_rows(config, planned, available, tmp_path / "run")
    assert ("replay without frames" in rows["memory"]) == planned.sizes.on_host
    assert ("of it frames of the replay" in rows["host"]) == planned.sizes.on_host


def test_in_one_memory_frames_stay_with_the_replay(tiny, monkeypatch):
    available = Available(device=10**9, host=10**9, is_shared=True)
    monkeypatch.setattr(free_memory, "available_memory", lambda: available)
    config = override(tiny.config, {"replay.memory": "auto", "replay.capacity": 10**8})
    assert not needs.memory_needs(config, tiny.model).sizes.on_host


@pytest.mark.long
def test_a_large_run_is_planned_for_a_device_that_its_replay_does_not_fit(monkeypatch):
    available = Available(device=80 * 10**9, host=200 * 10**9, is_shared=False)
    monkeypatch.setattr(free_memory, "available_memory", lambda: available)
    config = make_config("Breakout", "muzero_large")
    model = preview.model_of(config)
    planned = needs.memory_needs(config, model)
    frames = config.replay.capacity * 96 * 96 * 3
    assert planned.sizes.on_host
    assert planned.frames_on_host == frames
    assert planned.host > frames > available.device / 3
    with pytest.raises(BadInput, match=r"replay.capacity=1000000 learner.batch_size=\d+ would fit"):
        memory.check(planned, available)


@pytest.mark.parametrize("limit", [0, 1, 2, 63, 64, 65])
@pytest.mark.parametrize("most", [0, 1, 5, 64, 1000])
def test_the_largest_number_that_is_possible(most, limit):
    assert memory.largest(lambda number: number <= most, limit) == min(most, limit)


def test_the_largest_settings_fit_and_little_more_does_not(tiny, monkeypatch):
    free = 10**12  # disk; memory is the limit
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    config = override(tiny.config, {"learner.start": 10**6, "replay.capacity": 10**6})
    config = validate(override(config, {"total_agent_steps": 10**6}))
    planned = tiny.needs.at(capacity=config.replay.capacity)
    available = Available(device=10**9, host=10**9, is_shared=True)
    folder = preview.configs.run_folder(config)
    told = preview.largest_settings(config, tiny.model, planned, available, folder)
    found = {key: int(re.search(rf"{key}=(\d+)", told)[1]) for key in KEYS}
    for key, value in found.items():
        for factor, fits in ((1.0, True), (1.02, False)):
            changed = override(config, {key: int(value * factor)})
            larger = dataclasses.replace(planned, sizes=needs.sizes(changed, tiny.model.spec))
            assert memory.fits(larger, available) == fits
    free = 10**8  # and now the disk
    told = preview.largest_settings(config, tiny.model, planned, available, folder)
    assert int(re.search(r"capacity=(\d+)", told)[1]) <= found["replay.capacity"]


KEYS = ("replay.capacity", "learner.batch_size")


# Refused.


def refusal(action, capsys):
    capsys.readouterr()
    assert exits.guarded(action) == exits.BAD_INPUT
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1, "one sentence"
    return told


def test_more_memory_than_there_is_is_refused_and_no_folder_made(tmp_path, capsys):
    config = runs.config(tmp_path / "run", {"replay.capacity": 10**11})
    told = refusal(lambda: train.plan(config), capsys)
    assert "memory" in told.out
    assert "measuring" not in told.out
    assert re.search(r"replay.capacity=\d+ would fit", told.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", [train.plan, train.train])
def test_more_disk_than_there_is_is_refused_before_the_start(
    action, tiny, tmp_path, capsys, monkeypatch
):
    free = needs.LOG_BYTES + 10**6
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    config = runs.config(tmp_path / "run", {"replay.capacity": 10**6})
    told = refusal(lambda: action(config), capsys)
    assert "65 MB are free; free some space or choose another run_dir=" in told.err
    capacity = int(re.search(r"replay.capacity=(\d+) would fit", told.err)[1])
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    needs.check_disk(config, tiny.needs.at(capacity=capacity), tmp_path / "run")


def test_what_a_resumed_run_has_written_counts_as_room(tiny, tmp_path, monkeypatch):
    need = needs.disk_bytes(tiny.config, tiny.needs)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need - 1_000))
    with pytest.raises(BadInput, match="run_dir="):
        needs.check_disk(tiny.config, tiny.needs, tmp_path)
    (tmp_path / "replay").write_bytes(bytes(1_000))
    needs.check_disk(tiny.config, tiny.needs, tmp_path)


def test_a_folder_that_could_not_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    told = refusal(lambda: train.plan(runs.config(tmp_path / "file" / "run")), capsys)
    assert "cannot be written" in told.err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"preset": "continuous"}, ""),
        ({"preset": "small"}, "considers only 4 of 16 candidates; preset=continuous"),
        (
            {"preset": "continuous", "changes": {"search.num_simulations": 16}},
            "16 simulations visit 16 candidates at most once",
        ),
    ],
)
def test_a_search_that_cannot_look_further_than_one_step_is_told(settings, told):
    chosen, spec = make_config("toy_envs:ToyAim-v0", **settings), SimpleNamespace(num_actions=0)
    spec.is_continuous = True
    found = needs.candidates_warnings(chosen, SimpleNamespace(spec=spec))
    assert len(found) == bool(told)
    assert told in "".join(found)
