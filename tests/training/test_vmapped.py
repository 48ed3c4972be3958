"""Runs in one program: each is the run that it would be by itself."""

import contextlib

import jax
import numpy as np
import pytest
import runs
import tiny
from test_train import untimed

from ez_jax.agent.model import make_model
from ez_jax.config import BadInput, Config, flatten, games, override, presets, to_dict
from ez_jax.envs.gymnax_adapter import make_game
from ez_jax.evaluation.trained_agent import load
from ez_jax.storage.metrics import EVALUATION, MetricsWriter, read_metrics
from ez_jax.storage.run_folder import read_config, write_config
from ez_jax.structs import Clocks
from ez_jax.system.exits import DONE, INTERRUPTED
from ez_jax.terminal.launch import spread
from ez_jax.terminal.progress import Progress
from ez_jax.train import train
from ez_jax.training import lanes, vmapped_program
from ez_jax.training.record import EVALUATE, LOG, SAVE, Record
from ez_jax.training.vmapped import OWN, VmappedRuns, check_alike, train_together

GAME = "gymnax:CartPole"
# Adam would make a whole step of what differs by rounding.
STEADY = {"learner.optimizer": "sgd", "learner.learning_rate": 0.02}
STILL = {"learner.learning_rate": 1e-9, "learner.weight_decay": 0.0}
EARLY = 12  # updates: two programs round differently, and every update carries that on
ROUNDED = ("loss/", "opt/grad", "value/", "prefix/", "consistency/", "search/gain")

pytestmark = pytest.mark.usefixtures("quick_compiling")


