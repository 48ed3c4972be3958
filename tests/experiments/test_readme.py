"""The README: short, its links lead somewhere, and its commands work."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from runs import ROOT

from experiments import readme_picture
from ez_jax import __main__ as command
from ez_jax.config import presets
from ez_jax.terminal import arguments

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line.partition("  #")[0])[1:]
    for block in BLOCKS
    for line in block.splitlines()
    if line.startswith("ez_jax ")
]
TINY = [
    *("total_agent_steps=200", "learner.start=112", "updates_per_step=0.1"),
    *("learner.batch_size=8", "search.num_simulations=2", "log.progress=false"),
    *("eval.episodes=2", "eval.num_envs=2", "eval.every=0"),
]
MOST_LINES = 150


def test_it_is_short():
    assert len(README.splitlines()) <= MOST_LINES


def test_its_links_lead_to_files_and_headings():
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", README):
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\s-]", "", each).strip().lower() for each in headings]
            assert anchor in [re.sub(r"\s+", "-", slug) for slug in slugs], link
    for name in re.findall(r"blob/main/(notebooks/\S+?\.ipynb)", README):
        assert (ROOT / name).is_file()


def test_its_commands_are_there_and_its_runs_can_be_composed():
    assert {words[0] for words in COMMANDS} == set(command.COMMANDS)
    for name, *words in COMMANDS:
        if name == "train" and "my_package:MyEnv-v0" not in " ".join(words):
            _, settings = arguments.take(words, arguments.OWN)
            overrides, _ = arguments.split(settings)
            arguments.parse(overrides, sweep="-m" in words)


def test_every_preset_is_named():
    assert all(f"`{name}`" in README for name in presets.PRESETS)


def test_its_two_commands_install_what_setup_cfg_offers():
    setup = (ROOT / "setup.cfg").read_text()
    extras = set(re.findall(r'"\.\[(\w+)\]"', README))
    assert extras == {"cuda12", "cuda13", "tpu", "test", "wandb"}
    assert all(f"\n{extra} =\n" in setup for extra in extras)


@pytest.mark.long
def test_the_quick_start_works_and_the_picture_is_drawn_from_it(tmp_path, monkeypatch):
    quick = next(block for block in BLOCKS if "run=pretrained:" in block)
    lines = [line.partition("  #")[0].strip() for line in quick.splitlines()]
    assert [line.split()[1] for line in lines] == ["evaluate", "train", "evaluate", "inspect"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line in lines:
        _, name, *words = line.split()
        words += TINY if name == "train" else ["max_steps=5"] if name == "inspect" else []
        call = [sys.executable, "-m", "ez_jax", name, *words]
        subprocess.run(call, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert list(tmp_path.glob("runs/pretrained/Breakout/videos/*.mp4"))
    run = tmp_path / "runs/CartPole/default/seed0"
    assert (run / "inspect.html").stat().st_size > 0
    assert len(list((run / "videos").iterdir())) == 2  # as many episodes as there are
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["action"] in (0, 1)
    readme_picture.main(["picture.gif", str(run), "--seconds", "0.5", "--random", "20"])
    assert 0 < (tmp_path / "picture.gif").stat().st_size < 1_000_000


def test_the_picture_of_the_readme_is_small():
    assert (ROOT / "docs/assets/trained.gif").stat().st_size < 1_000_000
