"""Hangs are noticed, told and ended; what is only slow is left alone."""

import subprocess
import sys
import threading
import time

import pytest
import runs

from ez_jax.system import exits, watchdog
from ez_jax.system.watchdog import HANG_FILE, LATE, Watchdog

LIMIT = 0.4

HANGING = """
import sys
import numpy as np
from ez_jax.config import EnvConfig
from ez_jax.envs import make_env
from ez_jax.system import watchdog

game = "toy_envs:ToyHanging-v0"
env = make_env(game, EnvConfig(frame_stack=1), num_envs=2, seed=0, training=True)
with watchdog.Watchdog(sys.argv[1], 1.0):
    env.reset()
    for _ in range(5):
        with watchdog.at("choosing"):
            env.send(np.zeros(2, int))
        env.recv()
print("never")
"""


def test_a_hanging_environment_ends_the_process_which_says_where(tmp_path):
    path = {"PYTHONPATH": f"{runs.ROOT}:{runs.ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", HANGING, tmp_path],
        env=path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (exits.FAILED, "")
    warning, told, *stacks = done.stderr.splitlines()
    assert warning.startswith("warning: no sign of life for ")
    assert told.startswith("error: no sign of life for 1 s, since ")
    assert "waiting for the environments" in told
    assert "the same command resumes from the last checkpoint" in told
    assert any("toy_envs.py" in line for line in stacks)
    assert (tmp_path / HANG_FILE).read_text().splitlines()[0] == told


def test_silence_ends_the_process_once_and_tells_what_was_being_done(tmp_path):
    codes, has_ended = [], threading.Event()

    def end(code):
        codes.append(code)
        has_ended.set()

    with watchdog.at("compiling learning"), Watchdog(tmp_path, LIMIT, end=end):
        assert has_ended.wait(60)  # on a busy machine many looks are late
        time.sleep(LIMIT / 4)
    assert codes == [1]
    told = (tmp_path / HANG_FILE).read_text()
    assert ", compiling learning; " in told
    assert "test_watchdog.py" in told, "the stacks"


class Result:
    """Of a device that takes its time."""

    def __init__(self, seconds):
        self.arrives = time.monotonic() + seconds

    def is_ready(self):
        return time.monotonic() >= self.arrives


def a_long_queue():
    for i in range(8):
        watchdog.expect(Result(i * LIMIT / 2))
    time.sleep(3.5 * LIMIT)


def beating():
    for _ in range(16):
        watchdog.beat()
        time.sleep(LIMIT / 8)


@pytest.mark.parametrize("alive", [beating, a_long_queue])
def test_signs_of_life_keep_the_process(tmp_path, alive):
    codes = []
    with Watchdog(tmp_path, LIMIT, end=codes.append):
        alive()
    assert codes == []
    assert not (tmp_path / HANG_FILE).exists()


def test_a_limit_of_zero_switches_it_off(tmp_path):
    with Watchdog(tmp_path, 0.0, end=lambda code: pytest.fail("ended")):
        watchdog.expect(None)  # nobody looks at it
        time.sleep(0.05)


def test_a_look_that_is_late_itself_counts_nothing(tmp_path):
    dog = Watchdog(tmp_path, 400.0)
    now = time.monotonic()
    assert dog.silence(now) == 0
    assert dog.silence(now + 10) == 10
    assert dog.silence(now + 10_000) == 10, "the machine had been asleep"
    assert dog.silence(now + 10_010) == 20
    assert dog.silence(now + 10_010 + LATE * 10) == 20 + LATE * 10
    watchdog.beat()
    assert dog.silence(now + 10_050) == 0


def test_what_was_done_before_is_done_again_afterwards():
    @watchdog.at("evaluating")
    def evaluate():
        return watchdog._Pulse.doing

    before = watchdog._Pulse.doing
    assert (evaluate(), watchdog._Pulse.doing) == ("evaluating", before)
    with pytest.raises(ZeroDivisionError), watchdog.at("dividing"):
        _ = 1 / 0
    assert watchdog._Pulse.doing == before
