"""The command line: spelling, precedence, messages, exit codes.

Configurations are composed inside this process; a few real processes test what only they can.
"""

import errno
import json
import os
import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from print_config import command
from runs import ROOT

from ez_jax import config
from ez_jax.config import BadInput, checks, presets
from ez_jax.system import exits
from ez_jax.terminal import arguments, help_page


def composed(*words):
    return arguments.compose(words)


def test_without_words_cartpole_is_trained_with_the_small_preset():
    assert composed() == presets.make_config("CartPole", "small")


@pytest.mark.parametrize(
    "word", ["game=LunarLander", "+game=LunarLander", "++game=LunarLander", "game=lunarlander"]
)
def test_every_spelling_of_a_game_works(word):
    assert composed(word) == presets.make_config("LunarLander")


def test_atari_is_played_with_the_published_settings_in_any_case():
    chosen = composed("game=breakout")
    assert (chosen.game, chosen.preset) == ("Breakout", "efficientzero")
    # Nobody cuts games of other families while a run trains.
    cut = {"eval.max_episode_steps": 3_000}
    assert chosen == config.override(config.Config(game="Breakout"), cut)


def test_any_gymnasium_id_is_a_game():
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register("EzJaxTest-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    chosen = composed("+game=gymnasium:EzJaxTest-v0")
    assert (chosen.game, chosen.preset) == ("gymnasium:EzJaxTest-v0", "small")


def test_an_explicit_preset_wins_over_the_games_own():
    assert composed("game=CartPole", "preset=efficientzero").search.policy == "puct_ez"
    atari = composed("preset=small", "game=Pong")
    assert (atari.preset, atari.env.image_size, atari.env.grayscale) == ("small", 84, True)
    assert atari == presets.make_config("Pong", "small")


def test_an_explicit_number_wins_over_everything():
    chosen = composed("learner.batch_size=8", "+env.frame_stack=2", "preset=small", "game=CartPole")
    assert (chosen.learner.batch_size, chosen.env.frame_stack) == (8, 2)


@pytest.mark.parametrize("word", ["ablation=no_consistency", "+ablation=no_consistency"])
def test_an_ablation_switches_one_idea_off(word):
    assert composed(word) == presets.make_config(ablations=["no_consistency"])


def test_ablations_can_be_combined():
    names = ["no_consistency", "no_reanalyse"]
    assert composed("ablation=[no_consistency,no_reanalyse]") == presets.make_config(
        ablations=names
    )


def test_the_sticky_protocol_makes_actions_stick():
    assert composed("game=Pong", "protocol=sticky").env.sticky_actions == 0.25


@pytest.mark.parametrize("word", ["compat=official", "+compat=official"])
def test_compat_asks_for_what_the_official_code_gets_wrong(word):
    chosen = composed("game=Pong", word)
    assert (chosen.search.policy, chosen.search.minmax) == ("puct_ez", "official")
    assert chosen.targets.block_length == 400
    assert composed("game=Pong", "compat=none") == composed("game=Pong")


def test_named_sets_win_in_the_order_in_which_they_are_typed():
    words = ["compat=official", "ablation=gumbel_search"]
    assert composed("game=Pong", *words).search.policy == "gumbel"
    assert composed("game=Pong", *reversed(words)).search.policy == "puct_ez"
    chosen = presets.make_config("Pong", ablations=["gumbel_search"], compat="official")
    assert chosen == composed("game=Pong", *words)


def test_a_setting_may_refer_to_others():
    chosen = composed("name=${preset}_${learner.batch_size}", "game=Pong", "seed=${eval.episodes}")
    assert (chosen.name, chosen.seed) == ("efficientzero_256", 32)
    with pytest.raises(BadInput, match="Interpolation key 'nothing' not found"):
        composed("name=${nothing}")


def test_a_path_may_hold_any_character():
    assert composed("run_dir=/tmp/it's a=b, {c}\\d").run_dir == "/tmp/it's a=b, {c}\\d"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learner.batchsize=64"], "unknown key 'learner.batchsize'; did you mean .*batch_size"),
        (["sed=1"], "did you mean seed"),
        (["presett=small"], "did you mean preset"),
        (["search=gumbel"], "'search' is a section"),
        (["preset=smal"], "unknown preset 'smal'; did you mean small"),
        (["preset=zzz"], "unknown preset 'zzz'; choose efficientzero or efficientzero_v2 or"),
        (["-m", "ablation=no_consistency,no_consistancy"], "did you mean no_consistency"),
        (["game=breakot"], "Breakout"),
        (["game=[Pong,Breakout]"], "write -m game=A,B"),
        (["game=Pong,Breakout"], "add -m"),
        (["seed=0,1"], "add -m"),
        (["learner.batch_size=[1"], "cannot read"),
        (["~learner.batch_size=8"], "would remove a key"),
        (["~learner.batch_size"], "would remove a key"),
        (["ablation=no_consistency", "+ablation=no_reanalyse"], "write one list, ablation="),
        (["-m", "preset=[small,efficientzero]"], "a run has one preset"),
        (["-m", "seed=0,1", "run_dir=here"], "run_dir is one folder"),
    ],
)
def test_mistakes_are_refused_with_the_fix(words, message):
    with pytest.raises(BadInput, match=message):
        arguments.parse([word for word in words if word != "-m"], sweep="-m" in words)


