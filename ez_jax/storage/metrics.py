"""The metrics of a run: one JSON object per line, and the same numbers as TensorBoard events.

The training loop and the evaluation call `MetricsWriter.write`; nothing else writes metrics. A line
is written before the checkpoint of the same clock, so that a resumed run keeps exactly the lines up
to its checkpoint (`truncate_after`).
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ez_jax.config import BadInput
from ez_jax.storage import safe_files
from ez_jax.storage.weights_and_biases import WandbWriter
from ez_jax.structs import Clocks, Sums

FILE_NAME = "metrics.jsonl"
EVALUATION = "eval/return_mean"  # the score of an evaluation; no other line has it
LARGEST_FILE, LONGEST_LINE = 2**32, 2**20  # bytes; a line has a few hundred
REFERENCE = "reference/"  # prefix of the tags of references
FLUSH_SECONDS = 10  # the longest delay of TensorBoard


def means(summed: Sums) -> dict[str, float]:
    """Means from sums and counts; left out if the count is zero.

    The count is the sum `count`; a section (`search/...`) may have its own (`search/count`).
    """
    sums = {name: float(value) for name, value in summed.by_name().items()}
    number = lambda name: sums.get(f"{name.partition('/')[0]}/count", sums["count"])  # noqa: E731
    counts = {name: number(name) for name in sums if not name.endswith("count")}
    return {name: sums[name] / count for name, count in counts.items() if count}


class Series(NamedTuple):
    """A published curve or score to draw beside the evaluations of a run."""

    name: str  # of letters, digits and _.-/
    points: list[tuple[int, float]]  # agent steps, score
    description: str  # protocol and source


class MetricsWriter(contextlib.AbstractContextManager["MetricsWriter"]):
    """Appends to `metrics.jsonl` and to the TensorBoard events of one run folder."""

    def __init__(self, run_dir: str | Path, *, tensorboard: bool, wandb: WandbWriter | None = None):
        """Open the run folder, which must exist; existing lines are kept.

        `wandb` gets the same numbers and is closed with the rest.
        """
        self._wandb = wandb
        self._run_dir = Path(run_dir).absolute()
        self._path = self._run_dir / FILE_NAME
        self._use_tensorboard = tensorboard
        self._purge_step: int | None = None
        self._tensorboard = None
        # Unbuffered and in append mode: one line is one system call, which a kill cannot split.
        self._file = self._path.open("ab", buffering=0)

    def write(self, clocks: Clocks, metrics: Mapping[str, float]) -> None:
        """Append one line: clocks, then metrics by name.

        Raises:
          FloatingPointError: a metric is not finite; nothing is written then.
        """
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} at {clocks}")
        line = dataclasses.asdict(clocks) | values
        self._file.write(json.dumps(line).encode() + b"\n")
        if self._wandb is not None:
            self._wandb.write(line)
        if self._use_tensorboard:
            values |= {"time/env_frames": clocks.env_frames, "time/updates": clocks.updates}
            for name, value in values.items():
                self._events().add_scalar(name, value, global_step=clocks.agent_steps)

    def write_config(self, text: str) -> None:
        """Show the configuration in TensorBoard's text tab; call this once, in a new run."""
        if self._use_tensorboard:
            # Four spaces make a block of code in TensorBoard's markdown.
            indented = "\n".join("    " + line for line in text.splitlines())
            self._events().add_text("config", indented, global_step=0)

    def write_episodes(
        self, clocks: Clocks, returns: Sequence[float], lengths: Sequence[int]
    ) -> None:
        """Show the episodes of an evaluation as a table; only Weights & Biases has tables."""
        if self._wandb is not None:
            rows = [(clocks.agent_steps, *row) for row in zip(returns, lengths, strict=True)]
            self._wandb.write_table("eval/games", ("agent_steps", "return", "length"), rows)

    def write_references(self, lines: Sequence[Series], after: int = -1) -> None:
        """Draw the references of the evaluations; call this once per process.

        A resumed run draws the part `after` its agent steps: TensorBoard forgets everything later
        than the point of the resume.
        """
        if self._wandb is not None and lines and after < 0:
            drawn = {line.name: line.points for line in lines}
            self._wandb.write_lines("references", drawn, "evaluation return of others")
        if not self._use_tensorboard:
            return
        for line in lines:
            tag = f"{REFERENCE}{line.name}"
            for agent_steps, score in line.points:
                if agent_steps > after:
                    self._events().add_scalar(tag, score, global_step=agent_steps)
        if lines and after < 0:
            told = "\n".join(f"* {REFERENCE}{line.name}: {line.description}" for line in lines)
            self._events().add_text("references", told, global_step=0)
            self._events().add_custom_scalars(_layout([line.name for line in lines]))

    def truncate_after(self, clocks: Clocks) -> int:
        """Drop lines later than a restored checkpoint, and an incomplete last line.

        Both agent_steps and updates count, because updates continue after the last agent step.
        Call this before the first `write`.

        Returns:
          The number of lines dropped.
        """
        lines = _complete_lines(self._path)
        kept = [line for line in lines if _reading(line[1]) <= (clocks.agent_steps, clocks.updates)]
        self._file.close()
        safe_files.write_whole(self._path, b"".join(raw for raw, _ in kept).decode())
        self._file = self._path.open("ab", buffering=0)
        self._purge_step = clocks.agent_steps + 1
        return len(lines) - len(kept)

    def sync(self) -> None:
        """Flush all lines to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush TensorBoard and close the files."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events(self) -> Any:
        if self._tensorboard is None:
            # Imported and opened late: the import takes a while, and purge_step has to be known.
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(
                str(self._run_dir),
                purge_step=self._purge_step,
                flush_secs=FLUSH_SECONDS,
                # Otherwise a run resumed within the same second would overwrite the previous file.
                filename_suffix=f".{time.time_ns()}",
            )
        return self._tensorboard


def _layout(names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom charts: evaluations beside all references, and beside each band."""
    banded = [name for name in names if {f"{name}/low", f"{name}/high"} <= set(names)]
    ends = [f"{name}{end}" for name in banded for end in ("/low", "/high")]
    charts = {"evaluation and references": _multiline([n for n in names if n not in ends])}
    for name in banded:
        charts[f"evaluation and the ends of {name}"] = _multiline([f"{name}/low", f"{name}/high"])
        band = [f"{REFERENCE}{name}{end}" for end in ("", "/low", "/high")]
        charts[f"band of {name}"] = ["Margin", band]
    return {"on track?": charts}


