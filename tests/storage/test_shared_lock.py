"""Locks between machines: one process each, and nobody takes what may be in use."""

import concurrent.futures
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest
import runs

from ez_jax.config import BadInput
from ez_jax.storage import shared_lock
from ez_jax.storage.lock import Busy, FileLock
from ez_jax.storage.shared_lock import MachineLock

# Takes what it is told to and says whether it got it; a program that it starts may go on with it.
TAKE = """
import pathlib, subprocess, sys
from ez_jax.storage import lock, shared_lock
try:
    held = shared_lock.MachineLock(pathlib.Path(sys.argv[1]))
except lock.Busy:
    print("busy", flush=True)
else:
    file = held.descriptor()
    sleep = ["sleep", "100" if sys.argv[2:] else "0"]
    program = subprocess.Popen(sleep, pass_fds=[file], stdout=subprocess.DEVNULL)
    print("mine", program.pid, flush=True)
sys.stdin.read()
"""


def process(*words):
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seed0.lock"


@pytest.fixture
def file(path):
    return path.with_name("seed0.lock.machine")


def test_of_many_processes_one_gets_it(path):
    processes = [process(path) for _ in range(8)]
    told = [each.stdout.readline().split()[0] for each in processes]
    assert sorted(told) == ["busy"] * 7 + ["mine"]
    assert shared_lock.is_taken(path)
    for each in processes:
        each.communicate()


def test_threads_that_take_the_same_again_and_again_never_hold_it_together(path):
    inside, most = [], []

    def work():
        done = 0
        while done < 20:
            try:
                with MachineLock(path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    done += 1
            except Busy:
                continue

    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        for each in [executor.submit(work) for _ in range(4)]:
            each.result()
    assert max(most) == 1
    assert len(most) == 80
    assert list(path.parent.iterdir()) == []


def test_what_is_let_go_can_be_taken_and_what_is_held_cannot(path):
    assert not shared_lock.is_taken(path)
    with MachineLock(path):
        assert shared_lock.is_taken(path)
        with pytest.raises(
            Busy, match=r"in use by a process on .*delete seed0\.lock\.machine there"
        ):
            MachineLock(path)
    assert not shared_lock.is_taken(path)
    MachineLock(path).close()


def test_what_a_process_that_was_killed_here_held_is_free_once_its_program_has_ended_too(
    path, file
):
    holder = process(path, "program")
    program = int(holder.stdout.readline().split()[1])
    holder.kill()
    holder.communicate()
    assert shared_lock.is_taken(path)
    with pytest.raises(Busy):
        MachineLock(path)
    os.kill(program, signal.SIGKILL)
    until = time.monotonic() + 60
    while shared_lock.is_taken(path):
        assert time.monotonic() < until
    assert file.exists()
    with MachineLock(path):
        assert shared_lock.is_taken(path)
    assert not file.exists()


@pytest.mark.parametrize("part", range(4))
def test_another_machine_has_it_until_its_file_is_deleted(path, file, part):
    words = shared_lock._here(file).split(" ")
    words[part] = "elsewhere"  # another host, boot, network, or way to the folder
    file.write_text(" ".join(words))
    with pytest.raises(Busy, match=r"no longer exists, delete seed0\.lock\.machine"):
        MachineLock(path)
    assert shared_lock.is_taken(path)
    file.unlink()
    with MachineLock(path):
        file.write_text(" ".join(words))  # a person has given it to that one
    assert file.exists()


@pytest.mark.parametrize("text", ["", "\0\n", "\x1b[31m x\n", "1 " * 90_000])
def test_a_file_that_says_nothing_means_that_it_is_held(path, file, text):
    file.write_text(text)
    with pytest.raises(Busy, match=r"in use by a process on a machine;"):
        MachineLock(path)
    assert shared_lock.is_taken(path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"cannot be created there \(No such file"):
        MachineLock(tmp_path / "absent" / "seed0.lock")


def test_locks_are_those_of_files_where_machines_share_them(path, monkeypatch):
    with shared_lock.take(path) as held:
        assert type(held) is FileLock

    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with shared_lock.take(path) as held:
        assert type(held) is MachineLock


@pytest.mark.parametrize(
    ("kind", "options", "shared"),
    [
        ("ext4", "rw", True),
        ("nfs4", "rw,vers=4.2,local_lock=none", True),
        ("nfs", "rw,vers=3,nolock", False),
        ("nfs", "rw,vers=3,local_lock=flock", False),
        ("lustre", "rw,localflock", False),
        ("lustre", "rw,flock", True),
    ],
)
def test_locks_that_other_machines_do_not_see_are_not_relied_on(
    tmp_path, monkeypatch, kind, options, shared
):
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 27 0:1 / /proc rw - proc proc rw\n"
        f"36 35 {number} / /mnt rw,noatime master:1 - {kind} server:/x {options}\n"
    )
    read = shared_lock._mount
    monkeypatch.setattr(shared_lock, "_mount", lambda folder: read(folder, str(table)))
    assert shared_lock.locks_are_shared(tmp_path) is shared
