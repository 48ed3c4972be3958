"""The report by its command: its files and page, what it refuses, that strangers' runs are text."""

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import made_runs
import pytest
from runs import ROOT

from ez_jax import report
from ez_jax.config import to_dict
from ez_jax.evaluation import references
from ez_jax.evaluation.references import Curve, Score
from ez_jax.reports import estimates
from ez_jax.reports.tables import escape_latex
from ez_jax.storage.run_folder import write_config
from ez_jax.system import exits

NASTY = '<script>alert("1")</script>&$x_{1}$\\input{/etc/passwd}%'
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module", autouse=True)
def few_repetitions():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "REPETITIONS", 50)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two arms of two games, and evaluations at several numbers of simulations."""
    root = tmp_path_factory.mktemp("study")
    for game, best, worse in (("CartPole", 400.0, 300.0), ("Catch", 0.9, 0.3)):
        asked = {"base": ({}, best), "without": ({"consistency": False}, worse)}
        made_runs.write_arms(root / game, asked, seeds=4, game=game, spread=best / 50)
    for seed in range(4):
        rows = [{"num_simulations": n, "mean": 300.0 + n + seed} for n in (1, 4)]
        content = {"protocol": {}, "episodes": 9, "agent_steps": made_runs.STEPS, "rows": rows}
        path = root / "CartPole" / "base" / f"seed{seed}" / "scores_by_simulations.json"
        path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def out(study, tmp_path_factory):
    """The report of the study; not to be written to."""
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        assert told(patch, study, f"out={folder}") == exits.DONE
    return folder


def told(monkeypatch, *words):
    return exits.guarded(lambda: report.main(list(map(str, words))))


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_has_figures_tables_and_a_page(out):
    figures = ("curves_CartPole", "curves_Catch", "aggregates", "effects", "simulations")
    names = {f"{name}.{end}" for name in figures for end in ("png", "svg")}
    texts = {"scores.csv", "curves.csv", "arms.csv", "effects.csv", "tables.tex", "index.html"}
    assert {path.name for path in out.iterdir()} == names | texts
    scores = rows_of(out / "scores.csv")
    assert len(scores) == 16
    first = next(row for row in scores if row["folder"].endswith("CartPole/without/seed0"))
    assert (first["arm"], first["final_score"]) == ("consistency=false", "288.0")
    assert (first["commit"], first["protocol.frame_skip"], first["counts"]) == ("abc", "1", "True")
    (effect,) = (row for row in rows_of(out / "effects.csv") if row["measure"] == "final score"
                 and row["game"] == "CartPole")  # fmt: skip
    assert float(effect["value"]) == pytest.approx(-100)
    curve = [row for row in rows_of(out / "curves.csv") if row["game"] == "CartPole"]
    assert [row["agent_steps"] for row in curve[:5]] == ["200", "400", "600", "800", "1000"]
    assert float(curve[4]["iqm"]) == float(curve[4]["median"]) == 400


def test_the_page_stands_alone_and_says_how_it_was_made(study, out):
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r'(src|href)\s*=\s*"(?!#)|@import|<script|<link|https?:', outside)
    assert f"python -m ez_jax.report {study} out={out}" in page
    assert "CartPole: 8 runs in 2 arms; mean final score of baseline 400 [" in page
    assert "effects on it is clear" in page
    assert "2 games, consistency: turning it off lowers the normalised final score by" in page
    for part in ("cpu: made", "jax 0", "abc", "search.policy=gumbel", "0, 1, 2, 3", "frame_skip"):
        assert part in page
    checker = Nesting()
    checker.feed(page)
    assert checker.open == []


class Nesting(HTMLParser):
    """Elements that were opened and not closed."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_same_runs_give_the_same_bytes_in_any_order(study, out, tmp_path, monkeypatch, capsys):
    names = ("Catch/without", "CartPole", "Catch", "CartPole/base")
    assert told(monkeypatch, *(study / name for name in names), f"out={tmp_path}") == exits.DONE
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'index.html'}\n")
    found = [
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (out, tmp_path)
    ]
    pages = [files.pop("index.html").split(b'<section id="command">')[0] for files in found]
    assert found[0] == found[1]
    assert pages[0] == pages[1]


