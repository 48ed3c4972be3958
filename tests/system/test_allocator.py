"""Freed memory waits for its next use."""

import os
import subprocess
import sys

import pytest
from runs import ROOT

PAGES = 2**14  # of 4 kB: 64 MB

PROGRAM = f"""
import resource, threading
import ez_jax.terminal.launch
print(ez_jax.system.allocator.IS_KEPT)
import jax

def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * ({PAGES} * 4096)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults = []
for _ in range(2):
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
print(*faults)
"""


def run(**variables):
    """Whether it was done, and the faults of the first and of the second round."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    done, faults = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    return done == "True", [int(count) for count in faults.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_the_second_use_of_memory_costs_no_new_pages():
    done, (first, second) = run()
    assert done
    assert first > PAGES / 2
    assert second < PAGES / 100


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_users_own_settings_win(name):
    value = "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else "2"
    done, (_, second) = run(**{name: value})
    assert not done
    assert second > PAGES / 2
