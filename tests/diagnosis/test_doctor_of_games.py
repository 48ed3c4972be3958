"""`python -m ez_jax.doctor env=GAME` finds the one fault of each environment, and says its fix."""

import re

import faulty_envs
import gymnasium
import numpy as np
import pytest

from ez_jax import doctor
from ez_jax.config.presets import make_config
from ez_jax.diagnosis.game import checks, repeat
from ez_jax.diagnosis.game.play import Game, play
from ez_jax.diagnosis.verdicts import WIDTH
from ez_jax.system import exits


@pytest.fixture
def checked(monkeypatch, capsys):
    """Return call(env, *words) -> exit code, verdicts by check, and everything that was told."""

    def call(env, *words):
        code = exits.guarded(lambda: doctor.main([f"env={env}", "quick=true", *words]))
        told = capsys.readouterr()
        lines = re.findall(r"^  (OK|NOTE|FAIL) +(.+?)(?:  |$)", told.out, re.MULTILINE)
        return code, {name: verdict for verdict, name in lines}, told.out + told.err

    return call


def flawed(verdicts, kind):
    return [name for name, verdict in verdicts.items() if verdict == kind]


@pytest.mark.parametrize(
    ("name", "check", "fix"),
    [
        ("NotANumber", "random play", "is NaN, which comes of 0/0"),
        ("InfiniteReward", "random play", "the reward is inf, which comes of a division by 0"),
        ("Blind", "observations change", "observe the state after the action in step()"),
        ("Deaf", "actions matter", "use the action in step()"),
        ("Lonely", "actions matter", "give the agent a choice"),
        ("Leaking", "reset", "restore in reset()"),
        ("Rich", "rewards", "set network.support="),
        ("OldReset", "first observation", r"return (observation, {}) from reset()"),
        ("WrongShape", "first observation", "float32[3] of 0 to 0, but the space is Box"),
        ("GreyPicture", "picture", "return an image of uint8"),
        ("Crashing", "first step", "ZeroDivisionError: fault in the user's own code"),
        ("NeedsArgument", "name", "missing 1 required positional argument"),
        (
            "Unbounded",
            "actions",
            "TransformAction(env, lambda a: a, gymnasium.spaces.Box(-1, 1, (2",
        ),
        ("Notches", "actions", "declare a Box of floats and round in step()"),
        ("Buttons", "actions", "np.unravel_index(i, (2, 3))"),
        ("Switches", "actions", "np.unravel_index(i, (2, 2))"),
        ("Pair", "actions", "list those worth trying"),
        ("Voxels", "observations", "gymnasium.wrappers.FlattenObservation(env)"),
        ("WithImage", "observations", "gymnasium.wrappers.FilterObservation(env, ['image'])"),
        ("OldStep", "first step", "return (observation, reward, terminated, truncated, info)"),
        ("Growing", "observations", "numpy array of constant shape"),
    ],
)
def test_a_fault_is_found_with_its_fix(checked, name, check, fix):
    code, verdicts, told = checked(f"faulty_envs:{name}-v0")
    assert (code, flawed(verdicts, "FAIL")) == (exits.FAILED, [check])
    assert fix in re.sub(r"\s+", " ", told)
    assert "what it would get" not in told


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("Unseeded", ["same seed, same game", "reset"]),
        ("Stuck", ["games", "reset"]),
        ("Sharing", ["side by side", "reset"]),
    ],
)
def test_a_fault_that_shows_in_two_places_is_told_in_both(checked, name, checks):
    code, verdicts, _ = checked(f"faulty_envs:{name}-v0")
    assert (code, flawed(verdicts, "FAIL")) == (exits.FAILED, checks)


@pytest.mark.parametrize(
    ("name", "notes", "hint"),
    [
        ("Endless", ["games"], "cut after env.max_episode_steps=10,000"),
        ("Poor", ["rewards"], "make rewards larger"),
        ("Unpaid", ["rewards", "games"], "give some on the way"),
        ("OutOfBounds", ["first observation", "numbers", "warnings"], "divide by the usual size"),
        ("Codes", ["numbers"], "pixels reach 9 of 255"),
        ("FloatPicture", ["numbers"], "pixels reach 9 of 255"),
        ("Parts", [], "vector 10 float32"),
        ("Planes", [], "image 20x24x3 uint8, of 3x20x24"),
        ("Throttle", [], "actions of 2 numbers, observation 2 float32"),
        ("SamePicture", ["picture"], "render the current state"),
        ("Sulking", [], "after the end is refused"),
    ],
)
def test_what_works_but_should_be_thought_about_is_a_hint(checked, name, notes, hint):
    code, verdicts, told = checked(f"faulty_envs:{name}-v0", "network.support=20")
    assert (code, flawed(verdicts, "FAIL"), flawed(verdicts, "NOTE")) == (exits.DONE, [], notes)
    assert hint in re.sub(r"\s+", " ", told)


