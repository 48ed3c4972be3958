"""Several processes as one run: who takes part, and what they tell each other.

By JAX's own means (`jax.distributed`). Every process executes the same program and holds the same
state; it steps a block of the environments and feeds what they return to all. What depends on
files, time or signals is decided by the first process or agreed upon, since all have to take the
same steps. In a run of one process none of this waits for anything.
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

JOIN_SECONDS = 300  # until all processes have to be there
MEND = "start all of them with the same command, or train alone with devices=local"
SILENT_SECONDS = 30  # without a sign of life a machine counts as gone (`jax.distributed`)
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
    """Meet the other processes of the run; call it before the first computation.

    Only where `devices` is `all`: with `local` or a number each process trains by itself.

    Raises:
      BadInput: they cannot be met, or they cannot share the environments.
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
            f"the other processes of this run cannot be met ({error}): {MEND}"
        ) from error
    finally:
        give_up.cancel()
    number, num_envs = jax.process_count(), config.actor.num_envs
    if num_envs % number:
        raise BadInput(
            f"actor.num_envs={num_envs} cannot be shared by {number} processes: choose "
            f"actor.num_envs={-(-num_envs // number) * number} or another multiple"
        )


def _give_up() -> None:
    """Once nobody has come; what waits cannot be interrupted."""
    sys.stderr.write(
        f"error: not all processes of this run have met within {JOIN_SECONDS} seconds: {MEND}\n"
    )
    sys.stderr.flush()
    os._exit(2)  # as for any other bad input


def choose_devices(config: Config) -> list[jax.Device]:
    """The devices that share a run: `devices` of them, or as many as divide its batch evenly.

    Raises:
      BadInput: there are not so many, or they do not divide `learner.batch_size`.
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
            f"devices={wanted}, but JAX sees {len(there)} on this machine: leave devices= out to "
            "use all there are"
        )
    if batch % wanted:
        raise BadInput(
            f"learner.batch_size={batch} cannot be divided evenly among {wanted} devices: "
            f"choose learner.batch_size={-(-batch // wanted) * wanted} or other devices="
        )
    return sorted(there, key=lambda device: (device.process_index, device.id))[:wanted]


def is_first() -> bool:
    """Whether this process writes the run folder and speaks to people."""
    return jax.process_index() == 0


def mine(total: int) -> slice:
    """Which of so many rows, the same number for each, belong to this process."""
    size = total // jax.process_count()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def same(tree: Tree) -> Tree:
    """Put values of the host, which are the same in every process, on all devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, devices.everywhere())

    def put(x: Any) -> jax.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            bits = put(jax.random.key_data(x))
            return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(devices.everywhere(), np.asarray(x))

    return jax.tree.map(put, tree)


def shared(tree: Tree) -> Tree:
    """Put rows of this process on its devices: together with those of the others, one array."""
    if jax.process_count() == 1:
        return jax.device_put(tree, devices.everywhere())
    mesh = jax.sharding.get_mesh()
    by_host = Mesh(mesh.devices.reshape(jax.process_count(), -1), ("hosts", "local"))
    place = NamedSharding(by_host, PartitionSpec("hosts"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), tree)


def exchange(rows: np.ndarray) -> list[np.ndarray]:
    """An array of each process, of one shape and type, in their order."""
    rows = np.ascontiguousarray(rows)
    if jax.process_count() == 1 or not rows.size:
        return [rows] * jax.process_count()
    # As bytes: JAX would make 32 bits of 64.
    sent = np.frombuffer(rows.tobytes(), np.uint8)
    received = np.asarray(multihost_utils.process_allgather(sent))
    return [np.frombuffer(one.tobytes(), rows.dtype).reshape(rows.shape) for one in received]


def agreed(*wishes: bool) -> list[bool]:
    """What any process wishes; to be asked by all at the same step."""
    if jax.process_count() == 1:
        return list(wishes)
    return np.any(exchange(np.array(wishes)), axis=0).tolist()


def total(number: int) -> int:
    """The sum of a number of each process, modulo 2^64."""
    return sum(int(one[0]) for one in exchange(np.array([number], np.uint64))) % 2**64


def check_same(tree: Any) -> None:
    """Make sure that what has to be the same in every process is.

    Raises:
      RuntimeError: it is not; the run is lost from the last checkpoint on.
    """
    if jax.process_count() == 1:
        return
    digest = 0
    for leaf in jax.tree.leaves(tree):
        digest = zlib.crc32(np.asarray(leaf).tobytes(), digest)
    found = [int(one[0]) for one in exchange(np.array([digest], np.uint32))]
    if len(set(found)) > 1:
        raise RuntimeError(
            f"the processes have come to hold different states (digests {found}): their devices "
            "or versions differ; nothing is saved of it, the last checkpoint is sound"
        )


def by_first(action: Callable[..., Any], *given: Any) -> Any:
    """What an action of the first process returns, as JSON; done there alone.

    Raises:
      BadInput: in every process, where it did so in the first.
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
    raw = np.resize(raw, size)  # what the others hand over does not count
    told = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(raw)).tobytes())
    if "refused" in told:
        raise BadInput(told["refused"])
    return told["value"]
