"""First light on an accelerator: measure, then learn, each for so many seconds.

    python -m experiments.gpu measure --seconds 330
    python -m experiments.gpu learn --seconds 430

measure  ceilings, the cost of kernels and loops, the search in both trees, then milliseconds of
         acting, targets and learning of several settings, and the kernels of one
learn    trains the setting `fast` (or --setting NAME), with further settings of your own
         (learner.start=1000 ...), and keeps its curve and its weights; called again, it goes on

Rows are in OUT/rows.jsonl as soon as they are measured; what has one is not measured again. Nothing
is fetched from a network. --small does all of it in a size for a CPU.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.gpu.rows import Rows
from experiments.gpu.settings import FULL, SETTINGS, SMALL, Sizes

PROBE = 0.33  # share of `measure` that looks at the machine itself
FLAGS = "xla_flags"  # the file that keeps what `probe` found to be quickest


def main(words: Sequence[str]) -> int:
    """Run one stage; the exit code is 0 when it did what it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=("measure", "learn", "probe", "parts"))
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu"))
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--setting", choices=SETTINGS, default="fast")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("words", nargs="*", help="learn: further settings, such as seed=1")
    chosen = parser.parse_intermixed_args(words)
    sizes, rows = SMALL if chosen.small else FULL, Rows(chosen.out, chosen.seconds)
    if chosen.stage == "measure":
        return measure(rows, [*(["--small"] if chosen.small else []), f"--out={chosen.out}"])
    with_flags(chosen.out, chosen.stage)
    return stage(rows, sizes, chosen)


def measure(rows: Rows, words: list[str]) -> int:
    """Both stages in processes of their own, as XLA reads its flags but once; each ends in time."""
    codes = []
    for name, share in (("probe", PROBE), ("parts", 1.0)):
        seconds = share * rows.left
        command = [sys.executable, "-m", "experiments.gpu", name, f"--seconds={seconds}", *words]
        try:
            codes.append(subprocess.run(command, timeout=seconds).returncode)
        except subprocess.TimeoutExpired:
            rows.add("stopped", stage=name, seconds=seconds)
            codes.append(1)
    return max(codes)


def stage(rows: Rows, sizes: Sizes, chosen: argparse.Namespace) -> int:
    """One stage in this process."""
    if chosen.stage == "learn":
        from experiments.gpu.learn import learn

        return learn(rows, sizes, chosen.setting, chosen.words, chosen.runs)
    from ez_jax.system import compilation

    compilation.configure_jax()
    if chosen.stage == "probe":
        from experiments.gpu.probe import probe

        if not rows.has("chosen flags"):
            (rows.out / FLAGS).write_text(probe(rows, sizes), encoding="utf-8")
    else:
        from experiments.gpu.parts import measure_parts

        measure_parts(rows, sizes)
    return 0


def with_flags(out: Path, stage: str) -> None:
    """Tell XLA, before it is loaded, what was found to be quickest on this machine."""
    path = out / FLAGS
    if stage != "probe" and path.exists():
        flags = f"{os.environ.get('XLA_FLAGS', '')} {path.read_text(encoding='utf-8')}"
        os.environ["XLA_FLAGS"] = flags.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
