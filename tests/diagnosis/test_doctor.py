"""The doctor tells everything, finds what is broken, and says what fixes it."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import runs

from ez_jax import doctor
from ez_jax.diagnosis import machine_checks, switches, verdicts
from ez_jax.diagnosis.machine_checks import Check
from ez_jax.diagnosis.switches import SWITCHES, Result, Switch
from ez_jax.system import exits, machine


@pytest.fixture
def diagnosed(monkeypatch):
    """Return call(*words) -> exit code of the command in this process."""

    def call(*words):
        return exits.guarded(lambda: doctor.main(words))

    return call


@pytest.fixture
def checks(monkeypatch):
    """Return call(*checks): these are made instead of the real ones."""
    return lambda *checks: monkeypatch.setattr(machine_checks, "CHECKS", checks)


def broken():
    raise ZeroDivisionError("the original message")


FINE = Check("sums", "add up", lambda: None, lambda error: "nothing")
BROKEN = Check("quotients", "are finite", broken, lambda error: f"no {type(error).__name__}")


def test_the_real_command_shows_every_section_and_succeeds(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # where there is a GPU, it may lie idle
    done = runs.wait(runs.start("ez_jax.doctor", "quick=true"))
    assert (done.returncode, done.stderr) == (exits.DONE, "")
    sections = ["versions", "machine", "checks"]
    assert [line for line in done.stdout.splitlines() if line in sections] == sections
    for name in (*machine.versions(), "processors", "memory", "devices", "compiled programs"):
        assert re.search(rf"^.*\b{name}  +\S", done.stdout, re.MULTILINE), name
    for check in machine_checks.CHECKS:
        assert re.search(rf"^  OK    {check.name} .* \d+\.\d s$", done.stdout, re.MULTILINE)
    assert "unknown (" not in done.stdout
    assert "switches" not in done.stdout
    assert f"all {len(machine_checks.CHECKS)} checks succeeded" in done.stdout


def test_a_failure_exits_with_1_and_shows_the_fix_and_the_original_error(diagnosed, checks, capsys):
    checks(FINE, BROKEN)
    assert diagnosed("quick=true") == exits.FAILED
    told = capsys.readouterr().out
    assert re.search(r"^  OK    sums +add up", told, re.MULTILINE)
    assert re.search(r"^  FAIL  quotients +are finite", told, re.MULTILINE)
    assert "fix: no ZeroDivisionError\n" in told
    assert "ZeroDivisionError: the original message\n" in told
    assert "1 of 2 checks failed" in told
    assert "Traceback" not in told


def test_verbose_shows_the_traceback(diagnosed, checks, capsys):
    checks(FINE, BROKEN)
    assert diagnosed("--quick", "--verbose") == exits.FAILED
    told = capsys.readouterr().out
    assert "Traceback" in told
    assert "in broken" in told
    assert "ZeroDivisionError: the original message\n" in told


def test_every_line_fits_a_terminal_of_80_columns(diagnosed, checks, monkeypatch, capsys):
    long = Check("a name", "a claim of many words " * 5, broken, lambda error: "many words " * 20)
    checks(FINE, long)
    monkeypatch.setattr(machine, "facts", lambda: {"fact": "of many words " * 20})
    diagnosed("quick=true")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= verdicts.WIDTH


def test_the_table_of_switches_is_shown_and_a_dead_switch_fails(
    diagnosed, checks, monkeypatch, capsys
):
    checks(FINE)
    dead = Switch("consistency", False, ("loss/consistency", "loss/total"))

    def flip(switch):
        before = {name: np.zeros(1) for name in switch.changes}
        return Result(switch, before, {name: x + (switch != dead) for name, x in before.items()})

    monkeypatch.setattr(switches, "SWITCHES", (dead, *SWITCHES))
    monkeypatch.setattr(switches, "flip", flip)
    assert diagnosed() == exits.FAILED
    told = capsys.readouterr().out
    assert re.search(r"^  FAIL  consistency=false ", told, re.MULTILINE)
    assert "did not change: loss: consistency total; changed though it should not: nothing" in told
    for switch in SWITCHES:
        assert re.search(rf"^  OK    {re.escape(str(switch))} ", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["quik=true"], "did you mean quick"),
        (["seed=1"], "only quick=true and verbose=true"),
        (["quick=1"], "true or false"),
        (["-v"], "cannot read"),
    ],
)
def test_mistakes_are_refused(diagnosed, capsys, words, told):
    assert diagnosed(*words) == exits.BAD_INPUT
    assert told in capsys.readouterr().err


def test_help_is_quick_and_complete():
    done = runs.wait(runs.start("ez_jax.doctor", "--help"))
    assert (done.returncode, done.stdout, done.stderr) == (exits.DONE, doctor.HELP, "")
    assert all(f"{key}=true" in doctor.HELP for key in doctor.OWN_KEYS)


def test_without_jax_everything_is_still_told():
    code = "import sys; sys.modules['jax'] = None; import ez_jax.doctor as d; sys.exit(d.main([]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (exits.FAILED, "")
    assert re.search(r"^  FAIL  convolution ", done.stdout, re.MULTILINE)
    assert "pip install --upgrade -e" in done.stdout
    assert "fix the convolution first" in done.stdout
    assert re.search(r"^  OK    video ", done.stdout, re.MULTILINE)


def fix_of(name: str, error: type[Exception], message: str) -> str:
    """What a real check says fixes it when it raises this."""
    (check,) = (check for check in machine_checks.CHECKS if check.name == name)
    with pytest.raises(error, match=message) as raised:
        check.run()
    return check.fix(raised.value)


def test_without_envpool_it_is_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    monkeypatch.setattr(machine, "installed", lambda package: None)
    assert fix_of("Atari", ImportError, "envpool").startswith("pip install envpool;")


def test_an_envpool_that_cannot_play_is_to_be_installed_anew(monkeypatch):
    monkeypatch.setattr("ez_jax.envs.make_env", lambda *args, **kwargs: broken())
    fix = fix_of("Atari", ZeroDivisionError, "the original message")
    assert "--force-reinstall --no-deps envpool" in fix


@pytest.fixture
def idle_gpu(monkeypatch):
    """An NVIDIA GPU that JAX does not use; return call(CUDA version of its driver)."""
    said = {"-L": "GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n"}
    monkeypatch.setattr(machine, "_nvidia_smi", lambda word="": said[word])
    monkeypatch.setattr(machine, "installed", lambda package: None)
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    return lambda version: said.update({"": f"| Driver Version: 570   CUDA Version: {version} |"})


@pytest.mark.parametrize(("version", "extra"), [("12.8", "cuda12"), ("13.0", "cuda13")])
def test_an_idle_gpu_needs_the_extra_of_its_driver(idle_gpu, version, extra):
    idle_gpu(version)
    fix = fix_of("NVIDIA GPU", RuntimeError, "found NVIDIA H200, NVIDIA H200, but JAX sees")
    assert fix == f'pip install -e ".[{extra}]"'


def test_an_installed_plugin_that_does_not_start_is_named(idle_gpu, monkeypatch):
    idle_gpu("13.0")
    monkeypatch.setattr(machine, "installed", lambda name: name == "jax-cuda13-plugin")
    fix = fix_of("NVIDIA GPU", RuntimeError, "NVIDIA H200")
    assert "jax-cuda13-plugin is installed but did not start" in fix


def test_a_gpu_may_lie_idle_where_that_is_asked_for(idle_gpu, monkeypatch):
    idle_gpu("13.0")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert machine_checks._gpu() == "not used, as JAX_PLATFORMS=cpu asks"


def test_a_cache_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    settings = SimpleNamespace(
        jax_compilation_cache_dir=str(tmp_path / "file" / "xla"), jax_enable_compilation_cache=True
    )
    monkeypatch.setattr(machine, "_jax", lambda: SimpleNamespace(config=settings))
    told = machine.facts()["compiled programs"]
    assert "cannot be written (Not a directory)" in told
    assert "set JAX_COMPILATION_CACHE_DIR to another folder" in told
