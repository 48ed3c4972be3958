"""Damaged files of all kinds: a refusal in one sentence or a correct result, at once, every time.

The fast suite does a little of what `pytest -m slow -k fuzz` does with thousands.
"""

import io
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import damage
import jax
import made_runs
import numpy as np
import pytest
import runs
from golden_params import GOLDEN
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ez_jax
from experiments.state_dict import read_state_dict
from ez_jax.config import BadInput, Config, flatten, from_dict, override, to_dict, validate
from ez_jax.reports import arms, collect, page, tables
from ez_jax.reports.results import measure_all
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.metrics import MetricsWriter, read_metrics
from ez_jax.storage.replay_journal import Rows
from ez_jax.structs import Clocks
from ez_jax.system import exits
from ez_jax.train import train

SECONDS = 10  # more than any case may take
GIGABYTE = 2**20  # in units of ru_maxrss
CLOCKS = {"agent_steps": 2, "env_frames": 8, "updates": 1, "seconds": 0.5}


class Fuzzed:
    """What is damaged, made once, and what has to hold of every damaged copy."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.prepare()

    def prepare(self) -> None:
        """Write what is to be damaged into `folder`."""

    def case(self, folder: Path, rng: Random) -> None:
        """Damage a copy in the new folder `folder` and read it."""


class Configs(Fuzzed):
    """A config.yaml is refused, or is a configuration that a run is possible with."""

    def prepare(self):
        self.config = runs.config(self.folder)
        run_folder.write_config(self.folder, to_dict(self.config))

    def case(self, folder, rng):
        raw = damage.damaged_yaml((self.folder / "config.yaml").read_bytes(), rng)
        (folder / "config.yaml").write_bytes(raw)
        is_same = self.is_same(folder)
        chosen = validate(from_dict(run_folder.read_config(folder)))
        assert isinstance(chosen, Config)
        assert from_dict(to_dict(chosen)) == chosen
        free = {key: x for key, x in flatten(chosen).items() if run_folder.is_free(key)}
        assert not is_same or chosen == override(self.config, free)

    def is_same(self, folder: Path) -> bool:
        """Whether a run would go on."""
        try:
            run_folder.check_same_config(folder, to_dict(self.config))
        except BadInput as error:
            one_sentence(error)
            return False
        return True


class Metrics(Fuzzed):
    """A metrics.jsonl is refused, or has lines of numbers that can be cut at any clock."""

    def prepare(self):
        with MetricsWriter(self.folder, tensorboard=False) as writer:
            for step in range(30):
                clocks = Clocks(10 * step, 40 * step, step, step / 7)
                writer.write(clocks, {"loss/total": step / 3, "rollout/return": float(step)})

    def case(self, folder, rng):
        raw = damage.damaged_lines((self.folder / "metrics.jsonl").read_bytes(), rng)
        (folder / "metrics.jsonl").write_bytes(raw)
        until = Clocks(agent_steps=rng.randrange(300), updates=rng.randrange(30))
        lines = read_metrics(folder)
        for line in lines:
            assert line["agent_steps"] >= 0
            assert all(np.isfinite(float(value)) for value in line.values())
        with MetricsWriter(folder, tensorboard=False) as writer:
            dropped = writer.truncate_after(until)
        kept = read_metrics(folder)
        assert len(kept) + dropped == len(lines)
        assert all(line in lines for line in kept)
        limit = (until.agent_steps, until.updates)
        assert all((line["agent_steps"], line["updates"]) <= limit for line in kept)


class Checkpoints(Fuzzed):
    """The newest sound checkpoint comes back as it was, and whatever is left out is told."""

    def state(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng(step)
        train = {"w": rng.normal(size=(3, 4)).astype(np.float32), "n": {"updates": np.int32(step)}}
        return {"train": train, "rest": {"key": jax.random.key(step), "rows": rng.bytes(9)[0:0]}}

    def prepare(self):
        self.states = {step: self.state(step) for step in (1, 2)}
        for state in self.states.values():
            state["rest"]["rows"] = np.arange(50, dtype=np.uint8).reshape(5, 10)
        with Checkpointer(self.folder, keep=2) as checkpointer:
            for step, state in self.states.items():
                meta = {"clocks": {**CLOCKS, "agent_steps": step}}
                checkpointer.save(step, state, meta, [self.journal(step)])

    def journal(self, step: int) -> Rows:
        return Rows(3 * step, (np.arange(6, dtype=np.int32).reshape(3, 2) * step,))

    def case(self, folder, rng):
        shutil.copytree(self.folder / "checkpoints", folder / "checkpoints")
        newest = folder / "checkpoints" / "2"
        known = rng.random() < 0.6  # by somebody who writes the sums anew
        for _ in range(rng.choice([1, 1, 2])):
            damage.damage_folder(rng.choice([newest, newest, newest.with_name("rows")]), rng)
        if known:
            damage.write_sums(newest)
        if rng.random() < 0.1:
            newest.rename(newest.with_name(rng.choice(["3", "02", "9" * 30, "\u0663", "2 ", "-2"])))
        is_there = Checkpointer(folder).steps() not in ([], [1])
        told: list[str] = []
        checkpointer = Checkpointer(folder, warn=told.append)
        restored = checkpointer.restore_newest(self.states[1], rows=True)
        assert restored is not None
        rows = list(checkpointer.journal.read([np.zeros(2, np.int32)]))
        if not known or restored.step == 1:
            for found, step in zip(rows, range(1, restored.step + 1), strict=True):
                assert found.first == 3 * step
                np.testing.assert_array_equal(found.fields[0], self.journal(step).fields[0])
        assert restored.step == 2 or told or not is_there
        for sentence in told:
            one_sentence(sentence)
        expected = self.states[restored.step]
        assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
        pairs = zip(jax.tree.leaves(restored.state), jax.tree.leaves(expected), strict=True)
        for found, leaf in pairs:
            assert (found.shape, found.dtype) == (leaf.shape, leaf.dtype)
            if not known or restored.step == 1:
                assert raw_bytes(found) == raw_bytes(leaf)
        clocks = restored.clocks
        assert clocks.agent_steps == restored.step


class Weights(Fuzzed):
    """A file of weights is refused, or gives arrays."""

    def prepare(self):
        self.whole = (GOLDEN / "state_dict.p").read_bytes()
        with zipfile.ZipFile(io.BytesIO(self.whole)) as archive:
            self.entries = {name: archive.read(name) for name in archive.namelist()}

    def case(self, folder, rng):
        path = folder / "weights.p"
        if rng.random() < 0.4:
            path.write_bytes(damage.damaged_bytes(self.whole, rng))
        else:
            entries = dict(self.entries)
            pickled = next(name for name in entries if name.endswith("data.pkl"))
            name = pickled if rng.random() < 0.7 else rng.choice(list(entries))
            entries[name] = damage.damaged_bytes(entries[name], rng)
            with zipfile.ZipFile(path, "w", rng.choice([0, zipfile.ZIP_DEFLATED])) as archive:
                for entry, raw in entries.items():
                    archive.writestr(entry, raw)
        arrays = read_state_dict(path)
        assert all(isinstance(array, np.ndarray) for array in arrays.values())


class Reports(Fuzzed):
    """What a report reads is refused, or becomes a page on which everything is text."""

    def prepare(self):
        made_runs.write_arms(self.folder, {"a": ({}, 5.0), "b": ({"consistency": False}, 4.0)}, 1)
        rows = [{"num_simulations": count, "mean": 1.0 * count} for count in (1, 4)]
        content = {"protocol": {}, "episodes": 9, "agent_steps": made_runs.STEPS, "rows": rows}
        (self.folder / "a/seed0/scores_by_simulations.json").write_text(json.dumps(content))
        plan = {"base": {}, "arms": [{"name": "baseline", "settings": {"consistency": False}}]}
        (self.folder / "ablation.json").write_text(json.dumps({"plans": {"CartPole": plan}}))

    def case(self, folder, rng):
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        for path in rng.sample(sorted(folder.rglob("*.json")), rng.choice([1, 1, 3])):
            raw = path.read_bytes()
            damaged = damage.damaged_json if rng.random() < 0.8 else damage.damaged_bytes
            path.write_bytes(damaged(raw, rng))
        final = rng.choice(["training", "scores"])
        runs = [collect.read_run(f, last=1, final=final) for f in collect.find_runs([str(folder)])]
        measured = measure_all(
            runs, arms.group(runs, mix=rng.random() < 0.5, partial=True), "final"
        )
        assert "<script" not in page.render(measured, {}, "command")
        assert tables.latex(measured)
        assert tables.csv_files(measured).keys() >= {"scores.csv"}


class Runs(Fuzzed):
    """A whole run folder is loaded and gone on with, or refused; nothing crashes."""

    def prepare(self):
        assert train(runs.config(self.folder)) == exits.DONE

    def case(self, folder, rng):
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        checkpoints = folder / "checkpoints"
        step = checkpoints / str(Checkpointer(folder).latest())
        for _ in range(rng.choice([1, 2])):
            damage.damage_folder(rng.choice([folder, step, checkpoints / "rows"]), rng)
        config = folder / "config.yaml"
        if rng.random() < 0.3 and config.is_file() and not config.is_symlink():
            config.write_bytes(damage.damaged_yaml(config.read_bytes()[:10_000], rng))
        if rng.random() < 0.6 and step.is_dir():
            damage.write_sums(step)
        assert exits.guarded(lambda: train(runs.config(folder))) in (exits.DONE, exits.BAD_INPUT)
        with warnings.catch_warnings(action="ignore"):  # what is left out is told as a warning
            agent = ez_jax.load(folder)
        assert agent.act(np.zeros(4, np.float32)) in (0, 1)


# Cases in the fast suite, and in the slow one.
KINDS = {
    Configs: (40, 5_000),
    Metrics: (40, 3_000),
    Checkpoints: (25, 3_000),
    Weights: (60, 3_000),
    Reports: (40, 2_000),
}


def raw_bytes(leaf: Any) -> bytes:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


def one_sentence(error: Any) -> None:
    """What a person is told: one line that can be printed, not too long."""
    text = str(error)
    assert text.isprintable()
    assert 10 < len(text) < 2_100


def too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def fuzz(kind: type[Fuzzed], folder: Path, cases: int, *, repeatable: bool) -> None:
    """Try many cases; of a failing one hypothesis shows the seed."""
    fuzzed, outcomes = kind(folder / "whole"), {"refused": 0, "read": 0}
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        derandomize=repeatable,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True))
    def attempt(rng: Random) -> None:
        signal.setitimer(signal.ITIMER_REAL, SECONDS if kind is not Runs else 12 * SECONDS)
        with tempfile.TemporaryDirectory(dir=folder) as new:
            try:
                fuzzed.case(Path(new), rng)
                outcomes["read"] += 1
            except BadInput as error:
                one_sentence(error)
                outcomes["refused"] += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    handler = signal.signal(signal.SIGALRM, too_long)
    try:
        attempt()
    finally:
        signal.signal(signal.SIGALRM, handler)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took = f"{time.monotonic() - began:.0f} s, {grown / 1e3:.0f} MB"
    sys.stdout.write(f"\n{kind.__name__}: {cases} cases, {outcomes}, {took}\n")
    assert grown < GIGABYTE


@pytest.mark.parametrize("kind", KINDS)
def test_some_damage_is_refused_or_does_no_harm(kind, tmp_path):
    fuzz(kind, tmp_path, KINDS[kind][0], repeatable=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_damage_is_refused_or_does_no_harm(kind, tmp_path):
    fuzz(kind, tmp_path, KINDS[kind][1], repeatable=False)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiling")
def test_damaged_run_folders_are_gone_on_with_or_refused(tmp_path):
    fuzz(Runs, tmp_path, 40, repeatable=False)
