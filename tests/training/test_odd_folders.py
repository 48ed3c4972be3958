"""A run lies where its user wants it: no character of a path means anything to us."""

import os
import subprocess
import sys

import pytest
import runs
import tiny
from failing_games import raising

from ez_jax.config import BadInput, Config, paths, run_folder
from ez_jax.storage.run_folder import read_config
from ez_jax.terminal import arguments
from ez_jax.terminal.progress import Progress
from ez_jax.training import run as run_module

# Patterns, quotes, escapes, addresses, flags, what no terminal shows and no UTF-8 is.
NAME = "-o [1]** ?{process_index}%20lr=0.1,a\\b 'q\" gs:\nñ☃\udcff"


@pytest.mark.long
def test_a_whole_run_lives_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / NAME
    for _ in range(2):  # the second finds it complete
        done = runs.train(folder)
        assert done.returncode == 0, done.stderr
    assert "this run is complete" in done.stdout
    words = [f"run={folder}", "episodes=1"]
    for module, more in {
        "ez_jax.evaluate": [*words, "video=1", "best=true"],
        "ez_jax.inspect": [f"run={folder}", "max_steps=3"],
        "ez_jax.report": [os.fspath(folder), f"out={folder}/lr=1"],
    }.items():
        done = runs.wait(runs.start(module, *more))
        assert done.returncode == 0, done.stderr
    files = set(runs.contents(folder))
    assert {"scores.json", "inspect.html", "lr=1/index.html"} <= files
    assert any(name.startswith("videos/") for name in files)


@pytest.mark.parametrize("name", ["'", '"', "'a", "~no one", "a\\", "[1]", "null", NAME])
def test_run_dir_is_taken_as_it_is_written(name):
    assert run_folder(arguments.compose([f"run_dir={name}"])) == paths.Path(name)


@pytest.mark.parametrize("text", ["${", "a${x}"])
def test_what_stands_for_another_setting_has_to_be_one(text):
    with pytest.raises(BadInput, match=r"inserts another setting"):
        arguments.compose([f"run_dir={text}"])


@pytest.mark.parametrize("text", ["a/" + 256 * "b", 128 * "é", 1_000 * "abc/"])
def test_no_file_system_takes_so_long_a_path(text):
    with pytest.raises(BadInput, match=r"too long for a path: it has .* bytes"):
        run_folder(Config(run_dir=text))
    assert run_folder(Config(run_dir=f"{255 * 'b'}/{'c/' * 1_500}"))
    with pytest.raises(BadInput, match="too long for a path"):
        run_folder(Config(name=256 * "b"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "scores.json", "evaluations", "checkpoints"])
def test_a_folder_in_the_place_of_a_file_is_told(tmp_path, name):
    wrong = tmp_path / name
    if "." in name:
        wrong.mkdir()
    else:
        wrong.write_text("")
    config = tiny.make_config({"run_dir": str(tmp_path), "game": "CartPole"})
    with pytest.raises(BadInput, match=f"{wrong} is a (folder|file) where a (file|folder) belongs"):
        run_module.Run(config, Progress(live=False))
    with pytest.raises(BadInput, match=f"{wrong} is a (folder|file) where a (file|folder) belongs"):
        read_config(tmp_path)


def test_a_folder_that_is_gone_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # of tests in this process
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
    code += "sys.argv[1:] = ['plan=true']; import ez_jax.train as t; "
    code += "t.launch.main(t.train, plan=t.plan, together=t.together, description='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        capture_output=True,
        text=True,
    )
    said = "error: the folder that this was started in is gone: `cd` into one that is there\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_the_home_folder_of_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder(Config(run_dir="~/a")) == tmp_path / "a"
    monkeypatch.delenv("HOME")
    monkeypatch.setitem(sys.modules, "pwd", None)  # as where the user has no entry
    assert paths.expanded("~no one/a") == paths.Path("~no one/a")
    with pytest.raises(BadInput, match="set HOME"):
        paths.expanded("~/a")


def test_a_folder_that_exists_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lr=0.1", "-o", "plain", "out=here"):
        (tmp_path / name).mkdir()
    words = ["lr=0.1", "-o", "plain", "out=here", "-x", "none", "runs/lr=0.2", "last=1", "seed=3"]
    named, others = arguments.folders(words, {"out": "", "last": 1})
    assert named == ["lr=0.1", "-o", "plain", "none", "runs/lr=0.2"]
    assert others == ["out=here", "-x", "last=1", "seed=3"]


def test_a_run_that_is_refused_leaves_no_folder(tmp_path, monkeypatch):
    config = tiny.make_config({"run_dir": str(tmp_path / "a" / "b"), "game": "CartPole"})
    monkeypatch.setattr(run_module.memory, "check", raising(BadInput("too large")))
    with pytest.raises(BadInput, match="too large"):
        run_module.Run(config, Progress(live=False))
    assert not list(tmp_path.iterdir())