def test_what_strangers_wrote_is_text(tmp_path, monkeypatch):
    for seed in range(2):
        folder = tmp_path / "runs" / f"{seed}"
        config = made_runs.write(folder, seed, [1.0, 2.0])
        write_config(folder, to_dict(config) | {"game": NASTY, "preset": NASTY})
        scores = json.loads((folder / "scores.json").read_text())
        scores |= {"device": NASTY, "commit": "=1+1", "versions": {NASTY: [NASTY]}}
        (folder / "scores.json").write_text(json.dumps(scores))
    out = tmp_path / "out"
    assert told(monkeypatch, tmp_path / "runs", f"out={out}") == exits.DONE
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 4
    assert rows_of(out / "scores.csv")[0]["commit"] == "'=1+1"
    assert "\\input" not in (out / "tables.tex").read_text(encoding="utf-8")
    (curves,) = out.glob("curves_*.svg")
    assert re.fullmatch(r"curves_[\w+-]+\.svg", curves.name)


def test_latex_prints_every_character_as_it_is():
    assert escape_latex("a_b & 50 % {x} \\y") == r"a\_b \& 50 \% \{x\} \textbackslash{}y"
    assert escape_latex("[1, 2]") == "{[}1, 2]"


def test_published_scores_and_curves_stand_beside_ours(study, tmp_path, monkeypatch):
    about = {"protocol": "as they played", "source": "their paper", "low": None, "high": None}
    score = Score(game="CartPole", method="A & sons", agent_steps=None, score=20.0, **about)
    points = {"agent_steps": (0, 900), "scores": (9.0, 450.0)}
    band = {"low": (8.0, 400.0), "high": (10.0, 500.0)}
    curve = Curve(game="CartPole", method="DQN", **points, **about | band)
    monkeypatch.setattr(references, "scores", lambda game: (score,))
    monkeypatch.setattr(references, "curves", lambda game: (curve,))
    assert told(monkeypatch, study / "CartPole/base", f"out={tmp_path}") == exits.DONE
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for part in ("A &amp; sons", "DQN", "450", "as they played", "their paper"):
        assert part in page
    assert r"A \& sons" in (tmp_path / "tables.tex").read_text(encoding="utf-8")
    drawn = (tmp_path / "curves_CartPole.svg").read_text(encoding="utf-8")
    assert "stroke-dasharray" in drawn
    assert "A &amp; sons 20" in drawn
    assert "DQN (reference)" in drawn  # matplotlib writes text beside its outlines


def test_single_seeds_are_shown_without_intervals(tmp_path, monkeypatch, capsys):
    asked = {"a": ({}, 5.0), "b": ({"consistency": False}, 3.0)}
    made_runs.write_arms(tmp_path / "runs", asked, seeds=1)
    assert told(monkeypatch, tmp_path / "runs", f"out={tmp_path / 'out'}") == exits.DONE
    said = capsys.readouterr().out
    assert "lowers the final score by 2 (1 seed); too few seeds for an interval" in said
    assert "warning: CartPole, baseline: 1 seed, too few for an interval" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which runs? name the folders"),
        (["/nowhere"], "/nowhere is not a folder"),
        (["{empty}"], "there is no run below"),
        (["{empty}", "last=0"], "at least one evaluation"),
        (["{empty}", "final=best"], "choose training or scores"),
        (["{empty}", "parial=true"], "did you mean partial"),
        (["{empty}", "seed=3"], "seed belongs to the training run"),
        (["{study}", "out=/dev/null/x"], "cannot be written"),
        (["{study}", "-v"], "cannot read '-v'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(study, tmp_path, monkeypatch, capsys, words, message):
    words = [word.format(empty=tmp_path, study=study) for word in words]
    assert told(monkeypatch, *words) == exits.BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_equal_names_of_figures_are_told_apart():
    assert report.file_names(["a/b", "a b", "A.b"]) == [
        "curves_a_b",
        "curves_a_b-2",
        "curves_A_b-3",
    ]
    assert len(report.file_names(["x" * 500])[0]) < 100


def test_the_help_is_quick():
    code = (
        "import sys, ez_jax.report; sys.exit(any(m in sys.modules for m in ('jax', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
@pytest.mark.slow
def test_a_phone_shows_the_page_without_scrolling_sideways(out, tmp_path):
    shutil.copy(out / "index.html", tmp_path)
    # The window of a headless browser is not as narrow as a phone; a frame is.
    frame = '<iframe id="f" src="index.html" width="390" height="800"></iframe><p id="w"></p>'
    script = (
        "<script>f.onload = () => { const d = f.contentDocument.documentElement;"
        "w.textContent = `${d.scrollWidth} of ${d.clientWidth}`; }</script>"
    )
    (tmp_path / "phone.html").write_text(frame + script)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    page = f"file://{tmp_path / 'phone.html'}"
    done = subprocess.run(
        [CHROMIUM, *options, "--virtual-time-budget=5000", "--dump-dom", page],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    width, inside = re.search(r"(\d+) of (\d+)", done.stdout).groups()
    assert width == inside
