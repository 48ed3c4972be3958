"""What the notebooks call, so that their cells contain no logic: set-up, commands, displays.

Commands run in separate processes, which have the accelerator to themselves; the notebook itself
computes on the CPU. The result of `show_...` is displayed if it is the value of a cell.
"""

import base64
import functools
import html
import importlib.util
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ez_jax.config import BadInput

# Import nothing that needs JAX: this module reports if JAX is too old.
from ez_jax.system import machine

NEEDED_JAX = "0.10"  # as setup.cfg says
SMALL = "EZ_JAX_NOTEBOOK"  # this environment variable is "small" when a notebook is only tested
DRIVE = Path("/content/drive")
# With these, Jupyter asks programs for colours, which would make them assume a terminal.
COLOURING = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "PY_COLORS")
PROGRESS = re.compile(r"([\d,]+)/[\d,]+ steps,")  # the start of a progress line
_ASK = (
    "import jax; from ez_jax.system import machine; "
    "print(jax.default_backend(), jax.device_count(), machine.device_name(), sep='|')"
)

T = TypeVar("T")


class View:
    """Something to display; Jupyter asks it for its one representation."""

    def __init__(self, mime: str, content: str | bytes, about: str):
        """`about` is shown if the representation cannot be."""
        self.mime, self.content, self._about = mime, content, about

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        content = self.content
        text = content if isinstance(content, str) else base64.b64encode(content).decode()
        return {self.mime: text, "text/plain": self._about}


def setup() -> None:
    """Print the versions of Python and JAX and the device, and any problem with them.

    Raises:
      BadInput: JAX is missing or too old; the message names the fix.
    """
    _check_jax(machine.installed("jax"))
    import jax

    jax.config.update("jax_platforms", "cpu")  # for this process, not for the commands
    platform, count, device = _device()
    _say(f"Python {machine.versions()['python']}, JAX {jax.__version__}, {count} x {device}")
    if platform == "cpu" and machine.nvidia_gpus():
        _say("warning: the GPU is not used; python -m ez_jax.doctor says what to fix")
    if is_small():
        _say(f"small settings ({SMALL}=small): results below are from a few seconds of training")


def is_small() -> bool:
    """Whether a notebook is only tested."""
    return os.environ.get(SMALL) == "small"


def pick(full: T, small: T, *, accelerator: bool = False) -> T:
    """Choose the value for a full run or for a small one.

    Args:
      full: for a full run.
      small: for EZ_JAX_NOTEBOOK=small.
      accelerator: whether the full run needs one; without one, `small` is chosen.
    """
    if accelerator and _device()[0] == "cpu":
        _tell_stand_in()
        return small
    return small if is_small() else full


def work_in_drive(wanted: bool) -> None:
    """Change to a folder in Google Drive, if wanted and available; otherwise stay here."""
    if wanted and "google.colab" in sys.modules:
        try:
            importlib.import_module("google.colab.drive").mount(str(DRIVE))
        except Exception as error:  # noqa: BLE001 reported, and the notebook continues without
            _say(f"Google Drive is not available ({error})")
        else:
            folder = DRIVE / "MyDrive" / "ez_jax"
            folder.mkdir(exist_ok=True)
            os.chdir(folder)
            _say("runs are in Google Drive, folder ez_jax: another session resumes them")
            return
    _say("runs are on this machine, in the folder runs, and are lost with it")


def command(text: str, *, stop_at: int = 0) -> None:
    """Run a command that begins with `python`, and show its output while it runs.

    The Stop button acts as ctrl-C: a run saves and ends. With `stop_at`, that happens when training
    reports this many agent steps. Paths below the current folder are shown relative to it.

    Raises:
      RuntimeError: the command failed.
      KeyboardInterrupt: it was stopped by the button.
    """
    from ez_jax.system.exits import DONE, INTERRUPTED

    python, *words = shlex.split(text)
    if python != "python":
        raise BadInput(f"'{text}' is not a Python command: begin with python -m")
    _say(f"$ {text}")
    environment = {name: value for name, value in os.environ.items() if name not in COLOURING}
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "PYTHONUNBUFFERED": "1", "TERM": "dumb"},
        start_new_session=True,  # only this process passes the Stop button on
    )
    is_stopped = _show_lines(process, stop_at)
    code = process.wait()
    if code not in (DONE, INTERRUPTED):  # an interrupted run says so itself
        raise RuntimeError(f"exit code {code}: {text}")
    if is_stopped:
        raise KeyboardInterrupt


def _show_lines(process: subprocess.Popen[str], stop_at: int) -> bool:
    """Show the output of a process; returns whether the Stop button was pressed."""
    is_stopped = False
    assert process.stdout is not None  # it is a pipe
    while True:
        try:
            for line in process.stdout:
                _say(line.rstrip().replace(f"{Path.cwd()}{os.sep}", ""))
                found = PROGRESS.match(line)
                if stop_at and found and int(found[1].replace(",", "")) >= stop_at:
                    stop_at = 0
                    process.send_signal(signal.SIGINT)
            return is_stopped
        except KeyboardInterrupt:
            is_stopped = True
            process.send_signal(signal.SIGINT)


