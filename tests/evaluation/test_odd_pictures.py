"""Games that cannot be drawn lose their pictures, and nothing else."""

import functools
import importlib
import json

import imageio_ffmpeg
import oddly_drawn
import pytest
import runs

import ez_jax
from ez_jax import evaluate
from ez_jax.system import exits

inspect = importlib.import_module("ez_jax.inspect.__main__")

pytestmark = pytest.mark.long
HERE = {"PYTHONPATH": f"{runs.ROOT}:{runs.ROOT / 'tests'}"}


def game(name):
    return f"oddly_drawn:Odd{name}-v0"


def command(module, *words):
    """The output of a command in a process of its own."""
    done = runs.wait(runs.start(module, *words, variables=HERE))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stdout.split())


@pytest.fixture
def called(capsys):
    """Return call(command, *words) -> its output; in this process, which is quicker."""

    def call(module, *words):
        code = exits.guarded(lambda: module.main(words))
        told = capsys.readouterr()
        assert code == 0, told.err
        return " ".join(told.out.split())

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "run"
    words = [word for word in runs.train_words(folder) if not word.startswith("+game")]
    # With a mode that is declared, but cannot be had: training asks for no pictures.
    command("ez_jax.train", f"game={game('NoMode')}", "total_agent_steps=40", *words[1:])
    return folder


@pytest.fixture
def run_of(trained):
    """The run as if it were of another of these games, which differ in their pictures alone."""
    config = trained / "config.yaml"
    text = config.read_text()

    def change(name):
        config.write_text(text.replace(game("NoMode"), game(name)))
        return trained

    yield change
    config.write_text(text)


def assert_scored(run, name, play):
    before = set(run.glob("evaluations/*.json"))
    said = play(f"run={run}", "episodes=3", "video=2")
    assert f"no video: {game(name)} cannot be rendered: " in said
    assert oddly_drawn.SAID[name] in said
    [new] = set(run.glob("evaluations/*.json")) - before
    assert len(json.loads(new.read_text())["returns"]) == 3
    assert not list(run.glob("videos/*"))


@pytest.mark.parametrize("name", oddly_drawn.SAID)
def test_scores_come_without_a_video(run_of, called, name):
    assert_scored(run_of(name), name, functools.partial(called, evaluate))


def test_so_they_do_from_the_command_line(run_of):
    assert_scored(run_of("Growing"), "Growing", functools.partial(command, "ez_jax.evaluate"))


@pytest.mark.parametrize("name", ["Undrawn", "Growing", "Breaking", "NoMode"])
def test_a_page_comes_without_pictures(run_of, called, name):
    run = run_of(name)
    said = called(inspect, f"run={run}", "max_steps=4", f"out={run}/{name}.html")
    assert "There are no images: " in said
    assert oddly_drawn.SAID[name] in said
    assert (run / f"{name}.html").stat().st_size > 1_000


@pytest.mark.parametrize("name", ["Drawn", "NoFps", "OnePixel"])
def test_what_can_be_drawn_is_filmed(run_of, called, name):
    run = run_of(name)
    said = called(evaluate, f"run={run}", "episodes=1", "video=1")
    assert "no video" not in said
    [path] = run.glob("videos/*")
    width, height = next(imageio_ffmpeg.read_frames(str(path)))["size"]
    assert width > 0 < height
    path.unlink()
    said = called(inspect, f"run={run}", "max_steps=4", f"out={run}/{name}.html")
    assert "There are no images" not in said


def test_a_library_plays_what_cannot_be_drawn(run_of):
    games = ez_jax.play(run_of("Breaking"), episodes=2, film=1)
    assert len(games.returns) == 2
    assert games.pictures == ()
    assert "no display" in games.no_pictures


def test_a_video_that_cannot_be_written_costs_no_score(run_of, monkeypatch, capsys):
    run = run_of("Drawn")
    before = len(list(run.glob("evaluations/*.json")))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/ffmpeg")
    assert exits.guarded(lambda: evaluate.main([f"run={run}", "episodes=1", "video=1"])) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the scores are written, but no video: FileNotFoundError")
    assert len(list(run.glob("evaluations/*.json"))) == before + 1
