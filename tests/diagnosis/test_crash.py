"""What a failed run leaves behind, and what is made of it."""

import contextlib
import io
import json
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny

from ez_jax import replay_crash
from ez_jax.agent import losses
from ez_jax.config import BadInput
from ez_jax.diagnosis import crash_replay
from ez_jax.storage import crash_bundle
from ez_jax.structs import Clocks, Prepared
from ez_jax.system import exits
from ez_jax.terminal.progress import Progress
from ez_jax.train import train
from ez_jax.training.games import RepeatableGames
from ez_jax.training.record import Record

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compiling")]

LIMIT = 2


@pytest.fixture(scope="module", autouse=True)
def one_program():
    """The only update that is made again is traced and compiled once."""
    make, made = crash_replay.make_propose, []

    def make_once(*args):
        made[:] = made or [make(*args)]
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash_replay, "make_propose", make_once)
        yield


def says(capsys, action):
    """Exit code and what was written to stdout and stderr."""
    capsys.readouterr()
    return exits.guarded(action), *capsys.readouterr()


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A run whose rewards become NaN: folder, exit code, stderr."""
    folder = tmp_path_factory.mktemp("runs") / "failed"
    recv = RepeatableGames.recv

    def poison(self):
        assert any(thread.name == "watchdog" for thread in threading.enumerate())
        step = recv(self)
        return step.replace(reward=np.full_like(step.reward, np.nan))

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as told:
        patch.setattr(RepeatableGames, "recv", poison)
        code = exits.guarded(lambda: train(runs.config(folder, {"learner.max_skipped": LIMIT})))
    return folder, code, told.getvalue()


@pytest.fixture
def bundle(failed, tmp_path):
    """A copy of what that run left, to be damaged."""
    folder = tmp_path / "bundle"
    shutil.copytree(crash_bundle.read(failed[0]).folder, folder)
    return folder


def replay(folder, capsys):
    return says(capsys, lambda: replay_crash.main([str(folder)]))


# Updates that are not finite.


def test_a_run_stops_after_the_set_number_of_skipped_updates_in_a_row(failed):
    folder, code, told = failed
    assert code == exits.FAILED
    last = told.splitlines()[-1]
    in_a_row = int(last.partition("the last ")[2].split()[0])
    assert LIMIT <= in_a_row <= runs.LOG_EVERY
    assert last.startswith("FloatingPointError: ")
    assert f"python -m ez_jax.replay_crash {folder}" in last
    bundle = crash_bundle.read(folder)
    assert told.startswith(f"crash bundle: {bundle.folder}\nTraceback")
    assert bundle.traceback.splitlines()[-1] == last


@pytest.mark.parametrize(("limit", "in_a_row"), [(3, 2), (0, 1_000)])
def test_a_run_goes_on_below_the_limit_and_without_one(tmp_path, limit, in_a_row):
    config = runs.config(tmp_path, {"learner.max_skipped": limit, "log.tensorboard": False})
    with contextlib.ExitStack() as opened:
        record = Record(config, Progress(live=False), opened)
        record.open(tiny.make_spec(4), None, opened)
        record.check({}, SimpleNamespace(skipped_in_a_row=jnp.int32(in_a_row)))


def test_a_bundle_tells_where_the_run_stood_and_what_it_ran_on(failed):
    facts = crash_bundle.read(failed[0]).facts
    assert facts["clocks"]["agent_steps"] == facts["metrics"]["agent_steps"] >= runs.START
    assert facts["clocks"]["updates"] == facts["update"] + 1 == facts["metrics"]["opt/skipped"]
    assert facts["config"]["learner"]["max_skipped"] == LIMIT
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["left_out"] == {}


def test_the_same_update_is_made_again_and_the_array_at_fault_is_named(failed, capsys):
    code, told, _ = replay(failed[0], capsys)
    assert code == exits.DONE
    assert "the first that is not finite: batch/reward: " in told
    assert "train/variables: finite" in told
    assert "losses     terms/value is nan" in told
    assert told.endswith(crash_bundle.read(failed[0]).traceback)


@pytest.mark.long
def test_an_update_that_is_finite_is_said_to_be(failed):
    bundle = crash_bundle.read(failed[0])
    arrays = {
        name: np.nan_to_num(array) if array.dtype == np.float32 else array
        for name, array in bundle.arrays.items()
    }
    lines = list(crash_replay.explain(bundle._replace(arrays=arrays)))
    assert "the update is finite: the cause is elsewhere" in lines


def test_the_first_operation_that_gives_nan_is_named_with_its_line(monkeypatch):
    infinite = jnp.full((1, 2), jnp.inf)
    found = crash_replay.Update(losses.negative_cosine, (infinite, infinite)).first_operation()
    assert found.startswith("invalid value (nan) encountered in mul, in losses.py:")
    assert ", _unit: return x * " in found

    def masked(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)  # backward 0 times infinity

    monkeypatch.setattr(crash_replay, "PACKAGE", Path(__file__).parent)
    found = crash_replay.Update(jax.grad(masked), (jnp.zeros(()),)).first_operation()
    assert ", masked: return jnp.where(x > 0, jnp.sqrt(x), 0.0)" in found
    assert crash_replay.Update(masked, (jnp.zeros(()),)).first_operation() is None


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (
            np.array([[1.0, 2.0], [np.inf, np.nan]]),
            "x: 2 of 4 values .* first at \\[1, 0\\] is inf",
        ),
        (np.float32(np.nan), "x is nan"),
    ],
)
def test_the_first_value_that_is_not_finite_is_counted_and_placed(array, told):
    assert crash_replay.first_bad({"i": np.arange(3), "a": np.ones(2)}) is None
    found = crash_replay.first_bad({"a": np.ones(2), "x": array})
    assert re.search(told, found)


# What can go wrong with a bundle.


def failed_run(folder, train=None):
    """As much of a run as a bundle looks at."""
    run = crash_bundle.FailedRun(folder, runs.config(folder), clocks=Clocks(updates=3))
    if train is None:
        return run
    group = Prepared(batch={"reward": jnp.arange(6.0).reshape(3, 2)}, targets={})
    last = crash_bundle.LastUpdate(2, group, 1, jax.random.key(0))
    return run._replace(train=train, last_update=last)


class Failed:
    """The result of a computation that failed on the device."""

    dtype, shape = np.dtype(np.float32), (3,)

    def is_deleted(self):
        return False

    def __array__(self, *_, **__):
        raise RuntimeError("out of memory\nand a long report")


def test_arrays_that_cannot_be_had_are_left_out_and_said_so(tmp_path, capsys):
    given, kept = jnp.ones(3), jnp.zeros(2)
    given.delete()
    run = failed_run(tmp_path, {"gone": given, "kept": kept, "torn": Failed()})
    crash_bundle.report(run, RuntimeError("while it was being updated"))
    assert "(2 arrays could not be saved: crash.json says why)" in capsys.readouterr().err
    facts = json.loads(next(tmp_path.glob("crashes/*/crash.json")).read_text())
    assert facts["left_out"] == {
        "train/gone": "donated to a computation that did not return",
        "train/torn": "RuntimeError: out of memory",
    }
    assert facts["arrays"].keys() == {"train/kept", "batch/reward", "learn_key"}
    assert facts["arrays"]["batch/reward"]["is"] == "float32[3]"


def test_an_update_that_cannot_be_made_again_is_said_to_be_so(failed):
    bundle = crash_bundle.read(failed[0])
    gone = {name: "donated" for name in bundle.arrays if name.startswith("train/")}
    bundle = bundle._replace(
        arrays={name: array for name, array in bundle.arrays.items() if name not in gone},
        facts=bundle.facts | {"left_out": gone},
    )
    told = list(crash_replay.explain(bundle))
    assert told[-1].startswith("the first that is not finite: batch/reward")
    for array in bundle.arrays.values():
        if array.dtype == np.float32:
            array[...] = 0
    told = list(crash_replay.explain(bundle))
    assert told[-1] == "the update cannot be repeated: train/variables was not saved (donated)"


@pytest.mark.parametrize("error", [BadInput("no such game"), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_fault_of_the_program_leaves_no_bundle(tmp_path, capsys, error):
    crash_bundle.report(failed_run(tmp_path), error)
    assert runs.contents(tmp_path) == {}
    assert capsys.readouterr().err == ""


def test_a_bundle_that_cannot_be_written_hides_nothing(tmp_path, capsys):
    (tmp_path / "crashes").touch()  # where a folder should be

    def fail():
        with contextlib.ExitStack() as opened:
            opened.push(lambda _, error, __: crash_bundle.report(failed_run(tmp_path), error))
            raise ZeroDivisionError("the fault that matters")

    code, _, told = says(capsys, fail)
    assert code == exits.FAILED
    assert told.startswith("no crash bundle could be written: ")
    assert told.endswith("ZeroDivisionError: the fault that matters\n")


def test_the_newest_bundles_are_kept(tmp_path):
    for number in range(crash_bundle.KEEP + 1):
        crash_bundle.report(failed_run(tmp_path), RuntimeError(str(number)))
    assert len(list((tmp_path / "crashes").iterdir())) == crash_bundle.KEEP
    assert crash_bundle.read(tmp_path).facts["error"] == f"RuntimeError: {crash_bundle.KEEP}"


def test_the_last_bundle_is_the_newest_even_if_the_clock_went_back(tmp_path, capsys):
    for number in range(crash_bundle.KEEP):
        crash_bundle.report(failed_run(tmp_path), RuntimeError(str(number)))
    for number, folder in enumerate(sorted((tmp_path / "crashes").iterdir())):
        folder.rename(folder.with_name(f"2999-01-0{number + 1}T00-00-00.000000Z"))
    capsys.readouterr()
    for error in ("new", "newer"):
        crash_bundle.report(failed_run(tmp_path), RuntimeError(error))
        folder = capsys.readouterr().err.partition("crash bundle: ")[2].strip()
        assert crash_bundle.read(folder).facts["error"] == f"RuntimeError: {error}"
        newest = crash_bundle.read(tmp_path)
        assert (str(newest.folder), newest.facts["error"]) == (folder, f"RuntimeError: {error}")
        assert not newest.facts["time"].startswith("2999")
        assert len(list((tmp_path / "crashes").iterdir())) == crash_bundle.KEEP


def change_an_array(folder):
    facts = json.loads((folder / "crash.json").read_text())
    facts["arrays"]["batch/reward"]["sha256"] = 64 * "0"
    (folder / "crash.json").write_text(json.dumps(facts))


def change_a_setting(folder):
    text = (folder / "crash.json").read_text()
    (folder / "crash.json").write_text(text.replace('"vector_width": 8', '"vector_width": 9'))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "crash.json").unlink(), "there is no crash bundle in"),
        (lambda folder: (folder / "crash.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "traceback.txt").unlink(), "is damaged"),
        (lambda folder: shutil.rmtree(folder / "arrays"), "is damaged"),
        (change_an_array, "batch/reward was changed"),
        (change_a_setting, "is damaged"),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_sentence(bundle, capsys, damage, told):
    damage(bundle)
    code, _, err = replay(bundle, capsys)
    assert code == exits.BAD_INPUT
    assert told in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_the_command_wants_one_folder(capsys):
    code, _, err = says(capsys, lambda: replay_crash.main([]))
    assert code == exits.BAD_INPUT
    assert "replay_crash DIR" in err
