"""Names of games and of their actions."""

import subprocess
import sys
from dataclasses import replace

import envpool
import pytest
from played import SMALL, TOY
from tiny import make_spec

from ez_jax import envs
from ez_jax.config import BadInput, games
from ez_jax.envs.action_names import action_names


@pytest.mark.parametrize(
    ("game", "backend", "task_id"),
    [
        ("Breakout", "envpool", "Breakout-v5"),
        ("breakout", "envpool", "Breakout-v5"),
        ("ms_pacman", "envpool", "MsPacman-v5"),
        ("ALE/Pong-v5", "envpool", "Pong-v5"),
        ("PongNoFrameskip-v4", "envpool", "Pong-v5"),
        ("Tetris", "envpool", "Tetris-v5"),
        ("CartPole", "envpool", "CartPole-v1"),
        ("CartPole-v0", "envpool", "CartPole-v0"),
        ("lunarlander", "envpool", "LunarLander-v3"),
        ("Catch", "envpool", "Catch-v0"),
        ("MiniGrid-Empty-5x5-v0", "envpool", "MiniGrid-Empty-5x5-v0"),
        ("gym:CartPole", "gymnasium", "CartPole-v1"),
        ("gymnasium:CartPole-v0", "gymnasium", "CartPole-v0"),
        ("CliffWalking-v1", "envpool", "CliffWalking-v1"),
        ("breakout-minatar", "gymnax", "Breakout-MinAtar"),
        ("Catch-bsuite", "gymnax", "Catch-bsuite"),
        ("gymnax:cartpole", "gymnax", "CartPole-v1"),
        ("gymnax:Freeway-MinAtar", "gymnax", "Freeway-MinAtar"),
        (f"{TOY}Counter-v0", "gymnasium", "ToyCounter-v0"),
        (f"gym:{TOY}Counter", "gymnasium", "ToyCounter-v0"),
        ("ToyCounter-v0", "gymnasium", "ToyCounter-v0"),
    ],
)
def test_names_are_found(game, backend, task_id):
    import toy_envs  # noqa: F401 the last name needs it registered

    task = games.find_task(game)

    assert (task.backend, task.task_id) == (backend, task_id)
    assert games.find_task(task.name) == replace(task, game=task.name)


@pytest.mark.parametrize(
    ("game", "backend", "words"),
    [
        ("breakot", "auto", "unknown game 'breakot'; did you mean Breakout"),
        ("LunarLandr", "auto", "did you mean LunarLander"),
        ("gym:CartPol-v1", "auto", "did you mean CartPole"),
        ("zzzzzzzz", "auto", "write a name such as Breakout"),
        ("", "auto", "write a name such as Breakout"),
        ("no_such_package:My-v0", "auto", "cannot import 'no_such_package'"),
        ("gym:Breakout", "auto", "env.backend=auto or envpool"),
        ("Breakout", "gymnasium", "env.backend=auto or envpool"),
        ("gym:CartPole", "envpool", "env.backend=auto or gymnasium"),
        ("gymnax:CartPole", "envpool", "env.backend=auto or gymnax"),
        ("Breakot-MinAtar", "auto", "did you mean Breakout-MinAtar"),
        ("CartpoleSwingap", "auto", "did you mean CartpoleSwingup"),
        ("HalfCheeta", "auto", "did you mean HalfCheetah"),
        ("gymnax:Pendulun", "auto", "did you mean Pendulum"),
        ("CartPole", "jax", "must be auto, envpool, gymnasium or gymnax"),
    ],
)
def test_a_bad_name_is_answered_with_what_mends_it(game, backend, words):
    with pytest.raises(BadInput) as caught:
        games.find_task(game, backend)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_missing_inside_the_users_package_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        games.find_task("half_there:My-v0")


def test_every_listed_game_leads_back_to_itself():
    listed = games.list_games()

    assert listed["Atari-100k"] == games.ATARI_100K
    assert {"CartPole", "Acrobot", "MountainCar"} <= set(listed["Classic control"])
    assert {"Pendulum", "MountainCarContinuous"} <= set(listed["Classic control"])
    assert {"LunarLander", "LunarLanderContinuous", "CarRacing"} <= set(listed["Box2D"])
    assert {"CartpoleSwingup", "WalkerWalk"} <= set(listed["DM Control"])
    assert "HalfCheetah" in listed["MuJoCo"]
    for name in (name for family in listed.values() for name in family):
        assert games.find_task(name).name == name


def test_atari_is_known_by_any_spelling():
    assert all(games.is_atari(game) for game in (*games.ATARI_100K, "ALE/Pong-v5", "ms_pacman"))
    assert not any(games.is_atari(game) for game in ("CartPole", "Catch", "xyz", "gym:CartPole"))


def test_a_name_for_gymnasium_is_resolved_without_importing_envpool():
    program = (
        "import sys; from ez_jax.config import games; games.find_task('gym:CartPole');"
        "sys.exit('envpool' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("game", "names"),
    [
        ("Breakout", ("noop", "fire", "right", "left")),
        ("CartPole", ("left", "right")),
        ("Breakout-MinAtar", ("none", "left", "right")),
        ("Catch-bsuite", ("left", "stay", "right")),
        (f"{TOY}Counter-v0", ("0", "1")),
        ("ReacherEasy", ("a0", "a1")),
    ],
)
def test_actions_are_called_by_their_names_or_numbers(game, names):
    env = envs.make_env(game, replace(SMALL, noop_max=1), num_envs=1, seed=0, training=False)
    assert env.action_names() == names
    assert env.lives().tolist() == [0]
    env.close()


@pytest.mark.long
def test_every_atari_game_has_a_name_for_every_action():
    ids = [task_id for task_id, family in games._envpool_ids().items() if "atari" in family]
    for task_id in ids:
        space = envpool.make_spec(task_id, full_action_space=False).action_space
        spec = make_spec(84, 84, 3, actions=int(space.n))
        named = action_names(replace(spec, backend="envpool", task_id=task_id))
        assert len(set(named)) == space.n
        assert not any(name.isdigit() for name in named), task_id
