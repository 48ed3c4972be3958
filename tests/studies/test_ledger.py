"""The ledger: what is done is read from run folders; a study is extended, never mixed."""

import json
import shutil
from pathlib import Path

import made_runs
import pytest
import runs
import stand_in_run
from test_workers import create

from ez_jax import ablate, config
from ez_jax.config import BadInput, to_dict
from ez_jax.config.presets import make_config
from ez_jax.storage.metrics import read_metrics
from ez_jax.studies import study
from ez_jax.studies.designs import Arm, Comparison
from ez_jax.studies.ledger import (
    Attempt,
    Ledger,
    StudyRun,
    final_score,
    how_far,
    read_attempt,
    seconds_spent,
    write_attempt,
)
from ez_jax.studies.study import Request, Study

REQUEST = Request("leave_one_out", ("CartPole",), ("consistency",), ((0, 1),), ())
ARMS = ["baseline", "no_consistency"]


def seeds(ledger):
    return {(run.config.game, run.config.name, seed) for run in ledger.runs() for seed in run.seeds}


def extend(folder, **changes):
    request = Request(**{**vars(REQUEST), **changes})
    return Ledger.create(folder, request, ablate._make_study)


@pytest.fixture
def real(tmp_path, finished):
    """A ledger whose only done run is a real run."""
    chosen = config.override(runs.config(finished.folder), {"run_dir": ""})
    arms = tuple(Arm(name, {}, ARMS[0]) for name in ARMS)
    whole = Study(REQUEST, {"CartPole": Comparison(chosen, arms, ())}, frozenset())
    study.write(tmp_path, whole)
    ledger = Ledger.open(tmp_path)
    shutil.copytree(finished.folder, ledger.runs()[0].configs()[0].run_dir)
    return ledger


def test_a_run_that_is_over_is_done_whatever_the_states_say(real):
    first, *others = real.runs()
    assert real.missing(first) == ()
    assert [real.missing(run) for run in others] == [(0,), (1,), (1,)]
    (chosen,) = first.configs()
    assert final_score(chosen) == read_metrics(chosen.run_dir)[-1]["eval/return_mean"]
    assert seconds_spent(chosen) > 0
    assert seconds_spent(others[0].configs()[0]) == 0


@pytest.mark.parametrize("damage", ["no score", "no checkpoint", "damaged", "longer", "another"])
def test_a_run_that_is_not_at_its_end_is_not_done(real, damage):
    run = real.runs()[0]
    (chosen,) = run.configs()
    folder = runs.Path(chosen.run_dir)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    newest = folder / "checkpoints" / str(runs.latest_checkpoint(folder))
    if damage == "no score":
        metrics.write_text("".join(lines[:-1]))
    elif damage == "damaged":
        metrics.write_text("".join([*lines[:-1], "{}\n"]))
    elif damage == "no checkpoint":
        shutil.rmtree(newest)
    else:
        change = {"final_updates": 7} if damage == "longer" else {"learner.learning_rate": 1.0}
        run = StudyRun(config.override(run.config, change), run.seeds, run.folder)
    assert real.missing(run) == (0,)


def test_more_seeds_games_and_switches_extend_a_study(tmp_path):
    first = create(tmp_path, switches=("consistency",))
    assert seeds(first) == {("CartPole", arm, seed) for arm in ARMS for seed in (0, 1)}
    extended = extend(tmp_path, seeds=((0, 1, 2, 3),))
    assert extended.study.request.seeds == ((0, 1), (2, 3))
    assert seeds(extended) == {("CartPole", arm, seed) for arm in ARMS for seed in range(4)}
    extended = extend(tmp_path, games=("Catch",), switches=("value_prefix",))
    arms = [*ARMS, "no_value_prefix"]
    expected = {(g, a, s) for g in ("CartPole", "Catch") for a in arms for s in range(4)}
    assert seeds(extended) == expected
    first.reload()  # a process that was there before sees it
    assert seeds(first) == expected
    assert seeds(create(tmp_path)) == expected  # the first command again


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"design": "factorial"}, "it is leave_one_out there and factorial here"),
        ({"pack": False}, "it is pack=true there and pack=false here"),
        ({"words": ("discount=0.9",)}, "discount is not given there and 0.9 here"),
    ],
)
def test_another_study_in_the_same_folder_is_refused(tmp_path, changes, told):
    create(tmp_path)
    before = (tmp_path / study.FILE_NAME).read_bytes()
    with pytest.raises(BadInput, match=f"has another study: {told}; choose another name= or"):
        extend(tmp_path, **changes)
    assert (tmp_path / study.FILE_NAME).read_bytes() == before


