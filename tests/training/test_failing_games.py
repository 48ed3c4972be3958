"""A game that fails takes nothing along: what was learned is saved, and the run gets past it."""

import json

import failing_games
import numpy as np
import pytest
import runs
import tiny

from ez_jax.config import from_dict, override
from ez_jax.config.errors import Fault
from ez_jax.storage.metrics import read_metrics
from ez_jax.storage.run_folder import read_config
from ez_jax.terminal.progress import Progress
from ez_jax.training.run import Run

pytestmark = pytest.mark.long


WHILE_LEARNING = "eval.every=0"  # the game is to fail while it is learned from
AGAIN = "the same command goes on"


def train(folder, game, *more, **variables):
    words = [word for word in runs.train_words(folder) if not word.startswith("+game")]
    environment = {"PYTHONPATH": f"{runs.ROOT}:{runs.ROOT / 'tests'}", **variables}
    game = f"game=failing_games:{game}-v0"
    return runs.wait(runs.start("ez_jax.train", game, *words, *more, variables=environment))


@pytest.mark.parametrize(
    "game", ["NanReward", "InfinitySeen", "Leaves", "Closes", "Interrupts", "Breaks"]
)
def test_a_run_goes_on_past_a_game_that_fails(tmp_path, game):
    steps, said = [], ""
    for _ in range(2):
        done = train(tmp_path, game, WHILE_LEARNING)
        assert done.returncode == 1, done.stderr
        steps.append(runs.latest_checkpoint(tmp_path))
        said = done.stdout + done.stderr
        assert f"{AGAIN} with new games" in " ".join(said.split())
        if game != "Breaks":
            assert "Traceback" not in done.stderr
            assert done.stderr.splitlines()[-1].startswith(f"error: 'failing_games:{game}-v0'")
    assert 0 < steps[0] < steps[1]
    assert f"resumed at {steps[0]} agent steps" in said
    bundles = sorted((tmp_path / "crashes").iterdir())
    assert len(bundles) == 2
    assert json.loads((bundles[-1] / "crash.json").read_text())["clocks"]["agent_steps"] == steps[1]
    config = override(from_dict(read_config(tmp_path)), {"run_dir": str(tmp_path)})
    with Run(config, Progress(live=False)) as run:
        rows = run.state.replay.rows
        assert np.isfinite(rows.reward).all()
        assert np.isfinite(rows.observation).all()


def test_a_score_that_cannot_be_had_does_not_end_the_run(tmp_path, monkeypatch):
    config = tiny.make_config({"run_dir": str(tmp_path)})
    with Run(config, Progress(live=False)) as run:
        step = run.begin()
        monkeypatch.setattr(run, "_evaluate", failing_games.raising(Fault("no game")))
        run.evaluate()
        assert "evaluate" not in run.record.due()
        run.games.send(run.decide(step))
        run.observe()
        with pytest.raises(Fault, match="no last score: no game"):
            run.finish()
    assert runs.latest_checkpoint(tmp_path) > 0


def test_a_game_that_breaks_in_an_evaluation_takes_nothing_along(tmp_path):
    steps, words = [], (f"eval.seed={failing_games.EVALUATED}", "eval.every=60")
    for number in range(3):  # evaluations at 60, 120 and at the end, 160
        done = train(tmp_path, "BreaksInEvaluation", *words)
        assert done.returncode == 1, done.stderr
        steps.append(runs.latest_checkpoint(tmp_path))
        own, said = "ZeroDivisionError: the game's own", " ".join(done.stdout.split())
        assert done.stderr.splitlines()[-1] == own
        # Tried once more where the run goes on, and then left out.
        at = f"no score at {(steps + steps)[number - 1]} agent steps: {own}"
        assert done.stderr.count(own) == 1 + (number > 0) == 1 + (at in said)
        how = "tries the last evaluation again" if number == 2 else "goes on, without this score"
        assert f"the same command {how}" in said
    assert 60 <= steps[0] < 120 <= steps[1] < steps[2] == runs.STEPS
    sound = tmp_path / "sound"
    assert train(sound, "Sound", *words).returncode == 0
    same = lambda folder: [  # noqa: E731
        {**line, "seconds": 0} for line in read_metrics(folder) if "loss/total" in line
    ]
    assert same(tmp_path) == same(sound)


def test_games_that_fail_when_told_the_same_again_begin_anew(tmp_path, monkeypatch, capsys):
    config = tiny.make_config({"run_dir": str(tmp_path)})
    with Run(config, Progress(live=False)) as run:
        step = run.begin()
        run.games.send(run.decide(step))
        run.observe()
        run.save()
    with Run(config, Progress(live=False)) as run:
        monkeypatch.setattr(run.games, "bring_back", failing_games.raising(OSError("not now")))
        step = run.begin()
        assert step.is_first.all()
        run.games.send(run.decide(step))
        run.observe()
    said = " ".join(capsys.readouterr().out.split())
    assert "told the same actions it failed (OSError: not now); new games begin" in said
