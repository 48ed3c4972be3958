"""Sends the metrics of a run to Weights & Biases (`log.wandb=true`).

The package is an extra: `pip install "ez_jax[wandb]"`. A run folder keeps the id of its W&B run, so
that a resumed run continues the same one. W&B's variables work as usual: WANDB_MODE=offline,
WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY. If W&B fails, the run warns once and continues.
"""

import importlib
import importlib.util
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ez_jax.config import BadInput
from ez_jax.storage import safe_files

PACKAGE = "wandb"  # an extra, so it is imported only when it is used
ID_FILE = "wandb.json"
STEP = "agent_steps"  # W&B's own step cannot go back to a checkpoint
SETTINGS = {"console": "off", "silent": True, "init_timeout": 30.0}
Warn = Callable[[str], None]


def check_installed() -> None:
    """Refuse to start without the package.

    Raises:
      BadInput: it is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise BadInput(
            "log.wandb=true needs the package wandb: pip install wandb, or leave out log.wandb"
        )


class WandbWriter:
    """Sends numbers, tables, figures and videos of one run folder, from W&B's own process."""

    def __init__(self, run_dir: str | Path, warn: Warn, config: Mapping[str, Any] | None = None):
        """Open the W&B run of a folder, a new one at first; `config` is shown there."""
        self._warn = warn
        self._run: Any = None
        self._attempt(lambda: self._open(Path(run_dir).absolute(), config))

    def _open(self, run_dir: Path, config: Mapping[str, Any] | None) -> None:
        config, wandb = config or {}, importlib.import_module(PACKAGE)
        run = wandb.init(
            id=run_id(run_dir),
            dir=run_dir,
            config=dict(config) or None,
            name="-".join(run_dir.parts[-3:]),
            group=config.get("game"),
            project=wandb.setup().settings.project or "ez_jax",
            resume="allow",
            reinit="create_new",  # several runs in one program
            settings=wandb.Settings(**SETTINGS),
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        self._run = run

    def write(self, values: Mapping[str, float]) -> None:
        """Send numbers by name; agent_steps is one of them."""
        self._send(lambda _: dict(values))

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table."""
        self._send(
            lambda wandb: {name: wandb.Table(columns=list(columns), data=[list(r) for r in rows])}
        )

    def write_lines(
        self, name: str, lines: Mapping[str, Sequence[tuple[int, float]]], label: str
    ) -> None:
        """Send a figure of lines over agent steps; `label` is that of the y axis."""

        def figure(wandb: Any) -> dict[str, Any]:
            points = [list(zip(*line, strict=True)) for line in lines.values()]
            xs, ys = ([list(point[axis]) for point in points] for axis in (0, 1))
            return {
                name: wandb.plot.line_series(xs, ys, list(lines), title=label, xname="agent steps")
            }

        self._send(figure)

    def write_video(self, name: str, path: Path, agent_steps: int) -> None:
        """Send a video file."""
        self._send(lambda wandb: {name: wandb.Video(str(path), format="mp4"), STEP: agent_steps})

    def close(self) -> None:
        """Send the rest and close the run."""
        run, self._run = self._run, None
        if run is not None:
            self._attempt(run.finish)

    def _send(self, make: Callable[[Any], dict[str, Any]]) -> None:
        run = self._run
        if run is None:
            return
        self._attempt(lambda: run.log(make(importlib.import_module(PACKAGE))))

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it; if it fails, warn once and stop using W&B."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 a run is worth more than its display
            self._run = None
            self._warn(f"nothing more goes to Weights & Biases: {type(error).__name__}: {error}")


def run_id(run_dir: Path) -> str:
    """The id of a folder's W&B run, created at first.

    Raises:
      BadInput: the file is damaged.
    """
    path = run_dir / ID_FILE
    if not path.exists():
        safe_files.write_whole(path, f'{{"id": "{uuid.uuid4().hex[:12]}"}}\n')
    found = safe_files.read_json(path).get("id")
    if not (isinstance(found, str) and found.isalnum() and len(found) <= 64):
        raise BadInput(f"{path} is damaged: delete it, and a new W&B run begins")
    return found
