"""Reproducible results: lists them, reproduces one, or compares an existing run.

    python -m experiments.reproduce                   list them with their status
    python -m experiments.reproduce cartpole          run its command for every seed, then compare
    python -m experiments.reproduce check=RUN_DIR     compare a run, found by its settings
    python -m experiments.reproduce cartpole check=RUN_DIR

Each file of `experiments/reproductions` is one: command, seeds, time, expected band. The same
command resumes an interrupted one. Exit code 0: within the band, 1: outside, 2: bad input.
"""

import dataclasses
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ez_jax.config import BadInput, Config, from_dict, run_folder
from ez_jax.evaluation.on_track import differing_settings, number
from ez_jax.storage import safe_files
from ez_jax.storage.metrics import EVALUATION, read_metrics
from ez_jax.storage.run_folder import read_config
from ez_jax.system import exits
from ez_jax.terminal import arguments, start

FOLDER = Path(__file__).parent / "reproductions"
ROOT = Path(__file__).parent.parent
Line = Mapping[str, Any]  # agent steps and score of an evaluation, as metrics.jsonl has them


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """One result: its command and the expected band."""

    name: str
    game: str
    command: str  # with SEED in it
    seeds: list[int]
    time: str  # measured, with the device, or "not measured"
    expected: dict[int, list[float]]  # agent steps: lowest and highest mean over the seeds
    source: str  # of the band
    status: str  # reproduced, not yet, measured once, or differs by how much
    results: str = ""  # the JSON file of `experiments.curves`, from the root of the repository
    own_band: bool = False  # whether the band was made from these results, so it cannot judge them

    def words(self, seed: int) -> list[str]:
        """The words that follow `python -m ez_jax.train`."""
        return shlex.split(self.command.replace("SEED", str(seed)))[3:]

    def config(self, seed: int) -> Config:
        """The configuration of the command."""
        return arguments.compose(self.words(seed))


def load(name: str) -> Reproduction:
    """A reproduction by the name of its file.

    Raises:
      BadInput: there is none of that name.
    """
    if name not in names():
        raise BadInput(f"'{name}' is not one of {', '.join(names())}")
    return Reproduction(name=name, **safe_files.read_yaml(FOLDER / f"{name}.yaml"))


def names() -> list[str]:
    """All reproductions."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def tell(reproduction: Reproduction) -> str:
    """Some lines of the list."""
    at = [f"{band(ends)} at {steps:,} steps" for steps, ends in reproduction.expected.items()]
    lines = [reproduction.command, f"expected {', '.join(at)}: {reproduction.source}"]
    if reproduction.results:
        runs = safe_files.read_json(ROOT / reproduction.results)["runs"]
        found = means(reproduction, [run["curve"] for run in runs])
        told = [
            f"{number(mean)} at {steps:,} steps"
            for steps, mean in found.items()
            if mean is not None
        ]
        band_from = ", from which the band was made" if reproduction.own_band else ""
        measured = f"{', '.join(told)} ({_seeds(runs)}){band_from}"
        lines.append(f"measured {measured}: {reproduction.results}")
    lines.append(f"time: {reproduction.time}")
    return "\n    ".join([f"{reproduction.name}: {reproduction.status}", *lines])


def judge(reproduction: Reproduction, curves: Sequence[Sequence[Line]]) -> tuple[str, bool]:
    """The result of some seeds in words, and whether it is within the band."""
    parts, is_within = [], True
    found = means(reproduction, curves)
    for steps, ends in reproduction.expected.items():
        if (mean := found[steps]) is None:
            parts.append(f"not at {steps:,} steps yet")
            is_within = False
            continue
        parts.append(
            f"{number(mean)} at {steps:,} steps ({_seeds(curves)}), {side(mean, ends)} {band(ends)}"
        )
        is_within &= side(mean, ends) == "within"
    return "; ".join(parts), is_within


def means(reproduction: Reproduction, curves: Sequence[Sequence[Line]]) -> dict[int, float | None]:
    """The mean over seeds at each of the expected agent steps; None if a score is missing."""
    found: dict[int, float | None] = {}
    for steps in reproduction.expected:
        scores = [score for curve in curves if (score := score_at(curve, steps)) is not None]
        is_whole = scores and len(scores) == len(curves)
        found[steps] = statistics.fmean(scores) if is_whole else None
    return found


def _seeds(runs: Sequence[Any]) -> str:
    return "1 seed" if len(runs) == 1 else f"mean of {len(runs)} seeds"


def score_at(curve: Sequence[Line], steps: int) -> float | None:
    """The score of the last evaluation that was due at these agent steps."""
    later = [line for line in curve if line["agent_steps"] >= steps]
    first = min((line["agent_steps"] for line in later), default=None)
    # The one after the last agent step and the one after the last update have the same steps.
    return next((x[EVALUATION] for x in reversed(later) if x["agent_steps"] == first), None)


def side(score: float, ends: Sequence[float]) -> str:
    """The position of a score relative to a band."""
    return "below" if score < ends[0] else "above" if score > ends[1] else "within"


def band(ends: Sequence[float]) -> str:
    """A band in words."""
    return f"{number(ends[0])} to {number(ends[1])}"


def run(reproduction: Reproduction) -> int:
    """Run the command for every seed, and compare the results."""
    for seed in reproduction.seeds:
        command = [sys.executable, "-m", "ez_jax.train", *reproduction.words(seed)]
        say(f"$ {shlex.join(command)}")
        if code := wait(command):
            return code
    folders = [run_folder(reproduction.config(seed)) for seed in reproduction.seeds]
    return verdict(reproduction, folders)


def wait(command: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the command also gets it, saves and ends
                continue


def check(folder: Path, name: str) -> int:
    """Compare an existing run; without a name, its reproduction is found by its settings.

    Raises:
      BadInput: not a run, or its settings are those of no reproduction or of another one.
    """
    config = from_dict(read_config(folder))
    found = {n: mismatch(config, load(n)) for n in ([name] if name else names())}
    fitting = [n for n, why in found.items() if not why]
    if fitting:
        return verdict(load(fitting[0]), [folder])
    if name:
        raise BadInput(f"{folder} is not {name}: {found[name]}")
    raise BadInput(f"{folder} has the settings of none of {', '.join(found)}")


def mismatch(config: Config, reproduction: Reproduction) -> str:
    """Why a run does not belong to a reproduction; empty if it does."""
    expected = reproduction.config(config.seed)
    if config.game != expected.game:
        return f"it is a run of {config.game}"
    return ", ".join(differing_settings(config, expected))


def verdict(reproduction: Reproduction, folders: Sequence[Path]) -> int:
    """Print whether runs are within the band; returns the exit code."""
    curves = [[line for line in read_metrics(x) if EVALUATION in line] for x in folders]
    sentence, is_within = judge(reproduction, curves)
    say(f"{reproduction.name}: {sentence}; expected by: {reproduction.source}")
    return exits.DONE if is_within else exits.FAILED


def say(line: str) -> None:
    """Print one line, before the output of subprocesses."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: list[str]) -> int:
    """List, run or compare."""
    chosen = [word for word in words if "=" not in word]
    options, changes = arguments.read([word for word in words if "=" in word], {"check": ""})
    if changes or len(chosen) > 1:
        raise BadInput(
            "write at most one NAME and check=RUN_DIR; the settings are those of its file"
        )
    name = chosen[0] if chosen else ""
    if options["check"]:
        return check(Path(options["check"]), name)
    if name:
        return run(load(name))
    for each in names():
        say(tell(load(each)))
    return exits.DONE


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
