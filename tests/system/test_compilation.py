"""Machines that are not as usual: nobody's home, devices that are not there."""

import os
import subprocess
import sys

import jax
import pytest
import runs

from ez_jax.config import BadInput
from ez_jax.system import compilation, machine

CACHE = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def nobody(monkeypatch):
    """A user of a container: no HOME, no entry among the users."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("nobody")
def test_without_a_home_nothing_is_kept_and_a_warning_says_so(capsys):
    compilation.configure_jax()
    assert jax.config.jax_compilation_cache_dir is None
    assert capsys.readouterr().err == f"warning: {compilation.NO_CACHE}\n"
    assert machine.facts()["compiled programs"] == compilation.NO_CACHE


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("name", ["HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_where_nothing_can_be_kept_one_warning_says_so(monkeypatch, capsys, name):
    monkeypatch.setenv(name, "/proc/nowhere")
    compilation.configure_jax()
    assert jax.config.jax_compilation_cache_dir is None
    said = capsys.readouterr().err
    assert said.startswith("warning: compiled programs are not cached because /proc/nowhere")
    assert said.count("\n") == 1


@pytest.mark.long
def test_a_user_without_name_and_home_trains_and_evaluates(tmp_path):
    nobody = ["unshare", "-U", "--map-user=54321", "env", "-u", "HOME", "-u", CACHE]
    try:
        tried = subprocess.run([*nobody, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare on this machine")
    if tried.returncode:
        pytest.skip(f"no user namespaces here: {tried.stderr.strip()}")
    tmp_path.chmod(0o777)
    run = tmp_path / "run"
    for module, *words in (
        ("ez_jax.train", *runs.train_words(run, "total_agent_steps=40")),
        ("ez_jax.evaluate", f"run={run}", "episodes=1", "video=1"),
    ):
        done = runs.wait(runs.start(module, *words, within=nobody))
        assert (done.returncode, done.stderr) == (0, f"warning: {compilation.NO_CACHE}\n")


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize x\nmore")])
def test_a_device_that_is_not_there_is_bad_input(monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    reason = f" ({error})".partition("\n")[0].rstrip(")") + ")" if str(error) else ""
    with pytest.raises(BadInput) as raised:
        compilation.configure_jax()
    said = f"JAX cannot use the device of JAX_PLATFORMS=cuda{reason}: unset JAX_PLATFORMS"
    assert str(raised.value).startswith(said)


@pytest.mark.long
@pytest.mark.parametrize("module", ["ez_jax.train", "ez_jax.evaluate"])
def test_a_platform_that_jax_does_not_know(tmp_path, finished, module):
    words = {
        "ez_jax.train": [f"run_dir={tmp_path}/a"],
        "ez_jax.evaluate": [f"run={finished.folder}"],
    }
    done = runs.wait(runs.start(module, *words[module], variables={"JAX_PLATFORMS": "nonsense"}))
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX cannot use the device of JAX_PLATFORMS=nonsense")
    assert done.stderr.count("\n") == 1
    assert not os.listdir(tmp_path)
