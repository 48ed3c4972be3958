"""The frames of a replay in host memory, for a replay that is larger than the device.

Frames come from the environments on the host and go to the device in batches: a thread gathers each
batch and copies it while the device works on the previous one. The rest of the replay, a few dozen
bytes per agent step, stays on the device (`ring.py`).
"""

import concurrent.futures
from concurrent.futures import Future

import jax
import numpy as np

from ez_jax.structs import Batch, EnvSpec
from ez_jax.system import devices


class HostFrames:
    """A ring of frames for a replay without frames; only one thread writes."""

    def __init__(self, spec: EnvSpec, *, rows: int, num_envs: int):
        """An empty ring dtype[rows, num_envs, *obs]; memory is allocated as it fills."""
        shape = (rows, num_envs, *spec.observation_shape)
        self.ring = np.zeros(shape, spec.observation_dtype)
        self.count = 0  # number of rows ever written, as `Replay.count`
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "frames")

    def add(self, frames: np.ndarray) -> None:
        """Write the frames [N, *obs] of one row over the oldest."""
        self.ring[self.count % len(self.ring)] = frames
        self.count += 1

    def rows(self, first: int, count: int) -> np.ndarray:
        """A copy of rows first..first+count-1, counted from the start of the run."""
        return self.ring[(first + np.arange(count)) % len(self.ring)]

    def put(self, frames: np.ndarray, first: int) -> None:
        """Write rows from number `first` on; the inverse of `rows`."""
        self.ring[(first + np.arange(len(frames))) % len(self.ring)] = frames
        self.count = first + len(frames)

    def fetch(self, batch: Batch) -> "Future[jax.Array]":
        """Start to copy the frames [B, W, *obs] of a drawn batch to the device.

        The rows must not be overwritten before that is done. The result raises any error.
        """
        split = devices.WHOLE if len(batch.index) % devices.count() else devices.SPLIT
        return self._worker.submit(self._gather, batch, devices.shardings(split))

    def _gather(self, batch: Batch, sharding: jax.sharding.Sharding | None) -> jax.Array:
        row, index = jax.device_get((batch.row, batch.index))  # waits until they are drawn
        num_envs = self.ring.shape[1]
        flat = self.ring.reshape(-1, *self.ring.shape[2:])  # a view
        return jax.device_put(flat.take(row * num_envs + index[:, None] % num_envs, 0), sharding)

    def close(self) -> None:
        """Wait for the copy in progress and end the thread."""
        self._worker.shutdown()
