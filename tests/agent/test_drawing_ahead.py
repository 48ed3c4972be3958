"""Drawing ahead: the same run wherever its frames lie, however often it is stopped."""

import contextlib
import dataclasses
import io
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from ez_jax.agent import schedules
from ez_jax.agent.replay.drawing_ahead import DrawnAhead, make_source
from ez_jax.agent.replay.host_frames import HostFrames
from ez_jax.agent.replay.ring import ring_rows
from ez_jax.config import BadInput, override
from ez_jax.storage.metrics import read_metrics
from ez_jax.structs import Batch, Clocks
from ez_jax.system import free_memory
from ez_jax.system.free_memory import Available
from ez_jax.terminal.progress import Progress
from ez_jax.train import train
from ez_jax.training.planning import needs, preview
from ez_jax.training.planning.memory import USABLE
from ez_jax.training.run import Run
from ez_jax.training.vmapped import check_alike

pytestmark = pytest.mark.usefixtures("quick_compiling")

# Groups of two: at the end of the data one of them is cut short. The ring is written over twice.
CHANGES = {"replay.memory": "auto", "reanalyse.updates_per_search": 2, "replay.capacity": 60}


def small_device(config) -> Available:
    """A device with room for this run, but not for the frames of its replay."""
    on_device = override(config, {"replay.memory": "device"})
    whole = needs.memory_needs(on_device, preview.model_of(on_device))
    return Available(device=int(whole.device / USABLE) - 1, host=10**12, is_shared=False)


def trained(folder, changes=None, available=None, stops=()):
    """A whole run in this process, interrupted where it has so many agent steps."""
    config, report = runs.config(folder, {**CHANGES, **(changes or {})}), Run.report
    left, kinds = list(stops), []

    def watched(self):
        kinds.append(self.state.replay.rows.observation is None)
        if left and self.clocks.agent_steps >= left[0]:
            left.pop(0)
            signal.raise_signal(signal.SIGINT)
        report(self)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(Run, "report", watched)
        if available is not None:
            patch.setattr(free_memory, "available_memory", lambda: available)
        codes = [train(config) for _ in range(1 + len(stops))]
    return SimpleNamespace(folder=folder, codes=codes, on_host=set(kinds))


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "host"
    return trained(folder, available=small_device(runs.config(folder, CHANGES)))


@pytest.mark.long
def test_a_run_is_bit_by_bit_the_same_wherever_its_frames_lie(on_host, tmp_path):
    on_device = trained(tmp_path / "run")
    assert (on_device.on_host, on_host.on_host) == ({False}, {True})
    assert read_metrics(on_host.folder)[-1]["agent_steps"] >= 2 * CHANGES["replay.capacity"]
    # The states are compared on the device: the frames of both come back from their journals.
    runs.assert_same_end(on_device.folder, on_host.folder)


@pytest.mark.long
def test_a_run_that_was_stopped_learns_from_what_had_been_drawn(on_host, tmp_path):
    available = small_device(runs.config(on_host.folder, CHANGES))
    stopped = trained(tmp_path / "run", available=available, stops=(60, 103))
    assert stopped.codes == [130, 130, 0]
    runs.assert_same_end(on_host.folder, stopped.folder)


@pytest.mark.long
def test_frames_past_the_capacity_of_the_device_go_to_the_host(tmp_path, monkeypatch):
    config = runs.config(tmp_path, CHANGES)
    available = small_device(config)
    monkeypatch.setattr(free_memory, "available_memory", lambda: available)
    with Run(config, Progress(live=False)) as run:
        assert run.state.replay.rows.observation is None
        assert run._source.frames.ring.shape == (*run.state.replay.priority.shape, 4)


