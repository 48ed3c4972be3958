"""What notebooks call: facts told, commands shown and stopped, curves, videos and pages."""

import configparser
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import runs

from ez_jax import notebook
from ez_jax.config import BadInput
from ez_jax.evaluation.video import write_video
from ez_jax.notebook import View

PNG = b"\x89PNG\r\n"


@pytest.fixture
def device(monkeypatch):
    """Return call(platform): commands have such a device, and no notebook is only tested."""
    monkeypatch.delenv(notebook.SMALL, raising=False)
    notebook._tell_stand_in.cache_clear()
    return lambda platform: monkeypatch.setattr(notebook, "_device", lambda: (platform, "1", "it"))


# Set-up.


def test_the_needed_jax_is_that_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(runs.ROOT / "setup.cfg")
    needed = re.search(r"^jax>=(.+)$", setup["options"]["install_requires"], re.MULTILINE)
    assert needed[1] == notebook.NEEDED_JAX


@pytest.mark.parametrize("version", ["0.10.0", "0.10.2.dev20260101", "0.11.2", "1.0"])
def test_a_jax_that_is_new_enough_is_taken(version):
    notebook._check_jax(version)


@pytest.mark.parametrize(
    ("there", "extra"), [("jax-cuda12-plugin", "[cuda12]"), ("libtpu", "[tpu]"), ("", "")]
)
def test_an_older_jax_is_refused_with_the_command_that_replaces_it(there, extra):
    with pytest.raises(BadInput, match=r"JAX 0\.9\.1 is installed, but ez_jax needs") as told:
        notebook._check_jax("0.9.1", lambda package: "1" if package == there else None)
    assert f"%pip install -U 'jax{extra}>=0.10'" in str(told.value)
    assert "Restart" in str(told.value)


def test_without_jax_the_installation_is_to_be_looked_at():
    with pytest.raises(BadInput, match="see what pip says above"):
        notebook._check_jax(None)


def test_set_up_tells_versions_device_and_setting(device, monkeypatch, capsys):
    device("cpu")
    monkeypatch.setenv(notebook.SMALL, "small")
    monkeypatch.setattr(notebook.machine, "nvidia_gpus", lambda: ["NVIDIA T4"])
    notebook.setup()
    told = capsys.readouterr().out
    assert re.match(r"Python 3\.\d+\.\d+, JAX \d+\.\d+\.\d+, 1 x it\n", told)
    assert "warning: the GPU is not used" in told
    assert "small settings (EZ_JAX_NOTEBOOK=small)" in told


def test_the_device_of_commands_is_found_by_a_command(monkeypatch):
    notebook._device.cache_clear()
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    platform, count, _ = notebook._device()
    assert (platform, int(count) > 0) == ("cpu", True)


def test_the_sentence_about_jax_needs_nothing_that_is_installed_with_ez_jax():
    code = (
        "import sys\n"
        "for name in ('jax', 'numpy', 'hydra', 'omegaconf', 'rich', 'yaml', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from ez_jax import notebook\n"
        "notebook._check_jax('0.7')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=False
    )
    assert "BadInput: JAX 0.7 is installed" in done.stderr


# Settings.


def test_the_small_setting_is_for_tests_and_where_the_device_is_missing(
    device, monkeypatch, capsys
):
    device("cpu")
    assert notebook.pick(3, small=1) == 3
    assert notebook.pick(3, small=1, accelerator=True) == 1
    assert "this runs on the CPU with the small settings" in capsys.readouterr().out
    device("gpu")
    assert notebook.pick(3, small=1, accelerator=True) == 3
    monkeypatch.setenv(notebook.SMALL, "small")
    assert notebook.pick(3, small=1, accelerator=True) == 1
    assert notebook.pick(3, small=1) == 1