def config(folder) -> Config:
    return runs.config(folder, STEADY, GAME)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two seeds and a run that learns nothing, in one program; the second seed by itself, too."""
    root = tmp_path_factory.mktemp("together")
    settings = [{"seed": 0}, {"seed": 1}, {"seed": 0, **STILL}]
    configurations = [
        override(config(root / name), changes)
        for name, changes in zip(["first", "second", "still"], settings, strict=True)
    ]
    assert train_together(configurations) == DONE
    assert train(override(config(root / "alone"), {"seed": 1})) == DONE
    return root


def weights(folder):
    variables = load(folder).variables["params"]
    return np.concatenate([np.ravel(x) for x in leaves(variables)])


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    return [np.asarray(tree)]


def assert_same_run(one, other, stranger):
    """The same clocks, games, searches and scores throughout; at first the same losses.

    The weights stay far nearer to each other than to those of another seed.
    """
    lines = [untimed(read_metrics(folder)) for folder in (one, other)]
    assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
    for some, others in zip(*lines, strict=True):
        for name, value in some.items():
            is_rounded = name.startswith(ROUNDED)
            if not is_rounded:
                assert value == pytest.approx(others[name], rel=1e-5), name
            elif some["updates"] <= EARLY:
                assert value == pytest.approx(others[name], rel=1e-2, abs=1e-3), name
    here, there, elsewhere = (weights(folder) for folder in (one, other, stranger))
    assert np.linalg.norm(here - there) < 0.05 * np.linalg.norm(here - elsewhere)


@pytest.mark.long
def test_a_run_among_others_is_the_run_by_itself(folders):
    assert_same_run(folders / "second", folders / "alone", folders / "first")
    assert read_config(folders / "second")["seed"] == 1


@pytest.mark.long
def test_numbers_differ_by_run(folders):
    first, still = (weights(folders / name) for name in ("first", "still"))

    assert np.abs(first - still).max() > 0.01
    one, other = (read_metrics(folders / name)[-1] for name in ("first", "still"))
    assert one["updates"] == other["updates"] > 0


@pytest.mark.long
def test_a_run_goes_on_in_other_company_as_if_nothing_had_happened(folders, tmp_path):
    again, still = (
        override(config(tmp_path / name), changes)
        for name, changes in [("again", {"seed": 1}), ("still", STILL)]
    )
    company = [config(tmp_path / "other"), again, still]
    with VmappedRuns(company, Progress(live=False)) as vmapped:
        for _ in range(3):
            vmapped.advance()
            vmapped.report()
        vmapped.interrupt.requested = True
        assert not vmapped.is_unfinished()
        vmapped.finish()
    assert 0 < read_metrics(tmp_path / "again")[-1]["agent_steps"] < runs.STEPS

    newcomer = override(config(tmp_path / "new"), {"seed": 2})
    assert train_together([newcomer, again, still]) == DONE

    assert_same_run(tmp_path / "again", folders / "alone", folders / "first")


@pytest.mark.long
def test_devices_share_the_runs_and_others_go_on_with_them(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [f"{key}={value}" for key, value in (runs.SETTINGS | STEADY).items()]
    words, eight = [f"game={GAME}", "name=x", "seeds=3", *settings], runs.devices(8)
    process = runs.start("ez_jax.train", *words, "devices=2", variables=eight)
    for line in process.stdout:
        if "evaluation at" in line:
            process.terminate()
            break
    assert runs.wait(process).returncode == INTERRUPTED

    done = runs.wait(runs.start("ez_jax.train", *words, variables=eight))

    assert done.returncode == DONE, done.stderr
    assert "on 3 devices" in done.stdout
    apart = tmp_path / "runs" / "gymnax_CartPole" / "x"
    assert_same_run(apart / "seed0", folders / "first", folders / "second")
    assert_same_run(apart / "seed1", folders / "second", folders / "first")


@pytest.mark.parametrize(
    ("count", "wanted", "devices", "each"),
    [(1, "all", 1, 1), (5, "2", 2, 3), (6, "all", 3, 2), (8, "all", 4, 2), (5, "all", 3, 2)],
)
def test_no_device_has_more_runs_than_necessary(monkeypatch, count, wanted, devices, each):
    monkeypatch.setattr(jax, "local_devices", lambda: 4 * jax.devices()[:1])
    mesh = lanes.make_mesh(count, wanted)
    assert (mesh.size, lanes.number(count, mesh)) == (devices, devices * each)
    with pytest.raises(BadInput, match="devices=5, but JAX sees 4"):
        lanes.make_mesh(count, "5")


@pytest.mark.long
def test_a_complete_run_is_left_as_it_is(folders):
    before = runs.contents(folders / "second")
    same = override(config(folders / "second"), {"seed": 1})
    with VmappedRuns([same], Progress(live=False)) as vmapped:
        assert not vmapped.is_unfinished()
        vmapped.finish()

    after = runs.contents(folders / "second")
    assert before["metrics.jsonl"] == after["metrics.jsonl"]
    assert {name for name in before if "checkpoints" in name} == {
        name for name in after if "checkpoints" in name
    }


@pytest.mark.long
def test_runs_alone_and_together_are_not_mixed_up(folders):
    with pytest.raises(BadInput, match="resume it with the same seeds="):
        train(override(config(folders / "second"), {"seed": 1}))
    with pytest.raises(BadInput, match="resume it without seeds="):
        VmappedRuns([override(config(folders / "alone"), {"seed": 1})], Progress(live=False))


def test_what_a_signal_left_out_at_the_end_is_made_up_for(tmp_path):
    whole = config(tmp_path)
    saved = Clocks(agent_steps=whole.total_agent_steps, updates=whole.total_updates)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(Clocks(agent_steps=10, updates=5), {EVALUATION: 1.0})
        writer.write(saved, {"loss/total": 1.0})
    write_config(tmp_path, to_dict(whole))

    with contextlib.ExitStack() as opened:
        record = Record(whole, Progress(live=False), opened)
        record.open(tiny.make_spec(4, actions=2), saved, opened)
        assert record.missing({LOG, EVALUATE, SAVE}) == {EVALUATE}
        assert record.due() == {EVALUATE}


@pytest.mark.parametrize(
    ("runs_of", "words"),
    [
        ([{}, {"learner.batch_size": 8}], "may not differ in learner.batch_size"),
        ([{"run_dir": "b"}, {}, {}], "2 runs have the folder a: give each its own seed or name"),
        ([{"game": "CartPole"}, {"game": "CartPole", "run_dir": "b"}], "only games of gymnax"),
    ],
)
def test_what_one_program_cannot_hold_is_refused(runs_of, words):
    given = [override(config("a"), changes) for changes in runs_of]
    with pytest.raises(BadInput, match=words):
        check_alike(given)


def test_numbers_are_settings_with_fractions():
    values = flatten(Config())
    assert {type(values[key]) for key in vmapped_program.NUMBERS} == {float}
    assert set(OWN) - set(vmapped_program.NUMBERS) == {"seed", "name", "run_dir"}


@pytest.mark.long
@pytest.mark.parametrize("policy", ["gumbel", "puct"])
def test_every_number_can_differ_whatever_the_search(policy):
    chosen = runs.config("a", {"search.policy": policy}, GAME)
    game = make_game(games.find_task(GAME), chosen.env, training=True)
    model, mesh = make_model(chosen, game.spec), lanes.make_mesh(2, "all")
    program = vmapped_program.make_program(chosen, model, game, game, mesh)
    numbers = {key: np.ones(2, np.float32) for key in vmapped_program.NUMBERS}
    seeds = np.zeros(2, np.int32)

    start = jax.eval_shape(program.start, seeds, seeds, numbers, seeds > 0)
    after = jax.eval_shape(program.advance, start, np.int32(1), np.int32(0))

    assert jax.tree.map(lambda x: x.shape, start) == jax.tree.map(lambda x: x.shape, after)


def test_seeds_follow_the_seed_and_have_folders_of_their_own():
    chosen = presets.make_config(GAME, changes={"seed": 3})
    assert [config.seed for config in spread(chosen, 2)] == [3, 4]
    with pytest.raises(BadInput, match="set name= instead"):
        spread(override(chosen, {"run_dir": "x"}), 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["game=CartPole", "seeds=2"], "only games of gymnax"),
        pytest.param([f"game={GAME}", "seeds=0"], "at least one run", marks=pytest.mark.long),
        pytest.param(
            [f"game={GAME}", "seeds=2", "plan=true"], "leave out seeds=", marks=pytest.mark.long
        ),
    ],
)
def test_the_command_refuses_seeds_in_one_sentence(tmp_path, words, told):
    done = runs.wait(runs.start("ez_jax.train", *words, f"hydra.run.dir={tmp_path}"))

    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_sigterm_saves_all_runs_and_the_same_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [f"{key}={value}" for key, value in runs.SETTINGS.items()]
    words = [f"game={GAME}", "seeds=2", "name=x", *settings, "checkpoint.every=1000"]
    process = runs.start("ez_jax.train", *words)
    for line in process.stdout:
        if "evaluation at" in line:
            process.terminate()
            break
    assert runs.wait(process).returncode == INTERRUPTED
    folders = [tmp_path / "runs" / "gymnax_CartPole" / "x" / f"seed{i}" for i in (0, 1)]
    assert all(0 < runs.latest_checkpoint(folder) < runs.STEPS for folder in folders)
    done = runs.wait(runs.start("ez_jax.train", *words))
    assert done.returncode == DONE, done.stderr
    assert "resumed at" in done.stdout
    assert all(runs.latest_checkpoint(folder) >= runs.STEPS for folder in folders)