def test_presets_that_have_changed_since_are_refused(tmp_path):
    create(tmp_path)
    path = tmp_path / study.FILE_NAME
    content = json.loads(path.read_text())
    content["plans"]["CartPole"]["base"]["discount"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(
        BadInput, match=r"in CartPole baseline discount is 0\.5 there and 0\.997 here"
    ):
        extend(tmp_path)


def test_more_ideas_make_another_study_where_the_bare_arm_would_change(tmp_path):
    design = {"design": "add_one_in", "switches": ("consistency", "value_prefix")}
    extend(tmp_path, **design)
    more = {"design": "add_one_in", "switches": ("prioritisation",)}
    with pytest.raises(BadInput, match="in CartPole bare prioritised is True there and False here"):
        extend(tmp_path, **more)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: "{", "is damaged: it is not JSON"),
        (lambda content: json.dumps({"format": 1}), "delete it and use the whole command again"),
        (lambda content: json.dumps({**content, "format": 2}), "has format 2"),
        (
            lambda content: json.dumps(content).replace('"no_consistency"', '"../../x"'),
            "'../../x' is not the name of an arm",
        ),
        (lambda content: json.dumps(content).replace("total_agent_steps", "x"), "is damaged"),
        (lambda content: json.dumps(content).replace("[0, 1]", '["a"]'), "is damaged"),
    ],
)
def test_a_damaged_ledger_is_told_in_a_sentence(tmp_path, damage, told):
    create(tmp_path)
    path = tmp_path / study.FILE_NAME
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(BadInput, match=told):
        Ledger.open(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"status": 1, "reason": "", "output": [], "failures": {}}']
    + [
        '{"status": "failed", "reason": "", "output": [], "failures": ' + x + "}"
        for x in ("[]", '{"a": "b"}')
    ],
)
def test_a_damaged_state_is_as_good_as_none(tmp_path, text):
    run = create(tmp_path).runs()[0]
    run.file("json").parent.mkdir(parents=True)
    attempt = Attempt("failed", "why", ("a", "b"), {"one": 2})
    write_attempt(run, attempt)
    assert read_attempt(run) == attempt
    run.file("json").write_text(text)
    assert read_attempt(run) == Attempt()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"cannot be written .*; choose another dir="):
        create(tmp_path / "file" / "study")


def test_the_stand_in_leaves_what_a_run_leaves(tmp_path):
    ledger = create(tmp_path)
    for run in ledger.runs():
        for chosen in run.configs():
            stand_in_run.complete(to_dict(chosen))
        assert ledger.missing(run) == ()


def test_how_far_a_run_is_is_read_from_its_slowest_seed(tmp_path):
    run = StudyRun(make_config("CartPole"), (0, 1), tmp_path)
    assert how_far(run) == "0 of 10,000 agent steps"
    for chosen, lines in zip(
        run.configs(), ([(2000, 9.0)], [(1000, 7.5), (1500, 8.5)]), strict=True
    ):
        folder = Path(chosen.run_dir)
        folder.mkdir(parents=True)
        made_runs.write_lines(folder, chosen, lines)
    assert how_far(run) == "1,500 of 10,000 agent steps, last evaluation 8.5"
