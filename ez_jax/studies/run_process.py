"""Trains one run of a study in its own process, so that a crash does not affect the others.

    python -m ez_jax.studies.run_process FILE

FILE is in the ledger of `python -m ez_jax.ablate`, beside the log of the run. It has the whole
configuration of one run, or of several that differ in their seed and are trained together.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ez_jax import config
from ez_jax.config import BadInput, Config
from ez_jax.storage import lock, safe_files
from ez_jax.system import exits, signals
from ez_jax.terminal import arguments

# From the parent process: the open file of a lock, and its process number.
OWN_KEYS = {"lock": -1, "parent": 0}


@dataclasses.dataclass(frozen=True)
class Job:
    """The runs to train."""

    configs: Sequence[Config]
    together: bool  # in one program; a run started so has to be resumed so, even alone

    def write(self, path: Path) -> None:
        """Write it completely or not at all."""
        content = {
            "together": self.together,
            "configs": [config.to_dict(chosen) for chosen in self.configs],
        }
        safe_files.write_whole(path, json.dumps(content, indent=1) + "\n")


def read(path: Path) -> Job:
    """Read a file.

    Raises:
      BadInput: there is no such file, or it is damaged.
    """
    try:
        content = safe_files.read_json(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    found, together = content.get("configs"), content.get("together")
    if not (
        isinstance(found, list)
        and isinstance(together, bool)
        and (len(found) == 1 or (found and together))
    ):
        raise BadInput(f"{path} is damaged: it has no configurations")
    configs = [config.validate(config.from_dict(values)) for values in found]
    return Job(configs, together)


def run(job: Job) -> int:
    """Train; returns the exit code."""
    # Imported here, because a refusal needs neither.
    if job.together:
        from ez_jax.training.vmapped import train_together

        return train_together(job.configs)
    from ez_jax.train import train

    (chosen,) = job.configs
    # Workers that a cluster starts together are separate runs.
    alone = "local" if chosen.devices == "all" else chosen.devices
    return train(dataclasses.replace(chosen, devices=alone))


def main() -> int:
    """Train the runs of a file."""
    path, *words = sys.argv[1:] or [""]
    if not path:
        raise BadInput("which run? write python -m ez_jax.studies.run_process FILE")
    values, _ = arguments.read(words, OWN_KEYS)
    if values["lock"] >= 0:
        lock.hold_inherited(values["lock"])
    if values["parent"]:
        signals.end_with(values["parent"])
    return run(read(Path(path)))


if __name__ == "__main__":
    sys.exit(exits.guarded(main))
