"""Many devices as one: the same curve, whatever their number."""

import os
import subprocess
import sys

import pytest
import runs


def on_eight_devices(chosen):
    """Run some of the tests of that file."""
    words = ["-q", "-p", "no:cacheprovider", "on_eight_devices.py", "-k", chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=runs.ROOT / "tests",
        env={**os.environ, **runs.devices(8), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.long
def test_rows_of_eight_devices_are_read_written_and_worked_on():
    on_eight_devices("rows")


@pytest.mark.long
@pytest.mark.parametrize("what", ["published", "gumbel", "muzero", "frames"])
def test_programs_on_eight_devices_are_those_on_one(what):
    on_eight_devices(what)


@pytest.mark.long
def test_a_run_goes_on_on_another_number_of_devices_and_ends_as_on_one(finished, tmp_path):
    folder = tmp_path / "run"
    words = runs.train_words(folder, "devices=4")
    process = runs.start("ez_jax.train", *words, variables=runs.devices(4))
    for line in process.stdout:
        if "evaluation at" in line:
            break
    process.terminate()
    stopped = runs.wait(process)
    assert stopped.returncode == 130, stopped.stderr
    words = runs.train_words(folder, "devices=2")
    done = runs.wait(runs.start("ez_jax.train", *words, variables=runs.devices(8)))
    assert done.returncode == 0, done.stderr
    assert "resumed at" in done.stdout
    runs.assert_near(folder, finished.folder)


@pytest.mark.long
def test_devices_that_are_not_there_are_refused(tmp_path):
    done = runs.train(tmp_path / "run", "devices=2")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "JAX sees 1" in done.stderr