def _multiline(names: Sequence[str]) -> list[Any]:
    """A chart of evaluations and references; TensorBoard interprets tags as patterns."""
    tags = [EVALUATION, *(f"{REFERENCE}{name}" for name in names)]
    return ["Multiline", [f"{re.escape(tag)}$" for tag in tags]]


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, given as a file or a run folder.

    An incomplete last line is left out.

    Raises:
      BadInput: there is no such file, or a line is damaged.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    return [line for _, line in _complete_lines(path)]


def last_written(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Agent steps and updates of the last line of `log` and of `evaluate`; 0 without one."""
    found = {"log": (0, 0), "evaluate": (0, 0)}
    for line in read_metrics(folder):
        found["evaluate" if EVALUATION in line else "log"] = _reading(line)
    return found


def _complete_lines(path: Path) -> list[tuple[bytes, dict[str, float]]]:
    """Each line as stored and as read; a line without a newline is incomplete and is left out."""
    found: list[tuple[bytes, dict[str, float]]] = []
    try:
        safe_files.check_regular(path, path.stat(), LARGEST_FILE)
        with path.open("rb") as file:
            while raw := file.readline(LONGEST_LINE):
                if raw.endswith(b"\n"):
                    found.append((raw, _parse(path, len(found) + 1, raw)))
                elif len(raw) == LONGEST_LINE:
                    raise _damaged(path, len(found) + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    return found


def _parse(path: Path, number: int, raw: bytes) -> dict[str, float]:
    try:
        line = safe_files.parse_json(raw)
    except ValueError as error:
        raise _damaged(path, number) from error
    counts = [line.get(name) for name in ("agent_steps", "updates")]
    are_counts = all(type(count) is int and count >= 0 for count in counts)
    numbers = (value for value in line.values() if type(value) in (int, float))
    # An int may be too large for a float; then it was not written by ez_jax.
    if not are_counts or sum(abs(value) < sys.float_info.max for value in numbers) < len(line):
        raise _damaged(path, number)
    return line


def _damaged(path: Path, number: int) -> BadInput:
    return BadInput(f"line {number} of {path} is damaged; delete the line to resume")


def _reading(line: Mapping[str, float]) -> tuple[int, int]:
    return int(line["agent_steps"]), int(line["updates"])
