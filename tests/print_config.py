"""A stand-in for `ez_jax.train`: prints what a run would be given, or fails as it is told to.

Run by tests/test_cli.py as `python -m tests.print_config`; the run's name says how it ends.
"""

import json
import sys

from ez_jax import cli, config


def show(chosen):
    sys.stdout.write(json.dumps(config.to_dict(chosen)) + "\n")
    if chosen.name == "crash":
        raise ZeroDivisionError("the original message")
    if chosen.name == "interrupted":
        raise KeyboardInterrupt
    if chosen.seed == 7:
        return 130
    return 1 if chosen.seed == 13 else None


def plan(chosen):
    sys.stdout.write(f"plan of seed {chosen.seed}\n")


if __name__ == "__main__":
    cli.main(show, plan=plan, description="Prints the configuration.")
