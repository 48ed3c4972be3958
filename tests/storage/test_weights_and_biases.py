"""Weights & Biases: one run per folder, offline too, and nothing that fails there stops a run."""

import importlib.util
import json

import numpy as np
import pytest
import runs

from ez_jax.config import BadInput
from ez_jax.evaluation import video
from ez_jax.storage import safe_files, weights_and_biases
from ez_jax.storage.metrics import MetricsWriter, Series, read_metrics
from ez_jax.storage.weights_and_biases import WandbWriter, run_id
from ez_jax.structs import Clocks
from ez_jax.terminal.progress import Progress
from ez_jax.training.run import Run

is_there = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is an extra: pip install wandb"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


class Recorded:
    """Stands in for a W&B run and keeps what it is sent."""

    def __init__(self):
        self.logged, self.is_finished = [], False

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.is_finished = True


def writer_to(run, tmp_path, monkeypatch, warnings):
    monkeypatch.setattr(WandbWriter, "_open", lambda self, *_: setattr(self, "_run", run))
    return WandbWriter(tmp_path, warnings.append)


def test_a_folder_keeps_the_id_of_its_run_and_a_damaged_one_is_refused(tmp_path):
    first = run_id(tmp_path)
    assert run_id(tmp_path) == first
    safe_files.write_whole(tmp_path / "wandb.json", '{"id": "../x"}')
    with pytest.raises(BadInput, match="is damaged"):
        run_id(tmp_path)


def test_it_is_refused_at_the_start_where_the_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = runs.config(tmp_path / "run", {"log.wandb": True})
    with pytest.raises(BadInput, match="pip install wandb"):
        Run(config, Progress(live=False))
    assert not (tmp_path / "run").exists()


@is_there
def test_the_same_numbers_go_to_both(tmp_path, monkeypatch):
    run, warnings = Recorded(), []
    wandb = writer_to(run, tmp_path, monkeypatch, warnings)
    with MetricsWriter(tmp_path, tensorboard=False, wandb=wandb) as writer:
        writer.write(Clocks(8, 32, 2, 1.0), {"loss/total": 0.5})
    assert run.logged == read_metrics(tmp_path)
    assert run.is_finished
    assert not warnings


@is_there
def test_a_failure_is_warned_of_once_and_stops_nothing(tmp_path, monkeypatch):
    class Broken(Recorded):
        def log(self, values):
            raise ConnectionError("no network")

    warnings = []
    wandb = writer_to(Broken(), tmp_path, monkeypatch, warnings)
    with MetricsWriter(tmp_path, tensorboard=False, wandb=wandb) as writer:
        for steps in (8, 16):
            writer.write(Clocks(steps), {"loss/total": 0.5})
    assert [line["agent_steps"] for line in read_metrics(tmp_path)] == [8, 16]
    assert warnings == ["nothing more goes to Weights & Biases: ConnectionError: no network"]


@is_there
@pytest.mark.long
def test_offline_a_resumed_run_continues_and_takes_figures_tables_and_videos(tmp_path):
    warnings = []
    film = video.write_video(tmp_path / "game.mp4", np.zeros((4, 32, 32, 3), np.uint8))
    for steps in (8, 16):
        wandb = WandbWriter(tmp_path, warnings.append, {"game": "Catch"})
        with MetricsWriter(tmp_path, tensorboard=False, wandb=wandb) as writer:
            writer.write_references([Series("human", [(0, 1.0), (9, 1.0)], "")])
            writer.write(Clocks(steps), {"loss/total": 0.5})
            writer.write_episodes(Clocks(steps), [1.0, 2.0], [3, 4])
            wandb.write_video("game", film, steps)
    assert warnings == []
    own = json.loads((tmp_path / "wandb.json").read_text())["id"]
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    for folder in folders:
        assert (folder / f"run-{own}.wandb").stat().st_size > 0
        kinds = {
            path.relative_to(folder / "files" / "media").parts[0]
            for path in (folder / "files" / "media").rglob("*.*")
        }
        assert {"table", "videos"} <= kinds


def test_the_sentence_names_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"log\.wandb=true needs"):
        weights_and_biases.check_installed()
