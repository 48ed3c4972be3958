"""Whole training runs: what they leave behind, their pace, interruption, resumption, refusals."""

import contextlib
import io
import json
import math
import re
import shutil
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import runs
import yaml

from ez_jax.agent import schedules
from ez_jax.config import to_dict
from ez_jax.diagnosis import crash_replay
from ez_jax.storage import crash_bundle
from ez_jax.storage.metrics import EVALUATION, read_metrics
from ez_jax.structs import Clocks, TimeStep
from ez_jax.system import exits
from ez_jax.system.signals import Interrupt
from ez_jax.terminal.progress import Progress, score_text
from ez_jax.train import train
from ez_jax.training.run import Run

CLOCKS = {"agent_steps", "env_frames", "updates", "seconds"}

pytestmark = pytest.mark.usefixtures("quick_compiling")


def untimed(lines):
    """Lines of metrics without the one number that no two runs share."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def is_evaluation(line):
    return "eval/return_mean" in line


def steps_of(lines, *, evaluations):
    return [line["agent_steps"] for line in lines if is_evaluation(line) == evaluations]


def assert_complete_without_seams(lines):
    """Every line that was due is there once, in order, at the exact pace, up to the end."""
    clocks = [(line["agent_steps"], line["updates"], is_evaluation(line)) for line in lines]
    assert clocks == sorted(set(clocks)), "a line is doubled or out of order"
    for every, evaluations in [(runs.LOG_EVERY, False), (runs.EVAL_EVERY, True)]:
        periods = {steps // every for steps in steps_of(lines, evaluations=evaluations)}
        assert periods - {0} == set(range(1, runs.STEPS // every + 1)), "a line is missing"
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    for line in lines:
        assert line["updates"] == due(line["agent_steps"]) or line["agent_steps"] >= runs.STEPS
    last = lines[-1]
    assert last["agent_steps"] >= runs.STEPS
    assert last["updates"] == due(runs.STEPS) + runs.FINAL_UPDATES
    assert is_evaluation(last)


def due(agent_steps):
    return math.floor(max(0, agent_steps - runs.START) * runs.UPDATES_PER_STEP)


# A run from start to end.


def test_a_run_leaves_its_configuration_scores_events_and_last_checkpoint(finished):
    folder = finished.folder
    expected = to_dict(runs.config(finished.made_in))
    assert yaml.safe_load((folder / "config.yaml").read_text()) == expected
    last = read_metrics(folder)[-1]
    assert runs.latest_checkpoint(folder) == last["agent_steps"]
    assert [path.stat().st_size > 1000 for path in folder.glob("events.out.tfevents.*")] == [True]
    leftovers = [name for name in runs.contents(folder) if ".part" in name or ".write-test" in name]
    assert leftovers == []


def test_the_scores_are_those_of_the_last_evaluation_with_their_provenance(finished):
    scores = json.loads((finished.folder / "scores.json").read_text())
    last = read_metrics(finished.folder)[-1]
    assert scores["mean"] == last["eval/return_mean"] == sum(scores["returns"]) / 3
    assert scores["episodes"] == len(scores["returns"]) == 3
    assert (scores["agent_steps"], scores["updates"]) == (last["agent_steps"], last["updates"])
    assert scores["protocol"] == {
        "game": "CartPole",
        "frame_skip": 1,
        "sticky_actions": 0.0,
        "noop_max": 0,
        "max_episode_steps": 30,
        "episodic_life": False,
        "reward_clip": False,
        "search": "gumbel",
        "num_simulations": 2,
        "first_seed": 1_000_000,
        "epsilon": 0.0,
    }
    assert scores["protocol_name"] == "no sticky actions"
    assert scores["limit"] == {"agent_steps": 30, "env_frames": 30}
    assert 1 <= scores["distinct"] == last["eval/distinct"] <= 3
    assert last["eval/max_episode_steps"] == 30
    assert scores["device"].startswith(jax.devices()[0].platform)
    assert scores["versions"]["jax"] == jax.__version__
    assert scores["human_normalised"] is None


def test_every_line_of_metrics_begins_with_the_clocks(finished):
    lines = read_metrics(finished.folder)
    for line in lines:
        assert line.keys() > CLOCKS
        assert line["env_frames"] == line["agent_steps"]  # no frame is skipped in CartPole
    learned = [line for line in lines if line["updates"] and not is_evaluation(line)]
    for name in ("loss/total", "loss/value", "loss/value_prefix", "loss/policy"):
        assert all(name in line for line in learned)


def test_updates_keep_the_exact_pace_and_the_final_ones_are_done(finished):
    assert_complete_without_seams(read_metrics(finished.folder))


def test_steps_past_the_end_owe_no_updates(tmp_path):
    # All environments step together, so that a run can end some steps late.
    config = runs.config(tmp_path, {"final_updates": 0})
    clocks = Clocks(agent_steps=runs.STEPS + 10, updates=due(runs.STEPS))
    assert (schedules.updates_due(config, clocks), schedules.updates_left(config, clocks)) == (0, 0)


@pytest.mark.long
def test_search_can_begin_at_once_and_by_the_number_of_actions(tmp_path):
    changes = {
        "search.num_simulations": 0,
        "search.max_considered_actions": 0,
        "actor.random_start": False,
    }
    folder = tmp_path / "run"
    with Run(runs.config(folder, changes), Progress(live=False)) as run:
        rng = np.random.default_rng(0)
        noisy = lambda x: x + rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
        variables = jax.tree.map(noisy, run.state.train.variables)
        run.state = run.state.replace(train=run.state.train.replace(variables=variables))
        run.decide(run.begin())
        policy = run.state.replay.rows.policy[0]
    assert np.all(policy != 0.5), "found, not drawn evenly"
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["search"]["num_simulations"] == 0, "as asked for"


@pytest.mark.long
def test_a_slow_run_is_saved_by_the_clock_on_the_wall(tmp_path, monkeypatch):
    config = runs.config(tmp_path, {"checkpoint.every": 0, "checkpoint.minutes": 5.0})
    with Run(config, Progress(live=False)) as run:
        run.games.send(run.decide(run.begin()))
        run.games.recv()
        run.report()
        run.record.checkpointer.wait()
        assert runs.latest_checkpoint(tmp_path) is None
        now = time.perf_counter()
        monkeypatch.setattr(time, "perf_counter", lambda: now + 301)
        run.report()
        run.record.checkpointer.wait()
        assert runs.latest_checkpoint(tmp_path) == 2


def test_the_loop_moves_nothing_unasked_and_compiles_nothing_after_its_first_rounds(tmp_path):
    # log.every: a line of metrics is fetched, which is asked for.
    changes = {"log.every": 1_000, "eval.every": 0, "checkpoint.every": 0}
    config = runs.config(tmp_path, changes)
    compilations = []
    with Run(config, Progress(live=False)) as run:

        def play(step: TimeStep, agent_steps: int) -> TimeStep:
            while run.clocks.agent_steps < agent_steps:
                run.games.send(run.decide(step))
                run.learn(run.updates_due())
                step = run.games.recv()
                run.report()
            return step

        step = play(run.begin(), 60)  # past the random start
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, *_, **__: compilations.append(name) if "compile" in name else None
        )
        with jax.transfer_guard("disallow"):
            with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
                jax.jit(lambda x: x + 1)(np.ones(3))  # the guard is on
            compilations.clear()
            play(step, 120)
        assert run.clocks.updates == due(run.clocks.agent_steps)
    assert compilations == []


def test_without_a_terminal_the_output_is_plain_lines_that_tell_the_whole_story(finished):
    assert finished.stderr == ""
    lines = finished.stdout.splitlines()
    assert all(character.isprintable() for line in lines for character in line)
    story = ["game ", "device ", "memory ", "folder ", "compiling acting", "compiled acting"]
    story += ["compiling learning", "evaluation at", "done:", "next: python -m ez_jax.inspect"]
    positions = [next(i for i, line in enumerate(lines) if told in line) for told in story]
    assert positions == sorted(positions)


def test_each_evaluation_is_told_with_its_error_and_the_end_with_score_and_time(finished):
    lines = finished.stdout.splitlines()
    told = [line.partition(": ")[2] for line in lines if line.startswith("evaluation at")]
    evaluations = [line for line in read_metrics(finished.folder) if EVALUATION in line]
    assert told == [score_text(line) for line in evaluations]
    (done,) = (line for line in lines if line.startswith("done:"))
    assert done.startswith(f"done: {told[-1]} after {evaluations[-1]['agent_steps']:,} agent steps")
    assert re.search(r" updates, [\dmin ]+ s, /.*finished$", done)


def test_the_same_command_on_a_complete_run_says_so_and_changes_nothing(finished, capsys):
    before = runs.contents(finished.folder)
    assert train(runs.config(finished.folder)) == exits.DONE
    assert "this run is complete" in capsys.readouterr().out
    assert runs.contents(finished.folder) == before


# Interrupted and resumed.


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run killed by SIGKILL while it learned, and completed by the same command."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    often = "checkpoint.every=10"  # it also slows the run down, so that the signal is in time
    process = runs.start("ez_jax.train", *runs.train_words(folder, often))
    for line in process.stdout:
        steps, _, rest = line.partition("/")
        if f"{runs.STEPS} steps" in rest and int(steps) >= 3 * runs.LOG_EVERY:
            process.send_signal(signal.SIGKILL)
            break
    assert runs.wait(process).returncode == -signal.SIGKILL
    saved = runs.latest_checkpoint(folder)
    return SimpleNamespace(folder=folder, saved=saved, resumed=runs.train(folder, often))


@pytest.mark.long
def test_the_same_command_completes_a_run_that_was_killed(killed):
    assert killed.resumed.returncode == exits.DONE, killed.resumed.stderr
    assert 0 < killed.saved < runs.STEPS
    assert f"resumed at {killed.saved} agent steps" in killed.resumed.stdout
    assert_complete_without_seams(read_metrics(killed.folder))


@pytest.mark.long
def test_a_run_that_was_killed_ends_bit_by_bit_as_one_that_was_not(finished, killed):
    runs.assert_same_end(finished.folder, killed.folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run with another seed in this process, interrupted by ctrl-C in its first evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    evaluate = Run.evaluate

    def ask_to_end(self):
        signal.raise_signal(signal.SIGINT)
        evaluate(self)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as told:
        patch.setattr(Run, "evaluate", ask_to_end)
        code = train(runs.config(folder, {"seed": 1}))
    return folder, code, told.getvalue()


@pytest.mark.long
def test_ctrl_c_does_not_wait_for_an_evaluation_which_is_made_first_when_resumed(interrupted):
    folder, code, told = interrupted
    assert code == exits.INTERRUPTED
    assert "stopped; the same command resumes it" in told
    saved, lines = runs.latest_checkpoint(folder), read_metrics(folder)
    assert runs.EVAL_EVERY <= saved < runs.EVAL_EVERY + 2
    assert not any(is_evaluation(line) for line in lines)
    with Run(runs.config(folder, {"seed": 1}), Progress(live=False)) as run:
        run.begin()
    assert read_metrics(folder)[:-1] == lines
    assert read_metrics(folder)[-1]["agent_steps"] == saved
    assert is_evaluation(read_metrics(folder)[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_taken_while_a_run_lasts_and_given_back(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_does_not_wait():
    with Interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.long
def test_another_seed_gives_other_numbers(finished, interrupted):
    one, other = (read_metrics(folder) for folder in (finished.folder, interrupted[0]))
    for name in ("loss/total", "rollout/return"):
        first, second = (
            next(line[name] for line in lines if name in line) for lines in (one, other)
        )
        assert first != second


@pytest.mark.long
def test_a_fault_in_the_environment_shows_its_own_traceback_and_loses_no_checkpoint(
    tmp_path, capsys
):
    changes = {"learner.start": 100, "eval.every": 0, "checkpoint.every": 10}
    config = runs.config(tmp_path, changes, game="toy_envs:ToyWearing-v0")
    assert exits.guarded(lambda: train(config)) == exits.FAILED
    told = capsys.readouterr().err
    assert "toy_envs.py" in told
    assert told.endswith("ZeroDivisionError: fault in the user's own code\n")
    bundle = crash_bundle.read(tmp_path)
    assert told.startswith(f"crash bundle: {bundle.folder}\nTraceback")
    assert told.endswith(bundle.traceback[-300:])
    assert "no update was made yet: the cause is elsewhere" in crash_replay.explain(bundle)
    assert runs.latest_checkpoint(tmp_path) >= 10


@pytest.mark.long
def test_a_run_stopped_before_its_last_evaluation_makes_it_when_resumed(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
    (folder / "scores.json").unlink()
    assert train(runs.config(folder)) == exits.DONE
    assert untimed(read_metrics(folder)) == untimed(read_metrics(finished.folder))
    expected, scores = (
        json.loads((d / "scores.json").read_text()) for d in (finished.folder, folder)
    )
    assert scores["returns"] == expected["returns"]


# Refused.


def refusal(config, capsys):
    """What is said of a run that cannot begin."""
    capsys.readouterr()
    assert exits.guarded(lambda: train(config)) == exits.BAD_INPUT
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1, "one sentence"
    return told


def test_a_run_folder_of_another_configuration_is_refused_by_key(finished, capsys):
    before = runs.contents(finished.folder)
    config = runs.config(finished.folder, {"seed": 7, "learner.batch_size": 8})
    told = refusal(config, capsys)
    assert "learner.batch_size is 4 there and 8 here, seed is 0 there and 7 here" in told
    assert runs.contents(finished.folder) == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    told = refusal(runs.config(tmp_path / "file" / "run"), capsys)
    assert "cannot be written" in told
    assert "run_dir=" in told


def test_more_memory_than_there_is_is_refused_with_a_setting_that_fits(tmp_path, capsys):
    held = sum(array.nbytes for array in jax.live_arrays())
    told = refusal(runs.config(tmp_path, {"replay.capacity": 10**11}), capsys)
    assert sum(array.nbytes for array in jax.live_arrays()) <= held, "nothing was allocated"
    proposed = int(told.partition("replay.capacity=")[2].split()[0])
    assert 1_000 <= proposed < 10**11
    assert runs.contents(tmp_path) == {}, "the folder stays free for the smaller run"


def test_a_misspelt_game_is_refused_with_the_nearest_name():
    done = runs.wait(runs.start("ez_jax.train", "+game=Cartpol"))
    assert (done.returncode, done.stdout) == (exits.BAD_INPUT, "")
    assert "unknown game 'Cartpol'; did you mean CartPole" in done.stderr


def test_a_folder_whose_checkpoints_are_all_damaged_is_refused_and_kept(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    step = runs.latest_checkpoint(folder)
    (folder / "checkpoints" / str(step) / "meta.json").write_text("{}")
    before = runs.contents(folder)
    assert "every checkpoint in" in refusal(runs.config(folder), capsys)
    assert runs.contents(folder) == before
