"""Which devices a run has, and what several processes of one run tell each other.

Every process of a run executes the same program (`jax.distributed`) and holds the same state; it
plays its own games, a block of all of them. Whatever depends on time, signals or files is decided
by the first process or agreed upon, because all have to take the same steps.
"""

from typing import TypeVar

import jax

from ez_jax.config import BadInput, Config

Tree = TypeVar("Tree")


def choose_devices(config: Config) -> list[jax.Device]:
    """The devices that share a run: `devices` of them, or as many as divide its batch evenly.

    Raises:
      BadInput: there are not so many, or they do not divide `learner.batch_size`.
    """
    there, batch = jax.local_devices(), config.learner.batch_size
    if jax.process_count() > 1:
        there, wanted = jax.devices(), jax.device_count()
    elif config.devices == "all":
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
