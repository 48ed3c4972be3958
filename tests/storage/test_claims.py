"""Claims, where there are no locks: one process each, and nobody takes what may be in use."""

import concurrent.futures
import errno
import fcntl
import os
import subprocess
import sys

import pytest
import runs

from ez_jax.storage import claims
from ez_jax.storage.lock import Busy, FileLock

# Claims what it is told to and says whether it got it.
CLAIM = """
import pathlib, sys
from ez_jax.storage import claims, lock
try:
    claim = claims.Claim(pathlib.Path(sys.argv[1]))
except lock.Busy:
    print("busy", flush=True)
else:
    print("mine", flush=True)
sys.stdin.read()
"""


def claimant(path):
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(path)],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seed0.lock"


def test_of_many_processes_one_gets_it(path):
    processes = [claimant(path) for _ in range(8)]
    told = [process.stdout.readline() for process in processes]
    assert sorted(told) == ["busy\n"] * 7 + ["mine\n"]
    assert claims.is_taken(path)
    for process in processes:
        process.communicate()


def test_threads_that_claim_the_same_again_and_again_never_hold_it_together(path):
    inside, most = [], []

    def work():
        done = 0
        while done < 20:
            try:
                with claims.Claim(path):
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
    assert len(list(path.parent.iterdir())) == 80  # numbers only grow


def test_what_is_let_go_can_be_claimed_and_what_is_held_cannot(path):
    assert not claims.is_taken(path)
    with claims.Claim(path):
        assert claims.is_taken(path)
        with pytest.raises(
            Busy, match=f"process {os.getpid()} on .*delete seed0.lock.claim-1 there"
        ):
            claims.Claim(path)
    assert not claims.is_taken(path)
    claims.Claim(path).close()


def test_a_claim_of_a_process_that_was_killed_here_is_free_once_its_program_has_ended_too(path):
    holder = claimant(path)
    holder.stdout.readline()
    program = subprocess.Popen(["sleep", "100"])
    with path.with_name("seed0.lock.claim-1").open("a") as file:
        file.write(claims._identity(program.pid) + "\n")
    holder.kill()
    holder.communicate()
    assert claims.is_taken(path)
    program.kill()
    program.wait()
    assert not claims.is_taken(path)
    claims.Claim(path).close()


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_process_of_another_machine_counts_as_alive_until_its_file_is_deleted(path, part):
    words = claims._identity(os.getpid()).split(" ")
    words[part], words[4] = "elsewhere", "1"  # another host, boot or space of process numbers
    file = path.with_name("seed0.lock.claim-1")
    file.write_text(" ".join(words) + "\n")
    with pytest.raises(Busy, match=r"if that has ended, delete seed0\.lock\.claim-1"):
        claims.Claim(path)
    file.unlink()
    claims.Claim(path).close()


@pytest.mark.parametrize("text", ["", "\0\n", "\x1b[31m x\n", "1 " * 9_000])
def test_a_claim_that_says_nothing_is_held(path, text):
    path.with_name("seed0.lock.claim-1").write_text(text)
    with pytest.raises(Busy, match=r"in use by (another process|process 1 on 1);"):
        claims.Claim(path)


def test_a_number_that_a_later_process_has_again_is_not_the_one_that_claimed(path):
    *words, _ = claims._identity(os.getpid()).split(" ")
    path.with_name("seed0.lock.claim-1").write_text(" ".join([*words, "1"]) + "\n")
    assert not claims.is_taken(path)


def test_locks_are_taken_where_there_are_some_and_claims_where_not(path, monkeypatch):
    with claims.take(path) as held:
        assert isinstance(held, FileLock)

    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with claims.take(path) as held:
        assert isinstance(held, claims.Claim)


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
    read = claims._mount
    monkeypatch.setattr(claims, "_mount", lambda folder: read(folder, str(table)))
    assert claims.locks_are_shared(tmp_path) is shared