def test_without_colab_runs_lie_here(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    notebook.work_in_drive(True)
    assert os.getcwd() == str(tmp_path)
    assert "lost with it" in capsys.readouterr().out


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Colab with a drive, whose `mount` can be made to fail."""
    drive = SimpleNamespace(mount=lambda path: (tmp_path / "MyDrive").mkdir())
    monkeypatch.setattr(notebook, "DRIVE", tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(drive=drive))
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)
    monkeypatch.chdir(tmp_path)
    return drive


def test_in_colab_the_notebook_goes_to_the_drive(colab, tmp_path, capsys):
    notebook.work_in_drive(True)
    assert os.getcwd() == str(tmp_path / "MyDrive" / "ez_jax")
    assert "another session resumes them" in capsys.readouterr().out


def test_a_drive_that_cannot_be_had_is_told_and_done_without(colab, tmp_path, capsys):
    def mount(path):
        raise ValueError("mount failed")

    colab.mount = mount
    notebook.work_in_drive(True)
    assert os.getcwd() == str(tmp_path)
    told = capsys.readouterr().out
    assert "Google Drive is not available (mount failed)" in told
    assert "lost with it" in told


# Commands.

STOPPABLE = """
import os, signal, sys, time
def stop(*_):
    print('saved')
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
for steps in range(100, 1000, 100):
    print(f'{steps}/1,000 steps, return 1')
    if 'press' in sys.argv and steps == 300:
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.2 if steps > 200 else 0)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return call(code) -> a command that runs it."""
    monkeypatch.chdir(tmp_path)

    def call(code):
        (tmp_path / "script.py").write_text(code)
        return "python script.py"

    return call


def test_a_command_is_shown_with_all_that_it_says(script, capsys, tmp_path):
    notebook.command(script("import os, sys; print(os.getcwd() + '/a'); sys.stderr.write('b\\n')"))
    assert sorted(capsys.readouterr().out.splitlines()) == ["$ python script.py", "a", "b"]


def test_a_command_is_not_asked_for_colours(script, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter does
    code = "from ez_jax.terminal.progress import Progress; Progress().plan({'game': 'it'})"
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    notebook.command(script(code))
    assert capsys.readouterr().out == "$ python script.py\ngame  it\n"


def test_a_command_that_fails_stops_the_notebook(script, capsys):
    with pytest.raises(RuntimeError, match=r"exit code 3: python script\.py"):
        notebook.command(script("import sys; sys.exit(3)"))


def test_only_commands_of_python_are_run():
    with pytest.raises(BadInput, match="begin with python -m"):
        notebook.command("rm -r runs")


def test_a_command_stops_by_itself_as_by_the_button(script, capsys):
    notebook.command(script(STOPPABLE), stop_at=300)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "saved"
    assert "300/1,000 steps, return 1" in lines
    assert not any(line.startswith("900/") for line in lines)


@pytest.fixture
def button():
    """As in a notebook, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("button")
def test_the_stop_button_reaches_the_command_and_then_the_notebook(script, capsys):
    with pytest.raises(KeyboardInterrupt):
        notebook.command(script(STOPPABLE) + " press")
    assert capsys.readouterr().out.endswith("saved\n")


def test_the_line_that_says_how_far_training_is_is_known(finished):
    lines = [line for line in finished.stdout.splitlines() if notebook.PROGRESS.match(line)]
    assert len(lines) >= runs.STEPS // runs.LOG_EVERY - 1


# Things to look at.


def png(view):
    (mime,) = view._repr_mimebundle_().keys() - {"text/plain"}
    assert mime == "image/png"
    return view.content


def test_a_curve_is_drawn_from_a_run(finished):
    assert png(notebook.show_curve(finished.folder)).startswith(PNG)


def test_bars_and_figures_are_pictures(tmp_path):
    drawn = png(notebook.show_bars({"prior": [0.2, 0.8], "visits": [0.5, 0.5]}, ["left", "right"]))
    assert drawn.startswith(PNG)
    (tmp_path / "figure.png").write_bytes(drawn)
    assert png(notebook.show_picture(tmp_path / "figure.png")) == drawn


def test_a_page_is_shown_in_a_frame_and_cannot_break_out_of_it(tmp_path):
    (tmp_path / "page.html").write_text('<p title="a">&amp;</p><script>1</script>')
    shown = notebook.show_page(tmp_path / "page.html", height=300).content
    assert "height: 300px" in shown
    assert 'srcdoc="&lt;p title=&quot;a&quot;&gt;&amp;amp;&lt;/p&gt;' in shown
    assert "<script>" not in shown


def test_the_newest_video_is_shown(tmp_path):
    for i, name in enumerate(("step1_game0.mp4", "step2_game0.mp4")):
        path = write_video(tmp_path / "videos" / name, np.zeros((2, 32, 32, 3), np.uint8))
        os.utime(path, (i, i))
    view = notebook.show_video(tmp_path)
    assert view.content.startswith("<video controls")
    assert view._repr_mimebundle_()["text/plain"] == "video step2_game0.mp4"


def test_without_a_video_the_command_that_makes_one_is_named(tmp_path):
    with pytest.raises(BadInput, match="video=1 makes one"):
        notebook.show_video(tmp_path)


def test_without_tensorboard_it_is_said(capsys):
    notebook.show_tensorboard("runs", wanted=False)
    assert capsys.readouterr().out == ""
    notebook.show_tensorboard("runs")
    assert "pip install tensorboard" in capsys.readouterr().out


def test_what_is_shown_is_text_in_json():
    bundle = View("image/png", b"\x00", "about")._repr_mimebundle_()
    assert bundle == {"image/png": "AA==", "text/plain": "about"}
