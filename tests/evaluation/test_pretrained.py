"""The agents that come with the package: read by name, played, never trained further."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

import ez_jax
from experiments import pretrained as makers
from ez_jax import evaluate
from ez_jax.config import BadInput
from ez_jax.evaluation import pretrained, weights
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.system import exits

pytestmark = pytest.mark.usefixtures("quick_compiling")
NAMES = pretrained.names()
HALF = 2.0**-11  # half of what the last digit of half precision is worth, relative


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory):
    """The weights of the finished run and nothing else."""
    folder, agent = tmp_path_factory.mktemp("alone"), ez_jax.load(finished.folder)
    shutil.copy(finished.folder / run_folder.CONFIG_FILE, folder)
    weights.save_alone(folder, agent.variables, agent.clocks)
    return folder


@given(st.floats(2.0**-14, 6e4), st.floats(1e5, 1e9))
def test_parameters_are_halved_and_statistics_are_not(parameter, variance):
    numbers = {"params": {"w": np.float32(parameter)}, "batch_stats": {"v": np.float32(variance)}}
    halved = weights.halved(jax.tree.map(np.asarray, numbers))
    assert halved["params"]["w"].dtype == np.float16
    assert halved["params"]["w"] == pytest.approx(parameter, rel=1.01 * HALF)
    assert halved["batch_stats"]["v"] == numbers["batch_stats"]["v"]


def test_weights_alone_are_those_of_the_run_in_a_fraction_of_its_bytes(alone, finished):
    there, here = ez_jax.load(finished.folder), ez_jax.load(alone)
    assert there.clocks == here.clocks
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1.01 * HALF, atol=2.0**-24),
        *(there.variables, here.variables),
    )
    newest = finished.folder / "checkpoints" / str(there.clocks.agent_steps)
    size = [sum(p.stat().st_size for p in f.rglob("*")) for f in (newest, alone)]
    assert size[1] < size[0] / 2


def test_weights_alone_cannot_be_trained_further(alone):
    done = runs.train(alone)
    assert done.returncode == exits.BAD_INPUT
    assert "weights of a trained agent and nothing else" in done.stderr


def test_a_name_in_any_case_is_found_and_a_wrong_one_gets_the_nearest():
    assert pretrained.folder_of("pretrained:cartpole") == pretrained.AGENTS / "CartPole"
    assert pretrained.folder_of("runs/a") == pretrained.output_folder("runs/a")
    with pytest.raises(BadInput, match="unknown pretrained agent 'CartPol'; did you mean CartPole"):
        ez_jax.load("pretrained:CartPol")
    with pytest.raises(BadInput, match=f"choose {NAMES[0]} or"):
        ez_jax.load("pretrained:")


def test_what_commands_write_goes_to_the_folder_of_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in pretrained.AGENTS.rglob("*")}
    assert evaluate.main(["run=pretrained:CartPole", "episodes=3", "video=1"]) == exits.DONE
    assert "return_mean      500" in capsys.readouterr().out
    ez_jax.inspect_run("pretrained:CartPole", max_steps=2)
    folder = tmp_path / "runs" / "pretrained" / "CartPole"
    assert {path.name for path in folder.iterdir()} == {"evaluations", "videos", "inspect.html"}
    assert before == {path: path.stat().st_mtime_ns for path in pretrained.AGENTS.rglob("*")}


def test_an_agent_is_made_from_a_run_named_as_a_user_would(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "AGENTS", tmp_path / "agents")
    monkeypatch.chdir(finished.folder.parent)
    assert makers.make(finished.folder.name, best=False, episodes=2) == "CartPole"
    made, scores = pretrained.card("CartPole")["card"], finished.folder / run_folder.SCORES_FILE
    assert made["trained"]["mean"] == json.loads(scores.read_text())["mean"]
    assert made["half_precision"]["episodes"] == 2
    assert pretrained.names() == ["CartPole"]


@pytest.mark.parametrize("name", NAMES)
def test_every_agent_is_whole_and_its_card_says_where_it_comes_from(name):
    folder, card = pretrained.AGENTS / name, pretrained.card(name)
    assert run_folder.read_config(folder)["game"].replace(":", "-") == name
    (step,) = Checkpointer(folder).steps()
    assert card["scores"]["agent_steps"] == step
    assert card["scores"]["mean"] == pytest.approx(card["card"]["half_precision"]["mean"])
    trained = card["card"]["trained"]
    assert re.fullmatch("[0-9a-f]{40}", trained["commit"])
    # Both precisions play the same episodes.
    half, full = card["card"]["half_precision"], card["card"]["full_precision"]
    assert abs(half["mean"] - full["mean"]) <= 2 * np.hypot(half["error"], full["error"])
    assert not {"/home", "/work", "/root"} & set(re.findall("/[a-z]+", str(card)))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_agent_scores_again_as_on_its_card(name):
    on_card = pretrained.card(name)["card"]["half_precision"]["episodes"]
    assert not makers.differs(name, on_card // 2)  # fewer of the games that take long
