"""Repeat the last update of a failed run, and report what was not finite.

    python -m ez_jax.replay_crash runs/CartPole/default/seed0

Each stage is checked in turn: the input of the update, the losses, their gradients, the new
parameters and optimiser state. If NaN appears in between, a second pass makes the same update one
operation at a time, and names the first that gives NaN.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import sys
from collections.abc import Sequence
from pathlib import Path

from ez_jax import terminal
from ez_jax.config import BadInput
from ez_jax.diagnosis.crash_replay import explain, plain
from ez_jax.storage import crash_bundle, run_folder
from ez_jax.system import compilation, exits
from ez_jax.terminal.progress import Progress


def main(words: Sequence[str]) -> int:
    """Explain one crash bundle."""
    if len(words) != 1 or (words[0].startswith("-") and not Path(words[0]).is_dir()):
        raise BadInput("which run? write python -m ez_jax.replay_crash DIR, a run or a crash in it")
    bundle = crash_bundle.read(words[0])
    compilation.configure_jax()
    facts, here, tell = bundle.facts, run_folder.provenance(), Progress().say
    say = lambda line: tell(plain(line))  # noqa: E731
    say(f"bundle     {bundle.folder}")
    say(f"failed     {facts['time']}, {facts['error']}")
    say(f"clocks     {facts['clocks']}, last update {facts['update']}")
    for name in ("device", "commit"):
        same = "" if facts[name] == here[name] else f" (here {here[name]})"
        say(f"{name:9}  {facts[name]}{same}")
    for line in explain(bundle):
        say(line)
    sys.stdout.write(f"\n{plain(bundle.traceback)}")
    return exits.DONE


HELP = """usage: python -m ez_jax.replay_crash DIR

Repeats the last update of a failed run and reports what was not finite.
  DIR                          a run folder (its newest crash), or a folder in RUN/crashes
exit codes: 0 explained, 1 failure, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    terminal.start(main, HELP)
