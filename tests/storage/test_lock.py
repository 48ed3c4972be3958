"""One process at a time in a run folder; the dead hold nothing."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest
import runs

from ez_jax.config import BadInput
from ez_jax.storage import lock
from ez_jax.storage.lock import RunLock
from ez_jax.system import exits
from ez_jax.train import train

# Takes the lock and has two children, a program and a fork, which outlive it.
HOLDER = """
import os, subprocess, sys, time
from ez_jax.storage.lock import RunLock
lock = RunLock(sys.argv[1], print)
program = subprocess.Popen(["sleep", "100"], close_fds=False)
ready, done = os.pipe()
child = os.fork()
if child:
    os.read(ready, 1)
    print(program.pid, child, flush=True)
else:
    os.write(done, b"x")
time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    children = [int(word) for word in process.stdout.readline().split()]
    assert len(children) == 2
    yield process
    process.kill()
    process.wait()
    for child in children:
        os.kill(child, signal.SIGKILL)  # fails if it has not outlived its parent
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_killed_whatever_children_it_leaves(
    tmp_path, holder
):
    told = f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}; stop it, or"
    with pytest.raises(BadInput, match=told):
        RunLock(tmp_path, pytest.fail)
    assert (tmp_path / "lock").exists()
    holder.kill()  # SIGKILL: it cannot tidy up
    holder.wait()
    with RunLock(tmp_path, pytest.fail):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_training_in_a_folder_that_is_in_use_is_refused_and_touches_nothing(
    tmp_path, holder, capsys
):
    (tmp_path / "config.yaml").write_text("not: read")
    before = runs.contents(tmp_path)
    assert exits.guarded(lambda: train(runs.config(tmp_path))) == exits.BAD_INPUT
    told = capsys.readouterr().err
    assert f"is in use by process {holder.pid} on" in told
    assert told.count("\n") == 1
    assert runs.contents(tmp_path) == before


def test_who_asks_twice_in_one_process_is_refused_too(tmp_path):
    with RunLock(tmp_path, pytest.fail), pytest.raises(BadInput, match="is in use by process"):
        RunLock(tmp_path, pytest.fail)
    RunLock(tmp_path, pytest.fail).close()


def test_a_program_that_is_handed_the_lock_holds_it_after_its_parent_and_its_own_children_do_not(
    tmp_path,
):
    held = lock.FileLock(tmp_path / "run.lock", pytest.fail)
    code = (
        "import subprocess, sys; from ez_jax.storage import lock; "
        "lock.hold_inherited(int(sys.argv[1])); "
        "child = subprocess.Popen(['sleep', '100'], close_fds=False, stdout=subprocess.DEVNULL); "
        "print(child.pid, flush=True); "
        "sys.stdin.read()"
    )
    file = held.descriptor()
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[file],
    )
    child = int(program.stdout.readline())
    held._let_go()  # as the kernel does when the parent is killed
    assert lock.is_held(tmp_path / "run.lock")
    with pytest.raises(lock.Busy, match="stop it"):
        lock.FileLock(tmp_path / "run.lock", pytest.fail)
    program.communicate()
    assert not lock.is_held(tmp_path / "run.lock")
    lock.FileLock(tmp_path / "run.lock", pytest.fail).close()
    os.kill(child, signal.SIGKILL)  # fails if it has not outlived its parent


def test_nobody_holds_a_lock_that_is_not_there(tmp_path):
    assert not lock.is_held(tmp_path / "run.lock")


@pytest.mark.parametrize("text", ["", "process \x1b[31m on x", "x" * 10_000, "\0"])
def test_what_a_stranger_wrote_into_the_file_is_not_told(tmp_path, text):
    with RunLock(tmp_path, pytest.fail):
        (tmp_path / "lock").write_text(text)
        with pytest.raises(BadInput, match="is in use by another process; stop it"):
            RunLock(tmp_path, pytest.fail)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="lock cannot be opened"):
        RunLock(tmp_path, pytest.fail)
    assert not (tmp_path / "elsewhere").exists()


def test_where_there_are_no_locks_it_is_said_and_the_run_goes_on(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    told = []
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with RunLock(tmp_path, told.append):
        assert len(told) == 1
        assert "has no locks (No locks available): make sure that no other" in told[0]


def test_a_file_removed_while_it_was_opened_is_opened_again(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def removed_first(*args):
        if not calls:
            (tmp_path / lock.FILE_NAME).unlink()
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with RunLock(tmp_path, pytest.fail):
        assert len(calls) == 2
        assert (tmp_path / lock.FILE_NAME).exists()
