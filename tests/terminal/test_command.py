"""The commands under one name, and what is shipped with them: version, citation, workflows."""

import re
import subprocess
import sys

import pytest
import yaml
from runs import ROOT
from test_architecture import COMMANDS as MODULES

import ez_jax
from ez_jax import __main__ as command


def called(monkeypatch, capsys, *words):
    """Exit code and output of the command, called in this process."""
    monkeypatch.setattr(sys, "argv", ["ez_jax", *words])
    try:
        command.main()
        code = 0
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr()


def test_every_command_is_offered():
    assert {*command.COMMANDS, "notebook"} == MODULES


def test_the_version_is_told(monkeypatch, capsys):
    code, told = called(monkeypatch, capsys, "--version")
    assert (code, told.out) == (0, f"ez_jax {ez_jax.__version__}\n")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_command_all_are_listed(words, monkeypatch, capsys):
    code, told = called(monkeypatch, capsys, *words)
    assert code == 0
    assert all(f"  {name} " in told.out for name in command.COMMANDS)


def test_an_unknown_command_is_refused_with_what_was_meant(monkeypatch, capsys):
    code, told = called(monkeypatch, capsys, "trian")
    assert (code, told.err) == (2, "error: unknown command 'trian'; did you mean train?\n")


def test_words_and_exit_codes_are_those_of_the_command(monkeypatch, capsys, tmp_path):
    code, told = called(monkeypatch, capsys, "report", str(tmp_path))
    assert code == 2
    assert told.err.startswith("error: ")
    assert str(tmp_path) in told.err
    code, told = called(monkeypatch, capsys, "report", "--help")
    assert (code, told.out.splitlines()[0][:34]) == (0, "usage: python -m ez_jax.report DIR")


def test_help_waits_for_no_compiler():
    code = (
        "import runpy, sys\nfrom ez_jax import __main__ as m\n"
        "sys.argv = ['ez_jax', '--help']\nm.main()\n"
        "sys.argv = ['ez_jax', 'train', '--help']\nm.main()\nassert 'hydra' not in sys.modules\n"
        "sys.argv = ['train', '--help']\n"
        "try:\n    runpy.run_module('ez_jax.train', run_name='__main__')\n"
        "except SystemExit:\n    assert not {'jax', 'envpool', 'gymnasium'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "games, in any case" in done.stdout


def test_version_and_address_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    setup = (ROOT / "setup.cfg").read_text()
    assert citation["version"] == ez_jax.__version__
    assert f"\n## {ez_jax.__version__} (" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nurl = {citation['repository-code']}\n" in setup
    assert "\nversion = attr: ez_jax.__version__\n" in setup


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_workflows_and_templates_run_what_is_there(path):
    content = yaml.safe_load(path.read_text())
    steps = [step for job in content.get("jobs", {}).values() for step in job["steps"]]
    scripts = re.findall(r"bash (\S+)", "\n".join(step.get("run", "") for step in steps))
    assert all((ROOT / script).is_file() for script in scripts)
    assert content
