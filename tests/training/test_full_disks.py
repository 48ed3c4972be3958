"""A disk that is full is told in a sentence, and takes nothing of what stood on it."""

import os
import shutil
import subprocess
import time

import pytest
import runs

from ez_jax.storage.metrics import read_metrics

pytestmark = pytest.mark.long
NO_BOARD = "log.tensorboard=false"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untouched") / "run"
    assert runs.train(folder, NO_BOARD, "checkpoint.every=20").returncode == 0
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 80 MB, a little more than a run may need."""
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", os.fspath(tmp_path)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount on this machine")
    if mounted.returncode:
        pytest.skip(f"this user may not mount a small disk: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", os.fspath(tmp_path)], check=True)


def fill(disk, but):
    """Leave so many bytes."""
    with (disk / "filler").open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - but))


def assert_told(done):
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr + done.stdout
    assert lines[-1].startswith("error: ")
    assert " and give the same command again" in lines[-1]
    assert all("crash bundle" in line for line in lines[:-1])


def assert_same_curve(folder, other):
    curves = [[{**line, "seconds": 0} for line in read_metrics(f)] for f in (folder, other)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("room", [0, 40_000])
def test_a_run_goes_on_once_there_is_room(small_disk, untouched, room):
    run, words = small_disk / "run", [NO_BOARD, "checkpoint.every=20"]
    process = runs.start("ez_jax.train", *runs.train_words(run, *words))
    while not (run / "checkpoints" / "20").exists() and process.poll() is None:
        time.sleep(0.01)
    fill(small_disk, but=room)
    assert_told(runs.wait(process))
    stood = runs.latest_checkpoint(run)
    assert stood >= 20
    (small_disk / "filler").unlink()
    again = runs.train(run, *words)
    assert again.returncode == 0, again.stderr
    assert f"resumed at {stood} agent steps" in again.stdout
    assert_same_curve(run, untouched)


@pytest.mark.parametrize("most", [0, 5, 20])  # KiB, none of a checkpoint's files, some, most
def test_files_that_may_not_grow_are_a_full_disk(tmp_path, untouched, most):
    run, words = tmp_path / "run", [NO_BOARD, "checkpoint.every=20"]
    limited = ["bash", "-c", f'ulimit -f {most}; exec "$@"', "bash"]
    process = runs.start("ez_jax.train", *runs.train_words(run, *words), within=limited)
    assert_told(runs.wait(process))
    again = runs.train(run, *words)
    assert again.returncode == 0, again.stderr
    assert_same_curve(run, untouched)
