"""Settings of all tests, and the training run that several of them look at."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

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


SHARE_A_RUN = ("test_train", "test_evaluate")  # the `finished` one: on one worker, made once


def pytest_collection_modifyitems(items):
    """With xdist each file stays on one worker, so that what its tests share is compiled once."""
    for item in items:
        group = "finished" if item.path.stem in SHARE_A_RUN else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_addoption(parser):
    """Let `pytest tests/test_parity.py --golden DIR` check another folder of golden files."""
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
    """A whole training run by the command line; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    done = runs.train(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs.Finished(folder, done.stdout, done.stderr)
