"""Settings of all tests, and the training run that several of them look at."""

import atexit
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")  # as in a run
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Compiled programs are shared between the tests, their subprocesses and xdist's workers.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ez_jax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest
import runs
from golden_params import GOLDEN, Golden

# On a GPU, float32 products are rounded to ten bits otherwise.
jax.config.update("jax_default_matmul_precision", "highest")


# The files that take longest begin first: on two workers, which take a file at a time, both end
# about together. What trains the run of `runs` again finds the programs that test_train compiled.
LONGEST = (
    *("test_train", "test_vmapped", "test_parity", "test_switches", "test_learning"),
    "test_crash",
)


def pytest_collection_modifyitems(items):
    """Put the longest files first; the order inside of a file stays."""
    places = {stem: place for place, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_addoption(parser):
    """Let `pytest tests/agent/test_parity.py --golden DIR` check another folder of golden files."""
    parser.addoption("--golden", type=Path, default=GOLDEN, help="folder of golden files")


@pytest.fixture(scope="session")
def golden(request):
    """The golden files."""
    return Golden(request.config.getoption("golden"))


@pytest.fixture(scope="module")
def quick_compiling():
    """Programs are compiled in less time and run for longer, as in the subprocesses of `runs`."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A whole training run by the command line, made once for all workers; not to be written to."""
    own = tmp_path_factory.mktemp("runs") / "finished"
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made_in, told = shared / "finished", shared / "finished.json"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            done = runs.train(made_in)
            assert done.returncode == 0, done.stdout + done.stderr
            told.write_text(json.dumps([done.stdout, done.stderr]))
    shutil.copytree(made_in, own)  # opening a run locks its folder: the workers would meet
    return runs.Finished(own, made_in, *json.loads(told.read_text()))
