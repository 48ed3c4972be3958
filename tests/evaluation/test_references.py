"""Published scores and curves: complete, well formed, sourced, and part of the package."""

import itertools
import json
import subprocess
import sys

import pytest
from runs import ROOT

from ez_jax.config import dotted_keys, families, presets
from ez_jax.config.games import ATARI_100K
from ez_jax.evaluation import references
from ez_jax.evaluation.scores import RANDOM_AND_HUMAN

OTHER_GAMES = ("CartPole", "Catch", "LunarLander")
MINATAR = tuple(
    f"{game}-MinAtar" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
)
CONTROL = (
    *("AcrobotSwingup", "CartpoleBalance", "CartpoleBalanceSparse", "CartpoleSwingup"),
    *("CartpoleSwingupSparse", "CheetahRun", "BallInCupCatch", "FingerSpin", "FingerTurnEasy"),
    *("FingerTurnHard", "HopperHop", "HopperStand", "PendulumSwingup", "QuadrupedRun"),
    *("QuadrupedWalk", "ReacherEasy", "ReacherHard", "WalkerRun", "WalkerStand", "WalkerWalk"),
)
GAMES = (*ATARI_100K, *OTHER_GAMES, *MINATAR, *CONTROL)
ALL = [r for game in GAMES for r in (*references.scores(game), *references.curves(game))]


def test_the_files_hold_no_game_under_a_name_that_nobody_asks_for():
    in_files = {row["game"] for name in ("scores", "curves") for row in rows(name)}
    assert in_files <= set(GAMES)
    assert {reference.game for reference in ALL} == set(GAMES)


def rows(name):
    return references._rows(f"{name}.csv")


@pytest.mark.parametrize("game", [*ATARI_100K, *OTHER_GAMES, *CONTROL])
def test_games_are_spelled_as_the_presets_spell_them(game):
    assert families.name_and_family(game)[0] == game


@pytest.mark.parametrize("game", ATARI_100K)
def test_every_game_of_atari_100k_has_the_scores_of_every_method(game):
    methods = [score.method for score in references.scores(game)]
    assert methods[:2] == ["random", "human"]
    assert methods == [score.method for score in references.scores("Alien")]
    assert tuple(s.score for s in references.scores(game)[:2]) == RANDOM_AND_HUMAN[game]
    assert {"EfficientZero", "EfficientZero V2", "BBF", "DreamerV3"} <= set(methods)


@pytest.mark.parametrize("game", MINATAR)
def test_the_games_of_minatar_have_scores_of_model_free_methods(game):
    # gymnax's own PPO was not run on Seaquest.
    assert len(references.scores(game)) == 5 - (game == "Seaquest-MinAtar")
    assert min(score.agent_steps for score in references.scores(game)) == 5_000_000


@pytest.mark.parametrize("game", CONTROL)
def test_tasks_of_the_control_suite_have_scores_after_100_or_200_thousand_frames(game):
    known = references.scores(game)
    methods = ["EfficientZero V2 (control)", "TD-MPC2", "SAC", "DreamerV3 (control)"]
    if game.startswith("Quadruped"):  # the figure has no DreamerV3 there
        methods.pop()
    assert [score.method for score in known] == methods
    assert len({score.agent_steps for score in known}) == 1
    assert known[0].agent_steps in (50_000, 100_000)
    assert all(0 <= score.score <= 1_001 for score in known)
    assert (
        known[0].settings["env.frame_skip"] == families.FAMILIES["dm_control"]["env"]["frame_skip"]
    )


def test_every_reference_has_a_source_and_a_protocol():
    for reference in ALL:
        assert "arXiv:" in reference.source or "/" in reference.source
        assert len(reference.protocol) > 20


def test_the_settings_of_a_reference_are_keys_of_the_configuration():
    for reference in ALL:
        assert reference.settings
        assert reference.settings.keys() <= set(dotted_keys())
        assert reference.settings.get("preset", "small") in presets.PRESETS


def test_curves_rise_in_steps_and_lie_in_their_bands():
    for game in GAMES:
        for curve in references.curves(game):
            assert len(curve.agent_steps) == len(curve.scores) > 3
            assert all(a < b for a, b in itertools.pairwise(curve.agent_steps))
            if curve.low is not None:
                assert len(curve.low) == len(curve.high) == len(curve.scores)
                triples = zip(curve.low, curve.scores, curve.high, strict=True)
                assert all(low <= score <= high for low, score, high in triples)


def test_the_published_curves_end_near_the_published_table():
    for game in ("Breakout", "Pong"):
        (curve,) = references.curves(game)
        table = {score.method: score.score for score in references.scores(game)}
        assert curve.agent_steps[-1] == 100_000
        assert curve.scores[-1] == pytest.approx(table["EfficientZero"], rel=0.02)


@pytest.mark.parametrize(
    ("spelling", "game"),
    [
        ("ALE/Breakout-v5", "Breakout"),
        ("breakout", "Breakout"),
        ("PongNoFrameskip-v4", "Pong"),
        ("gymnax:Breakout-MinAtar", "Breakout-MinAtar"),
        ("gym:CartPole-v1", "CartPole"),
    ],
)
def test_other_spellings_lead_to_the_same_references(spelling, game):
    assert references.scores(spelling) == references.scores(game)
    assert references.curves(spelling) == references.curves(game)
    assert {r.game for r in references.scores(spelling) + references.curves(spelling)} == {game}


def test_a_game_that_nobody_played_has_no_references():
    assert references.scores("my_package:Breakout-v0") == references.curves("Acrobot") == ()


def test_our_own_bands_are_those_of_the_committed_results(tmp_path, monkeypatch):
    from experiments import bands

    monkeypatch.setattr(bands, "MEASURED", tmp_path / "measured.json")
    bands.main()
    assert json.loads((tmp_path / "measured.json").read_text()) == json.loads(
        (references.DATA / "measured.json").read_text()
    )
    (curve,) = references.curves("CartPole")
    runs = json.loads((ROOT / "experiments/results/cartpole.json").read_text())["runs"]
    last = [run["curve"][-1]["eval/return_mean"] for run in runs]
    assert (curve.low[-1], curve.high[-1]) == (min(last), max(last))


def test_what_a_wheel_is_made_of_holds_the_data(tmp_path):
    pytest.importorskip("setuptools")
    files = ["setup.cfg", "README.md", "LICENSE", "ez_jax/__init__.py"]
    data = [f"ez_jax/evaluation/reference_data/{item.name}" for item in references.DATA.iterdir()]
    for name in (*files, *data):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    build = "import setuptools; setuptools.setup(script_args=['build_py', '--build-lib=built'])"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    assert len(data) == 4
    assert all((tmp_path / "built" / name).is_file() for name in data)