def test_runs_of_a_sweep_have_names_of_their_own():
    run = ["+game=Pong", "seed=1", "search.num_simulations=8", "learner.batch_size=64"]
    assert arguments.run_name(run) == "search.num_simulations-8_batch_size-64"
    assert arguments.run_name(["+game=Pong", "seed=1"]) == "default"
    long = [f"learner.learning_rate={'1' * n}" for n in (200, 201)]
    assert len({arguments.run_name([run]) for run in long}) == 2
    assert max(len(arguments.run_name([run])) for run in long) < 120


def test_read_tells_own_keys_from_the_configurations():
    own = {"run": "", "episodes": 32, "video": 0}
    values, changes = arguments.read(
        ["run=runs/a=b", "episodes=4", "search.num_simulations=50"], own
    )
    assert values == {"run": "runs/a=b", "episodes": 4, "video": 0}
    assert changes == {"search.num_simulations": 50}


@pytest.mark.parametrize(
    ("word", "message"),
    [("epsodes=3", "did you mean episodes"), ("episodes=x", "whole number"), ("4", "cannot read")],
)
def test_read_refuses_mistakes(word, message):
    with pytest.raises(BadInput, match=message):
        arguments.read([word], {"run": "", "episodes": 32})


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("action", "code", "told"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (lambda: _raise(BadInput("no such game")), 2, "error: no such game\n"),
        (lambda: _raise(KeyboardInterrupt()), 130, "interrupted\n"),
    ],
)
def test_guarded_turns_endings_into_exit_codes(action, code, told, capsys):
    assert exits.guarded(action) == code
    assert capsys.readouterr().err == told


def test_a_crash_shows_its_own_traceback_and_exits_with_1(tmp_path):
    result = command("name=crash", cwd=tmp_path)
    assert result.returncode == 1
    assert "in show" in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: the original message\n")


