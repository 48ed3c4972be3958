"""Reproductions: their files agree with results and README, and runs are judged by their bands."""

import json
import re
import sys

import pytest
import runs
from runs import ROOT

from experiments import reproduce
from experiments.site import status
from ez_jax.config import BadInput, to_dict
from ez_jax.config.presets import PRESETS
from ez_jax.storage.run_folder import write_config

ALL = [reproduce.load(name) for name in reproduce.names()]


def make_run(folder, config, *evaluations):
    """A run folder with nothing but settings and evaluations: agent steps, updates, return."""
    folder.mkdir(parents=True)
    write_config(folder, to_dict(config))
    lines = [
        {"agent_steps": steps, "env_frames": steps, "updates": updates, "seconds": 1.0}
        | {"eval/return_mean": score}
        for steps, updates, score in evaluations
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def asked(capsys, *words):
    """Exit code and output of the command."""
    code = reproduce.main(list(words))
    return code, capsys.readouterr().out


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_every_reproduction_is_a_possible_run_with_bands_and_a_source(each):
    config = each.config(each.seeds[0])
    assert config.game == each.game
    assert config.preset in PRESETS
    assert config.seed == each.seeds[0]
    assert each.command.startswith("python -m ez_jax.train ")
    assert each.seeds == sorted(set(each.seeds))
    assert all(low <= high for low, high in each.expected.values())
    assert all(steps <= config.total_agent_steps for steps in each.expected)
    assert len(each.source) > 10


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_what_is_called_measured_lies_within_its_band(each):
    assert (each.status == "not yet") == (each.results == "")
    assert (each.status == "not yet") == (each.time == "not measured")
    if each.results:
        found = json.loads((ROOT / each.results).read_text())["runs"]
        assert [run["seed"] for run in found] == each.seeds
        assert reproduce.judge(each, [run["curve"] for run in found])[1]


README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "each", [e for e in ALL if f"| `{e.name}` |" in README], ids=lambda e: e.name
)
def test_the_readme_has_the_same_seeds_and_scores(each):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{each.name}` |"))
    _, _, seeds, told, steps, figure, _ = (cell.strip() for cell in row.split("|"))
    assert seeds == (f"{each.seeds[0]}-{each.seeds[-1]}" if len(each.seeds) > 1 else "0")
    last = max(each.expected)
    assert int(steps.replace(",", "")) == last
    scores = [round(score, 1) for score in status.scores_at(each, last)]
    shown = [float(number) for number in re.findall(r"\d+\.\d", told)]
    assert scores == shown[: len(scores)] or set(scores) == {shown[0]}
    assert each.results.removesuffix(".json") in figure


def test_the_list_tells_every_reproduction_with_its_status(capsys):
    code, out = asked(capsys)
    assert code == 0
    for each in ALL:
        assert f"{each.name}: {each.status}\n    {each.command}\n" in out
    assert "measured 500 at 10,000 steps (mean of 5 seeds): experiments" in out
    assert out.count("time: not measured") == 3


@pytest.mark.parametrize(
    ("score", "code", "said"), [(480.0, 0, "within"), (474.0, 1, "below"), (501.0, 1, "above")]
)
def test_a_run_is_judged_by_its_band(tmp_path, capsys, score, code, said):
    config = reproduce.load("cartpole").config(seed=7)
    points = (5_000, 1, 9.0), (10_002, 2, 9.0), (10_002, 3, score)
    folder = make_run(tmp_path / "run", config, *points)
    for words in ((), ("cartpole",)):
        found, out = asked(capsys, *words, f"check={folder}")
        assert found == code
        assert f"cartpole: {score:g} at 10,000 steps (1 seed), {said} 475 to 500" in out


def test_a_run_that_has_not_come_so_far_is_not_within(tmp_path, capsys):
    config = reproduce.load("cartpole").config(seed=0)
    folder = make_run(tmp_path / "run", config, (9_001, 4, 500.0))
    code, out = asked(capsys, f"check={folder}")
    assert code == 1
    assert "not at 10,000 steps yet" in out


def test_runs_with_other_settings_or_of_other_games_are_not_judged(tmp_path, capsys):
    config = reproduce.load("breakout_v2").config(seed=0)
    folder = make_run(tmp_path / "v2", config, (100_000, 4, 400.0))
    with pytest.raises(BadInput, match=r"is not breakout: .*instead of"):
        asked(capsys, "breakout", f"check={folder}")
    with pytest.raises(BadInput, match="is not pong: it is a run of Breakout"):
        asked(capsys, "pong", f"check={folder}")
    other = make_run(tmp_path / "tiny", runs.config(tmp_path / "tiny"), (160, 4, 9.0))
    with pytest.raises(BadInput, match="the settings of none of breakout, "):
        asked(capsys, f"check={other}")
    code, out = asked(capsys, f"check={folder}")
    assert (code, out.startswith("breakout_v2: 400 at 100,000 steps")) == (1, True)


@pytest.mark.parametrize("words", [("nothing",), ("cartpole", "pong"), ("seed=3",)])
def test_mistakes_are_one_sentence(capsys, words):
    with pytest.raises(BadInput):
        asked(capsys, *words)


def test_a_reproduction_is_run_for_every_seed_and_its_mean_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    each = reproduce.load("cartpole")
    commands = []

    def train(command):
        config = each.config(len(commands))
        folder = tmp_path / "runs/CartPole/default" / f"seed{len(commands)}"
        make_run(folder, config, (10_000, 1, 460.0 + 10 * len(commands)))
        commands.append(command[1:])
        return 0

    monkeypatch.setattr(reproduce, "wait", train)
    code, out = asked(capsys, "cartpole")
    assert commands == [["-m", "ez_jax.train", f"seed={seed}"] for seed in range(5)]
    assert code == 0
    assert "480 at 10,000 steps (mean of 5 seeds), within 475 to 500" in out


def test_a_command_that_fails_or_is_stopped_ends_it_with_the_same_code(monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "wait", lambda command: 130)
    code, out = asked(capsys, "cartpole")
    assert code == 130
    assert len(re.findall(r"^\$ ", out, re.MULTILINE)) == 1


def test_the_code_of_a_command_is_passed_on():
    assert reproduce.wait([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_a_band_made_from_our_own_runs_does_not_judge_them():
    own = {each.name for each in ALL if each.own_band}
    assert own == {each.name for each in ALL if " our " in f" {each.source}"}
    told = reproduce.tell(reproduce.load("crazyclimber_small"))
    assert "(1 seed), from which the band was made" in told
    assert "within" not in told