@pytest.mark.parametrize("name", faulty_envs.FIXED)
def test_the_wrapper_that_is_named_fixes(checked, name):
    code, verdicts, _ = checked(f"faulty_envs:Fixed{name}-v0")
    assert (code, flawed(verdicts, "FAIL")) == (exits.DONE, [])


def test_a_sound_environment_is_told_what_it_would_get(checked):
    code, verdicts, told = checked("faulty_envs:Walk-v0", "network.support=20")
    assert code == exits.DONE
    assert set(verdicts.values()) == {"OK"}
    rows = re.sub(r"\s+", " ", told.split("what it would get")[1])
    for part in ("2 actions, observation 2 float32", "small, seed 0", "16 simulations"):
        assert part in rows
    assert re.search(r"network +[\d,]+ parameters", rows)
    assert "all 20 checks succeeded" in told
    assert max(map(len, told.splitlines())) <= WIDTH


def test_the_settings_are_those_of_the_command_line(checked):
    _, _, told = checked("faulty_envs:Walk-v0", "preset=efficientzero_v2", "env.frame_stack=3")
    assert "efficientzero_v2, seed 0, gumbel search with 4 simulations" in told
    assert "a perceptron over 3 frames" in told


@pytest.mark.parametrize("game", ["CartPole", pytest.param("Catch-bsuite", marks=pytest.mark.long)])
def test_games_of_every_library_are_checked(checked, game):
    code, verdicts, told = checked(game)
    assert (code, flawed(verdicts, "NOTE")) == (exits.DONE, [])
    assert "all 14 checks succeeded" in told


def test_actions_that_a_library_cannot_give_are_told_in_its_sentence(checked):
    code, verdicts, told = checked("LqrLqr21")
    assert (code, verdicts) == (exits.FAILED, {"name": "FAIL"})
    assert "without usable bounds" in told


@pytest.mark.parametrize("name", ["Throttle", "FixedUnbounded"])
def test_continuous_actions_are_tried_like_others(name):
    game = Game(make_config(f"faulty_envs:{name}-v0"), 200)
    [*_, actions] = [stage[0].run() for stage in checks.stages(game) if stage[0].name == "actions"]
    assert re.fullmatch("2 numbers, (-3 to 9|-1 to 1)", actions)
    assert checks._first_step(game).startswith("observation, reward")
    assert re.fullmatch(r"1\d\d steps, \d+ games", checks._random_play(game))
    assert repeat.actions_matter(game) == "2 of 6 tried actions give different results"
    for check in (repeat.same_seed, repeat.other_seed, repeat.side_by_side):
        assert isinstance(check(game), str)
    assert "is answered" in repeat.reset_begins_anew(game)
    assert checks._picture(game)  # drawn, or a hint how


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["CartPoole"], "did you mean CartPole"),
        (["faulty_env:Walk-v0"], "cannot import 'faulty_env'"),
        (["CartPole", "preset=tiny"], "unknown preset 'tiny'"),
        (["CartPole", "learner.batch_sise=3"], "did you mean learner.batch_size"),
    ],
)
def test_mistakes_are_refused(checked, words, told):
    code, _, said = checked(*words)
    assert code == exits.BAD_INPUT
    assert told in said


def test_values_are_discounted_sums_inside_an_episode():
    config = make_config("faulty_envs:Walk-v0")
    played = play(config, [1, 0] * 40)
    rewards, firsts = played.reward, played.is_first
    for t in range(len(rewards) - 1):
        ends = [s for s in range(t + 1, len(rewards)) if firsts[s]]
        ahead = rewards[t + 1 : min(ends, default=len(rewards))]
        expected = sum(0.9**k * r for k, r in enumerate(ahead))
        assert played.values(0.9)[t] == pytest.approx(expected)


def test_lengths_and_returns_are_those_of_whole_games():
    env = gymnasium.make("faulty_envs:Walk-v0")
    env.reset(seed=0)
    length, total, is_over = 0, 0.0, False
    while not is_over:
        _, reward, is_over, _, _ = env.step(1)
        length, total = length + 1, total + reward
    played = play(make_config("faulty_envs:Walk-v0"), np.ones(30, int))
    assert played.lengths[0] == length
    assert played.returns[0] == pytest.approx(total)
    assert played.steps == 30 - played.is_first[1:].sum()