def test_a_single_run_leaves_nothing_behind_and_says_nothing(tmp_path):
    result = command("total_agent_steps=1e5", cwd=tmp_path)
    assert json.loads(result.stdout)["total_agent_steps"] == 100_000
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_bad_values_exit_with_2_in_one_sentence(tmp_path):
    result = command("learner.batch_size=many", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: learner.batch_size is 'many': expected a whole number\n"


def test_a_sweep_gives_each_run_a_folder_and_ends_with_1_if_one_failed(tmp_path):
    words = ["game=CartPole,Acrobot", "preset=small,efficientzero", "learner.batch_size=4,8"]
    result = command("-m", "seed=13,0", *words, cwd=tmp_path)
    runs = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    folders = {config.run_folder(config.from_dict(run)) for run in runs}
    assert result.returncode == 1
    assert len(folders) == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_lists_and_patterns_of_ablations_are_swept(tmp_path):
    words = ["ablation=[no_consistency,no_value_prefix],no_prioritised", "preset=glob(effic*_v2)"]
    result = command("-m", *words, cwd=tmp_path)
    assert result.stderr == ""
    runs = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [(run["consistency"], run["prioritised"]) for run in runs] == [
        (False, True),
        (True, False),
    ]
    assert {run["preset"] for run in runs} == {"efficientzero_v2"}


def test_the_configuration_of_a_sweep_is_not_printed(tmp_path):
    result = command("-m", "--cfg", "job", "seed=0,1", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        2,
        "error: --cfg and --info are for one run: leave out -m\n",
    )


def test_an_interrupt_ends_a_sweep(tmp_path):
    result = command("-m", "seed=7,0", cwd=tmp_path)
    assert result.returncode == 130
    assert result.stdout.count("sweep, run") == 1


def test_cfg_job_prints_the_resolved_configuration(tmp_path):
    result = command("--cfg", "job", "seed=5", cwd=tmp_path)
    assert config.from_dict(OmegaConf.to_container(OmegaConf.create(result.stdout))).seed == 5


def test_help_names_games_presets_and_ablations(tmp_path):
    result = command("--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("Prints the configuration.", "Breakout", "LunarLander", *presets.ABLATIONS):
        assert word in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_what_help_says_of_switches_and_choices_is_true():
    switches = help_page._KEYS.partition("switches of the ideas")[2].splitlines()[1:]
    words = [word for line in switches for word in line.split()]
    assert len(words) == 6
    for word in words:
        assert arguments.compose([word]) != arguments.compose([])  # alone, on the default run
    listed = re.findall(r"([\w.]+)=(?:P +)?(\w+(?:\|\w+)+)", help_page._KEYS)
    assert len(listed) == 3
    for key, choices in listed:
        assert set(choices.split("|")) == set(checks.CHOICES[key])


def test_help_lists_the_games_of_envpool():
    """Otherwise: `python -m ez_jax.terminal.help_page`."""
    assert help_page.GAMES.read_text() == help_page.games_of_envpool()


def of_tensorstore(number):
    said = f"Failed to write 517 bytes to file 21: {os.strerror(number)}"
    return ValueError(f"RESOURCE_EXHAUSTED: Error: {said} [os_error_code='{number}']")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "the disk is full (a/b); make"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the quota of the disk is used up; make"),
        (OSError(errno.EROFS, "Read-only file system"), "the disk can only be read; have"),
        (of_tensorstore(errno.ENOSPC), "the disk is full; make room"),
        (of_tensorstore(errno.EDQUOT), "the quota of the disk is used up; make"),
        (of_tensorstore(errno.EFBIG), "a file may not grow any more; allow"),
    ],
)
def test_a_full_disk_is_told_in_a_sentence(capsys, error, said):
    def write():
        try:
            raise error
        finally:
            raise RuntimeError("while tidying up")

    assert exits.guarded(write, full_errors=False) == exits.FAILED
    assert capsys.readouterr().err.startswith(f"error: {said}")
    assert exits.guarded(write, full_errors=True) == exits.FAILED
    told = capsys.readouterr().err
    assert "while tidying up" in told
    assert told.splitlines()[-1].startswith(f"error: {said}")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345 bytes"),
        OSError(errno.EIO, "Input/output error"),
        of_tensorstore(errno.EMFILE),
    ],
)
def test_what_is_no_full_disk_has_its_traceback(capsys, error):
    def write():
        raise error

    assert exits.guarded(write) == exits.FAILED
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "error: " not in told


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("ez_jax.train --help >&-", exits.DONE, ""),
        ("ez_jax.train --help >/dev/full", exits.FAILED, "error: the disk is full; make room"),
        (
            "ez_jax.evaluate run=/no/where >&-",
            exits.BAD_INPUT,
            "error: /no/where is not a run folder",
        ),
        ("ez_jax.evaluate run=/no/where >&- 2>&-", exits.BAD_INPUT, ""),
    ],
)
def test_streams_that_are_closed_or_full(monkeypatch, command, code, said):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # of tests in this process
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m {command}"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert said or not done.stderr


def test_a_reader_that_has_had_enough_is_not_told_of_it(tmp_path):
    words = [
        "import sys; from ez_jax.system import exits",
        "say = lambda: sys.stdout.write('line\\n' * 10**6)",
    ]
    code = "; ".join([*words, "sys.exit(exits.guarded(lambda: say() and 0))"])
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False, cwd=ROOT
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (exits.FAILED, b"")