# How far ahead.


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("updates_per_step", [0.05, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("envs", [1, 4])
def test_no_more_rows_are_written_between_draw_and_update_than_planned(
    group, updates_per_step, envs
):
    """Where every other row holds the end of an episode, and its action does not count."""
    changes = {"updates_per_step": updates_per_step, "reanalyse.updates_per_search": group}
    config = runs.config("run", {**CHANGES, **changes, "actor.num_envs": envs})
    steps = updates = rows = drawn_at = most = 0
    while steps < config.total_agent_steps:
        rows, steps = rows + 1, steps + envs * (rows % 2)
        due = schedules.updates_due(config, Clocks(agent_steps=steps, updates=updates))
        for _ in range(due // group):
            most = max(most, rows - drawn_at if updates else 0)
            drawn_at, updates = rows, updates + group
    assert 0 < most <= schedules.rows_ahead(config) <= most + 2


def test_without_drawing_ahead_the_ring_is_as_long_as_ever():
    config = runs.config("run")
    model = preview.model_of(config)
    ahead = override(config, {"replay.memory": "host"})
    assert schedules.rows_ahead(config) == 0
    assert ring_rows(ahead, model.spec) == ring_rows(config, model.spec) + schedules.rows_ahead(
        ahead
    )


# What is handed out.


def drawing(config, frames=None):
    """A source whose draws are told apart by the number of their first update."""
    empty = Batch(**dict.fromkeys(Batch.__dataclass_fields__))

    def draw(replay, key, updates):
        at = jnp.zeros((2, 3), jnp.int32)
        return empty.replace(row=at, index=at[:, 0], age=updates)

    return DrawnAhead(config, draw, frames)


def test_each_group_gets_what_was_drawn_one_group_before():
    config = runs.config("run", {**CHANGES, "reanalyse.updates_per_search": 4})
    source, drawn, numbers = drawing(config), None, []
    for updates, left in ((0, 8), (4, 4), (8, 3), (11, 4)):
        batch, drawn = source.next(None, None, drawn, updates, left)
        numbers.append(int(batch.age))
    assert numbers == [0, 4, 8, 11]


@pytest.fixture
def host_frames():
    model = preview.model_of(runs.config("run"))
    frames = HostFrames(model.spec, rows=5, num_envs=2)
    yield frames
    frames.close()


def test_a_fault_while_frames_are_gathered_ends_the_updates(host_frames, monkeypatch):
    source = drawing(runs.config("run", CHANGES), host_frames)
    batch, drawn = source.next(None, None, None, 0, 8)
    assert batch.observation.shape == (2, 3, 4)

    def gather(*_):
        raise MemoryError("no room for frames")

    monkeypatch.setattr(host_frames, "_gather", gather)
    batch, drawn = source.next(None, None, drawn, 2, 6)  # was on its way already
    with pytest.raises(MemoryError, match="no room for frames"):
        source.next(None, None, drawn, 4, 4)


def test_rows_that_come_too_fast_are_no_secret(host_frames):
    config = runs.config("run", CHANGES)
    source = drawing(config, host_frames)
    _, drawn = source.next(None, None, None, 0, 8)
    for _ in range(schedules.rows_ahead(config) + 1):
        source.record(np.zeros((2, 4), np.float32))
    with pytest.raises(RuntimeError, match="rows of replay were written between"):
        source.next(None, None, drawn, 2, 6)


# Refused.


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    config = runs.config("run", CHANGES)
    model = preview.model_of(config)
    make_source(config, model, False, Progress(live=False).compiling).close()
    with pytest.raises(BadInput, match=r"for one process, and this run has 2: set replay\.memory"):
        make_source(config, model, True, Progress(live=False).compiling)


@pytest.mark.parametrize("where", ["host", "auto"])
def test_runs_in_one_program_are_refused(where, tmp_path):
    first = runs.config(tmp_path / "0", {"replay.memory": where}, game="gymnax:CartPole")
    both = [first, dataclasses.replace(first, seed=1, run_dir=str(tmp_path / "1"))]
    with pytest.raises(BadInput, match=f"replay.memory is {where}, but runs in one program"):
        check_alike(both)
