"""How MuJoCo comes to draw, or what is missing."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ez_jax.config import opengl

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems differ")


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is loaded or known yet, and envpool was not imported."""
    monkeypatch.delitem(sys.modules, "envpool", raising=False)
    for function in (opengl.load, opengl.missing):
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in (opengl.load, opengl.missing):
        function.cache_clear()


def test_a_missing_library_is_named_with_what_installs_it(fresh):
    def absent(name, mode):
        raise OSError(name)

    fresh.setattr(ctypes, "CDLL", absent)
    assert "libEGL.so.1, which is not there: install" in opengl.missing()


def test_after_envpool_it_is_too_late(fresh):
    fresh.setitem(sys.modules, "envpool", SimpleNamespace())
    assert "envpool was imported before" in opengl.missing()


@pytest.mark.parametrize(
    ("code", "said", "answer"),
    [
        (0, "", ""),
        (1, "Traceback\nRuntimeError: failed to initialize EGL\n", "(RuntimeError: failed to"),
        (-6, "", "(without a word)"),
    ],
)
def test_an_image_that_ends_its_process_ends_no_other(fresh, code, said, answer):
    tried = SimpleNamespace(returncode=code, stdout="", stderr=said)
    fresh.setattr(ctypes, "CDLL", lambda name, mode: None)
    fresh.setattr(subprocess, "run", lambda *given, **options: tried)
    assert answer in opengl.missing()
    assert bool(opengl.missing()) == bool(code)
    assert "\n" not in opengl.missing()


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "egl"), ({"DISPLAY": ":0"}, None), ({"MUJOCO_GL": "osmesa"}, "osmesa")],
)
def test_without_a_display_no_window_is_asked_for(monkeypatch, before, after):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    opengl.without_display()
    assert os.environ.get("MUJOCO_GL") == after
