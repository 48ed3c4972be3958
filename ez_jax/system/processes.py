"""Several processes as one run: who takes part, and what they exchange.

This uses `jax.distributed`. Every process executes the same program and holds the same state; it
steps a block of the environments and sends their results to all. Whatever depends on files, time or
signals is decided by the first process or agreed upon, because all have to take the same steps. In
a run of one process nothing here waits.
"""

import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ez_jax.config import BadInput, Config
from ez_jax.system import devices

Tree = TypeVar("Tree")

JOIN_SECONDS = 300  # within which all processes have to start
FIX = "start all of them with the same command, or train alone with devices=local"
SILENT_SECONDS = 30  # without a sign of life, a machine counts as gone (`jax.distributed`)
COUNTS = ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def is_several(environment: Mapping[str, str]) -> bool:
    """Whether this process was started as one of several.

    By `JAX_COORDINATOR_ADDRESS` with `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, by SLURM's srun, by
    Open MPI or on a slice of TPUs with several hosts.
    """
    numbers = [int(environment[name]) for name in COUNTS if environment.get(name, "").isdecimal()]
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return max([*numbers, len(workers)]) > 1


def join(config: Config) -> None:
    """Connect to the other processes of the run; call this before the first computation.

    Only if `devices` is `all`: with `local` or a number each process trains a run of its own.

    Raises:
      BadInput: the others cannot be reached, or the environments cannot be divided among them.
    """
    if config.devices != "all" or not is_several(os.environ) or jax.distributed.is_initialized():
        return
    named: dict[str, Any] = {}
    if address := os.environ.get("JAX_COORDINATOR_ADDRESS"):
        try:
            named = {
                "coordinator_address": address,
                "num_processes": int(os.environ["JAX_NUM_PROCESSES"]),
                "process_id": int(os.environ["JAX_PROCESS_ID"]),
            }
        except (KeyError, ValueError) as error:
            raise BadInput(
                "JAX_COORDINATOR_ADDRESS is set, so each process also needs JAX_NUM_PROCESSES and "
                f"JAX_PROCESS_ID, two whole numbers ({error!r})"
            ) from error
    give_up = threading.Timer(JOIN_SECONDS, _give_up)
    give_up.daemon = True
    give_up.start()
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=2 * JOIN_SECONDS,  # then JAX would abort this process
            heartbeat_timeout_seconds=SILENT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise BadInput(
            f"the other processes of this run cannot be reached ({error}): {FIX}"
        ) from error
    finally:
        give_up.cancel()
    number, num_envs = jax.process_count(), config.actor.num_envs
    if num_envs % number:
        raise BadInput(
            f"actor.num_envs={num_envs} cannot be divided among {number} processes: choose "
            f"actor.num_envs={-(-num_envs // number) * number} or another multiple"
        )


def _give_up() -> None:
    """When the time is over; the wait itself cannot be interrupted."""
    sys.stderr.write(
        f"error: not all processes of this run started within {JOIN_SECONDS} seconds: {FIX}\n"
    )
    sys.stderr.flush()
    os._exit(2)  # as for other bad input


def choose_devices(config: Config) -> list[jax.Device]:
    """The devices of a run: as many as `devices` says, or the most that divide its batch evenly.

    Raises:
      BadInput: there are fewer, or they do not divide `learner.batch_size`.
    """
    there, batch = jax.local_devices(), config.learner.batch_size
    if jax.process_count() > 1:
        there, wanted = jax.devices(), jax.device_count()
    elif config.devices in ("all", "local"):
        return there[: max(n for n in range(1, len(there) + 1) if batch % n == 0)]
    else:
        wanted = int(config.devices)
    if wanted > len(there):
        raise BadInput(
            f"devices={wanted}, but JAX sees {len(there)} on this machine: leave out devices= to "
            "use all of them"
        )
    if batch % wanted:
        raise BadInput(
            f"learner.batch_size={batch} cannot be divided evenly among {wanted} devices: "
            f"choose learner.batch_size={-(-batch // wanted) * wanted} or other devices="
        )
    return sorted(there, key=lambda device: (device.process_index, device.id))[:wanted]


def is_first() -> bool:
    """Whether this process writes the run folder and prints."""
    return jax.process_index() == 0


def mine(total: int) -> slice:
    """The rows that belong to this process, the same number for each process."""
    size = total // jax.process_count()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def same(tree: Tree) -> Tree:
    """Copy host values, which are equal in every process, to all devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, devices.everywhere())

    def put(x: Any) -> jax.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            bits = put(jax.random.key_data(x))
            return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(devices.everywhere(), np.asarray(x))

    return jax.tree.map(put, tree)


def shared(tree: Tree) -> Tree:
    """Copy this process's rows to its devices; with those of the others they form one array."""
    if jax.process_count() == 1:
        return jax.device_put(tree, devices.everywhere())
    mesh = jax.sharding.get_mesh()
    by_host = Mesh(mesh.devices.reshape(jax.process_count(), -1), ("hosts", "local"))
    place = NamedSharding(by_host, PartitionSpec("hosts"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), tree)


def exchange(rows: np.ndarray) -> list[np.ndarray]:
    """The arrays of all processes, of equal shape and type, in order of the processes."""
    rows = np.ascontiguousarray(rows)
    if jax.process_count() == 1 or not rows.size:
        return [rows] * jax.process_count()
    # As bytes: JAX would reduce 64 bits to 32.
    sent = np.frombuffer(rows.tobytes(), np.uint8)
    received = np.asarray(multihost_utils.process_allgather(sent))
    return [np.frombuffer(one.tobytes(), rows.dtype).reshape(rows.shape) for one in received]


def agreed(*wishes: bool) -> list[bool]:
    """Whether any process wants it; all have to call this at the same step."""
    if jax.process_count() == 1:
        return list(wishes)
    return np.any(exchange(np.array(wishes)), axis=0).tolist()


def total(number: int) -> int:
    """The sum of one number per process, modulo 2^64."""
    return sum(int(one[0]) for one in exchange(np.array([number], np.uint64))) % 2**64


def check_same(tree: Any) -> None:
    """Check that the state is equal in every process.

    Raises:
      RuntimeError: it is not; the run is lost since the last checkpoint.
    """
    if jax.process_count() == 1:
        return
    digest = 0
    for leaf in jax.tree.leaves(tree):
        digest = zlib.crc32(np.asarray(leaf).tobytes(), digest)
    found = [int(one[0]) for one in exchange(np.array([digest], np.uint32))]
    if len(set(found)) > 1:
        raise RuntimeError(
            f"the processes hold different states (digests {found}): their devices or versions "
            "differ; nothing of this was saved, and the last checkpoint is good"
        )


def by_first(action: Callable[..., Any], *given: Any) -> Any:
    """Do something in the first process only, and return its result, as JSON, in all.

    Raises:
      BadInput: in every process, if the first raised it.
    """
    if jax.process_count() == 1:
        return action(*given)
    told: dict[str, Any] = {}
    if is_first():
        try:
            told = {"value": action(*given)}
        except BadInput as error:
            told = {"refused": str(error)}
    raw = np.frombuffer(json.dumps(told).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(raw.size)))
    raw = np.resize(raw, size)  # the content of the others is ignored
    told = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(raw)).tobytes())
    if "refused" in told:
        raise BadInput(told["refused"])
    return told["value"]
