"""Several processes as one run: they end as one does, and none waits for one that is gone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import runs

from ez_jax.config import BadInput, Config, override
from ez_jax.system import processes

ROOM = 4  # environments, for up to as many processes


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Job:
    """Processes that were started with the same command."""

    def __init__(self, folder, count, *words, address="127.0.0.1", devices=1, within=None):
        port, words = free_port(), runs.train_words(folder, f"actor.num_envs={ROOM}", *words)
        self.processes = [
            runs.start(
                *("ez_jax.train", *words),
                variables={
                    **runs.devices(devices),
                    "JAX_COORDINATOR_ADDRESS": f"{address}:{port}",
                    "JAX_NUM_PROCESSES": str(count),
                    "JAX_PROCESS_ID": str(number),
                },
                within=within[number] if within else (),
            )
            for number in range(count)
        ]

    def wait(self):
        """How all of them ended; their pipes are emptied at the same time."""
        ended = [None] * len(self.processes)

        def wait_for(i):
            ended[i] = runs.wait(self.processes[i])

        threads = [threading.Thread(target=wait_for, args=(i,)) for i in range(len(ended))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ended


def wait_until_learning(process):
    for line in process.stdout:
        if re.search(r"loss [\d.]+,", line):
            return
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run by one process with one device."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = runs.train(folder, f"actor.num_envs={ROOM}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_processes_end_as_one_does(tmp_path, alone, count, devices):
    ended = Job(tmp_path / "run", count, devices=devices).wait()
    assert [done.returncode for done in ended] == [0] * count, ended[0].stderr[-2000:]
    assert "done:" in ended[0].stdout
    assert all("done:" not in done.stdout for done in ended[1:]), "one speaks for all"
    runs.assert_near(tmp_path / "run", alone)


@pytest.mark.long
def test_a_signal_to_one_stops_all_and_another_number_of_processes_goes_on(tmp_path, alone):
    folder = tmp_path / "run"
    job = Job(folder, 2)
    wait_until_learning(job.processes[0])
    job.processes[1].send_signal(signal.SIGTERM)
    ended = job.wait()
    assert [done.returncode for done in ended] == [130, 130], ended[1].stderr[-2000:]
    steps = runs.latest_checkpoint(folder)
    assert 0 < steps < runs.STEPS
    words = runs.train_words(folder, f"actor.num_envs={ROOM}")
    done = runs.wait(runs.start("ez_jax.train", *words, variables=runs.devices(4)))
    assert done.returncode == 0, done.stderr
    assert f"resumed at {steps} agent steps" in done.stdout
    assert "not deterministic" not in done.stdout
    runs.assert_near(folder, alone)


@pytest.mark.long
def test_one_that_is_killed_ends_the_others_which_name_it_and_all_go_on(tmp_path, alone):
    folder = tmp_path / "run"
    job = Job(folder, 2, "checkpoint.every=20")
    wait_until_learning(job.processes[0])
    job.processes[1].kill()
    began = time.monotonic()
    first, _ = job.wait()
    assert time.monotonic() - began < 60
    assert first.returncode == 1
    told = rf"error: process 1 of 2 \(process {job.processes[1].pid} on \S+\) is gone"
    assert re.search(told, first.stderr), first.stderr[-2000:]
    ended = Job(folder, 2, "checkpoint.every=20").wait()
    assert [done.returncode for done in ended] == [0, 0], ended[0].stderr[-2000:]
    assert "resumed at" in ended[0].stdout
    runs.assert_near(folder, alone)


@pytest.fixture
def machines():
    """Two network namespaces with a cable between them: two machines, as far as sockets know."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` command here")
    names = [f"ez{os.getpid()}{end}" for end in "ab"]
    hosts_files = [Path("/etc/netns", name, "hosts") for name in names]
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add {names[0]} type veth peer name {names[1]}"]
    for name, address in zip(names, ("10.77.0.1", "10.77.0.2"), strict=True):
        commands += [
            f"ip link set {name} netns {name}",
            f"ip -n {name} addr add {address}/24 dev {name}",
            f"ip -n {name} link set {name} up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        for file, address in zip(hosts_files, ("10.77.0.1", "10.77.0.2"), strict=True):
            file.parent.mkdir(parents=True)  # its /etc/hosts: the own name is no loopback
            file.write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)


@pytest.mark.long
def test_two_machines_meet_over_their_network(tmp_path, alone, machines):
    job = Job(tmp_path / "run", 2, address="10.77.0.1", within=machines)
    ended = job.wait()
    assert [done.returncode for done in ended] == [0, 0], ended[1].stderr[-2000:]
    runs.assert_near(tmp_path / "run", alone)


# What is found out before anybody is met.


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"JAX_NUM_PROCESSES": "2"}, True),
        ({"JAX_NUM_PROCESSES": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "3"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, True),
    ],
)
def test_who_was_started_as_one_of_several(variables, several):
    assert processes.is_several(variables) == several


def test_half_of_the_variables_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(BadInput, match="JAX_PROCESS_ID"):
        processes.join(Config())


def test_who_waits_in_vain_is_told_so(tmp_path):
    script = "from ez_jax.system import processes as p; p.JOIN_SECONDS = 2; p.join(p.Config())"
    variables = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(runs.ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "started within 2 seconds: start all of them" in done.stderr


@pytest.mark.parametrize("devices", ["local", "1"])
def test_who_wants_to_be_alone_meets_nobody(monkeypatch, devices):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    processes.join(override(Config(), {"devices": devices}))


@pytest.mark.parametrize(
    ("devices", "batch", "chosen"),
    [("all", 8, 8), ("all", 6, 6), ("all", 7, 7), ("all", 5, 5), ("local", 4, 4), ("2", 8, 2)],
)
def test_as_many_devices_as_divide_the_batch(monkeypatch, devices, batch, chosen):
    there = [type("Device", (), {"process_index": 0, "id": i}) for i in range(8)]
    monkeypatch.setattr("jax.local_devices", lambda: there)
    config = override(Config(), {"devices": devices, "learner.batch_size": batch})
    assert processes.choose_devices(config) == there[:chosen]


@pytest.mark.parametrize(
    ("devices", "batch", "told"),
    [("9", 256, "JAX sees 8"), ("3", 256, "learner.batch_size=258"), ("8", 12, "batch_size=16")],
)
def test_devices_that_are_not_there_or_do_not_divide_the_batch(monkeypatch, devices, batch, told):
    there = [type("Device", (), {"process_index": 0, "id": i}) for i in range(8)]
    monkeypatch.setattr("jax.local_devices", lambda: there)
    config = override(Config(), {"devices": devices, "learner.batch_size": batch})
    with pytest.raises(BadInput, match=re.escape(told)):
        processes.choose_devices(config)


def test_a_process_by_itself_tells_itself():
    assert processes.is_first()
    assert processes.agreed(True, False) == [True, False]
    assert processes.total(5) == 5
    assert processes.by_first(lambda: [1, None]) == [1, None]
    rows = np.arange(3.0)
    assert processes.exchange(rows)[0] is not None
    np.testing.assert_array_equal(processes.exchange(rows)[0], rows)
    assert processes.mine(6) == slice(0, 6)
