"""The script that measures unattended: it skips what is done, and stops and resumes whole runs."""

import json

import pytest
from runs import ROOT

from experiments import gpu
from experiments.gpu import Item

COUNT = "open('{path}', 'a').write('x'); print('{{\"figure\": 3}}')"
# A run that goes on where it was: it stops when asked to, and is complete the second time.
RUN = """
import pathlib, signal, sys, time
begun = pathlib.Path(sys.argv[-1].removeprefix('run_dir=') + '.begun')
if begun.exists():
    sys.exit(0)
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
begun.parent.mkdir(parents=True, exist_ok=True)
begun.touch()
time.sleep(60)
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Return call(items, *words) -> (exit code, what is in the JSON by item)."""

    def call(items, *words):
        monkeypatch.setattr(gpu, "ITEMS", items)
        monkeypatch.setattr(gpu, "SAVING", 1)
        out = tmp_path / "out"
        code = gpu.main(["--out", str(out), "--runs", str(tmp_path / "runs"), *words])
        return code, {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}

    return call


def test_what_succeeded_is_not_measured_again(queue, tmp_path):
    path = tmp_path / "calls"
    items = (Item("figure", ("-c", COUNT.format(path=path)), 60),)
    for _ in range(2):
        code, found = queue(items)
        assert code == 0
        assert found["figure"]["rows"] == [{"figure": 3}]
    assert path.read_text() == "x"


def test_what_failed_is_measured_again_and_its_own_words_are_kept(queue, tmp_path):
    items = (Item("broken", ("-c", "raise OSError('no such device')"), 60),)
    for _ in range(2):
        code, found = queue(items)
        assert (code, found["broken"]["exit_code"]) == (1, 1)
    log = (tmp_path / "out" / "broken.log").read_text()
    assert log.count("OSError: no such device") == 2


def test_a_run_is_stopped_in_time_and_resumed_by_the_next_call(queue):
    items = (Item("run", ("-c", RUN), 600, is_run=True),)
    code, found = queue(items, "--budget", "3")
    assert (code, found["run"]["exit_code"]) == (1, 130)
    assert found["run"]["wall_seconds"] < 30
    code, found = queue(items)
    assert (code, found["run"]["exit_code"]) == (0, 0)


def test_what_hangs_is_killed_at_its_limit(queue):
    code, found = queue((Item("hangs", ("-c", "import time; time.sleep(60)"), 1),))
    assert code == 1
    assert found["hangs"]["exit_code"] < 0


def test_names_tell_the_items_apart():
    names = [item.name for item in gpu.ITEMS]
    assert len(set(names)) == len(names)
    assert not any(character in name for name in names for character in "=,./ ")


def test_an_unknown_name_is_refused():
    with pytest.raises(SystemExit) as refusal:
        gpu.main(["--only", "pogn"])
    assert refusal.value.code == 2


def test_the_handbook_tells_what_is_predicted():
    predicted = {line.split("|")[1].strip(): line.split("|")[2:5] for line in gpu.predictions()}
    rows = [line.split("|") for line in (ROOT / "docs/performance.md").read_text().splitlines()]
    told = [row[2:5] for row in rows if len(row) == 6 and "preset=efficientzero" in row[1]]
    assert told == [
        predicted["efficientzero, as published"],
        predicted["efficientzero_v2, as published"],
    ]
