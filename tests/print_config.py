"""A stand-in for `ez_jax.train`: prints what a run would be given, or fails as it is told to.

Run by test_cli.py as `python -m tests.print_config`; the run's name says how it ends.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ez_jax import config
from ez_jax.system.signals import Interrupt
from ez_jax.terminal import launch


def command(*words, cwd):
    """What a process of its own answers to these words."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, "-m", "tests.print_config", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def show(chosen):
    sys.stdout.write(json.dumps(config.to_dict(chosen)) + "\n")
    if chosen.name == "crash":
        raise ZeroDivisionError("the original message")
    if chosen.name == "interrupted":
        raise KeyboardInterrupt
    if chosen.name == "waits":
        return wait(chosen)
    if chosen.seed == 7:
        return 130
    return 1 if chosen.seed == 13 else None


def wait(chosen):
    """A run that goes on until it is asked to stop, and saves then."""
    with Interrupt() as interrupt:
        write(f"begun{chosen.seed}")
        while not interrupt.requested:
            time.sleep(0.02)
        time.sleep(0.5)
        write(f"saved{chosen.seed}")
    return 130


def write(name):
    with open(name, "x", encoding="utf-8") as file:
        file.write(str(os.getpid()))


def together(chosen):
    sys.stdout.write(f"together {[one.seed for one in chosen]}\n")


def plan(chosen):
    sys.stdout.write(f"plan of seed {chosen.seed}\n")


if __name__ == "__main__":
    launch.main(show, plan=plan, together=together, description="Prints the configuration.")