def show_curve(*runs: str | Path) -> View:
    """Plot evaluations of runs over agent steps, with the returns of training episodes."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ez_jax.reports.drawing import COLOURS, RC
    from ez_jax.storage.metrics import read_metrics
    from ez_jax.storage.run_folder import read_config

    with rc_context(RC):
        figure = Figure(figsize=(7, 3.2), facecolor="white")
        axes = figure.subplots()
        for colour, run in zip(COLOURS, runs, strict=False):
            lines, config = read_metrics(run), read_config(run)
            name = f"{config['game']}, seed {config['seed']}"
            for key, style, label in (
                ("rollout/return", ".:", f"{name}, training episodes"),
                ("eval/return_mean", "o-", f"{name}, evaluation"),
            ):
                points = [(line["agent_steps"], line[key]) for line in lines if key in line]
                columns = np.reshape(points, (-1, 2)).T  # perhaps empty
                axes.plot(*columns, style, color=colour, label=label, markersize=4)
        axes.set(xlabel="agent steps", ylabel="return")
        axes.grid(True)
        axes.legend()
        return _drawn(figure, f"curve of {', '.join(map(str, runs))}")


def show_bars(values: Mapping[str, Sequence[float]], labels: Sequence[str]) -> View:
    """Bar chart: one group per label, one bar per name."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ez_jax.reports.drawing import COLOURS, RC

    with rc_context(RC):
        figure = Figure(figsize=(7, 2.6), facecolor="white")
        axes = figure.subplots()
        width = 0.8 / len(values)
        for i, (name, heights) in enumerate(values.items()):
            places = np.arange(len(labels)) + (i - (len(values) - 1) / 2) * width
            bars = axes.bar(places, np.asarray(heights), width, color=COLOURS[i], label=name)
            axes.bar_label(bars, fmt="%.2f", fontsize=8)
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.legend()
        return _drawn(figure, f"bars of {', '.join(values)}")


def _drawn(figure: Any, about: str) -> View:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return View("image/png", buffer.getvalue(), about)


def show_picture(path: str | Path) -> View:
    """Show a PNG file, such as a figure of a report."""
    return View("image/png", Path(path).read_bytes(), str(path))


def show_video(run: str | Path) -> View:
    """Show the newest video of a run, recorded by `ez_jax.evaluate ... video=1`.

    Raises:
      BadInput: there is none.
    """
    videos = sorted(Path(run).glob("videos/*.mp4"), key=lambda path: path.stat().st_mtime)
    if not videos:
        raise BadInput(f"{run} has no video; python -m ez_jax.evaluate run={run} video=1 makes one")
    data = base64.b64encode(videos[-1].read_bytes()).decode()
    source = f'<source src="data:video/mp4;base64,{data}" type="video/mp4">'
    tag = f'<video controls autoplay loop muted style="max-width: 100%">{source}</video>'
    return View("text/html", tag, f"video {videos[-1].name}")


def show_page(path: str | Path, height: int = 700) -> View:
    """Show a self-contained page, such as a report, in a frame of this height in pixels."""
    content = html.escape(Path(path).read_text(encoding="utf-8"), quote=True)
    style = f"width: 100%; height: {height}px; border: 1px solid #ccc"
    frame = f'<iframe srcdoc="{content}" style="{style}"></iframe>'
    return View("text/html", frame, f"page {Path(path).name}")


def show_tensorboard(folder: str | Path, *, wanted: bool = True) -> None:
    """Show TensorBoard for all runs below a folder, if it is wanted and installed."""
    if not wanted:
        return
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or importlib.util.find_spec("tensorboard") is None:
        _say("TensorBoard is not installed here: pip install tensorboard")
        return
    shell.run_line_magic("load_ext", "tensorboard")
    shell.run_line_magic("tensorboard", f"--logdir {folder}")


def _check_jax(version: str | None, here: Callable[[str], str | None] = machine.installed) -> None:
    if version is None:
        raise BadInput("JAX is not installed: see what pip says above, or pip install jax")
    if _numbers(version) >= _numbers(NEEDED_JAX):
        return
    parts = {"jax-cuda13-plugin": "[cuda13]", "jax-cuda12-plugin": "[cuda12]", "libtpu": "[tpu]"}
    extra = next((extra for package, extra in parts.items() if here(package)), "")
    raise BadInput(
        f"JAX {version} is installed, but ez_jax needs {NEEDED_JAX} or newer: run "
        f"%pip install -U 'jax{extra}>={NEEDED_JAX}' (this replaces the JAX of this machine), then "
        "Runtime > Restart session, and run all cells again"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


@functools.cache
def _device() -> tuple[str, str, str]:
    """Platform, number and name of the devices that commands will use, found by running one."""
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"JAX does not start: {done.stderr.strip().splitlines()[-1]}")
    platform, count, name = done.stdout.strip().splitlines()[-1].split("|", 2)
    return platform, count, name


@functools.cache
def _tell_stand_in() -> None:
    _say("no accelerator: this runs on the CPU with the small settings")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
