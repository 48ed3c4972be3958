"""The site of the documentation: it builds, stands alone, and says what the code does."""

import ast
import configparser
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from mkdocs.exceptions import PluginError
from runs import ROOT

from experiments.site import formulas, hooks, places, settings
from ez_jax.agent.diagnostics import HEADS
from ez_jax.agent.networks import networks
from ez_jax.agent.reanalyse import reanalyse
from ez_jax.agent.search import search
from ez_jax.agent.targets import targets
from ez_jax.config import dotted_keys, presets
from ez_jax.storage.metrics import read_metrics
from ez_jax.system import exits
from ez_jax.terminal import arguments

PAGES = sorted((ROOT / "docs").glob("*.md"))
MOST_SECONDS = 15  # of a processor, for the whole site
# Metrics of games that people have played, and ratios, where something varies.
RATIOS = {f"{head}/{name}" for head in HEADS for name in ("explained", "correlation", "spread")}
RARE = {
    "eval/human_normalised",
    "norm/value_gap_share",
    *RATIOS,
    *(f"{head}/slope" for head in HEADS),
}


class Site(NamedTuple):
    """What one build left."""

    folder: Path
    output: str
    seconds: float  # of a processor

    def page(self, name: str) -> str:
        return (self.folder / name).read_text()


def seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("site"), seconds_of_children()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Site(folder, done.stdout + done.stderr, seconds_of_children() - before)


def test_the_build_is_quick_and_says_nothing_but_that_it_was_made(site):
    assert site.seconds < MOST_SECONDS
    assert [line for line in site.output.splitlines() if not line.startswith("INFO")] == []


def pages(site: Site) -> list[Path]:
    """All but the one of addresses that do not exist, which a server shows at any depth."""
    return [page for page in site.folder.rglob("*.html") if page.name != "404.html"]


def loads(html: str) -> list[str]:
    """Addresses that a browser fetches by itself."""
    tags = re.findall(r"<(?:script|img|iframe|source|link|video|audio)\b[^>]*>", html)
    tags = [tag for tag in tags if 'rel="canonical"' not in tag]
    return [url for tag in tags for url in re.findall(r'\b(?:src|href)="([^"]*)"', tag)]


def test_nothing_is_loaded_from_elsewhere(site):
    for page in pages(site):
        for url in loads(page.read_text()):
            assert not re.match(r"(\w+:)?//", url), f"{page.name} loads {url}"
            assert (page.parent / url.partition("?")[0]).exists(), f"{page.name} loads {url}"
    for sheet in site.folder.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:\w+:)?//|@import", sheet.read_text()), sheet.name


def test_no_page_asks_for_the_stars_of_the_repository(site):
    page = site.page("index.html")
    assert 'class="md-source"' in page
    assert 'class="md-source" data-md-component="source"' not in page


def test_every_link_leads_to_a_page_and_a_place_in_it(site):
    texts = {page: page.read_text() for page in pages(site)}
    places_in = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in texts.items()}
    for page, text in texts.items():
        for href in set(re.findall(r'<a\b[^>]*\bhref="([^"]*)"', text)):
            if re.match(r"\w+:", href):
                continue
            address, _, anchor = href.partition("#")
            target = Path(os.path.normpath(page.parent / address)) if address else page
            assert target in texts, f"{page.name} links to {href}"
            assert not anchor or anchor in places_in[target] or anchor == "__skip", href


def test_search_works_from_a_file_and_leaves_the_code_out(site):
    index = site.page("search/search_index.js")
    assert '"location":"algorithm.html#' in index
    assert '"location":"source/' not in index
    assert '<script src="assets/iframe-worker.js">' in site.page("index.html")


FIGURE = re.compile(r'<figure class="equation".*?</figure>', re.DOTALL)
LINK = re.compile(r'<a class="(code|test)" href="source/([^"#]+)\.html(?:#L-0-(\d+))?">(.*?)</a>')


def test_every_formula_is_drawn_and_names_its_code_and_its_test(site):
    figures = FIGURE.findall(site.page("algorithm.html"))
    assert len(figures) == (ROOT / "docs/algorithm.md").read_text().count("```math")
    for figure in figures:
        assert figure.count("<math") >= 1
        assert {"code", "test"} <= {kind for kind, *_ in LINK.findall(figure)}


@pytest.mark.parametrize("page", ["algorithm", "extending"])
def test_links_into_the_code_hit_the_line_of_the_definition(site, page):
    links = [link for link in LINK.findall(site.page(f"{page}.html")) if link[2]]
    assert links
    for kind, path, number, shown in links:
        line = (ROOT / path).read_text().splitlines()[int(number) - 1]
        name = re.sub(r"<[^>]+>", "", shown).rpartition(".")[2].replace(" ", "_")
        name = f"test_{name}" if kind == "test" else name
        assert re.search(rf"(?:def |class |^){name}\b", line), f"{shown}: {line}"
        assert f'id="L-0-{number}"' in site.page(f"source/{path}.html")


def test_every_setting_has_a_description_and_a_place_on_the_page(site):
    silent = {field for field, text in settings.comments().items() if not text}
    assert silent == {("Config", name) for name in settings.SECTIONS}
    page = site.page("configuration.html")
    for key in dotted_keys():
        assert f'<a id="{key}"' in page


def test_every_metric_of_a_run_has_a_meaning(finished):
    written = {name for line in read_metrics(finished.folder) for name in line}
    _, told = (ROOT / "docs/metrics.md").read_text().split("## How to read the metrics")
    told = set(re.findall(r"^\| `([\w/]+)` \|", told, re.MULTILINE))
    assert written - told == set()
    assert {name for name in told if "/" in name} - written <= RARE


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


SLOW_PAGES = ("extending",)
WITH_EXAMPLES = [
    pytest.param(p, id=p.stem, marks=pytest.mark.long if p.stem in SLOW_PAGES else ())
    for p in PAGES
    if blocks(p, "python")
]


@pytest.mark.usefixtures("quick_compiling")
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_examples_run_from_top_to_bottom(page, finished, tmp_path, monkeypatch):
    run = tmp_path / "runs/CartPole/default/seed0"
    run.parent.mkdir(parents=True)
    run.symlink_to(finished.folder)
    monkeypatch.chdir(tmp_path)
    # Copies, so that what an example adds is gone afterwards.
    monkeypatch.setattr(search, "SEARCHES", dict(search.SEARCHES))
    monkeypatch.setattr(targets, "VALUE_TARGETS", dict(targets.VALUE_TARGETS))
    monkeypatch.setattr(reanalyse, "MODES", dict(reanalyse.MODES))
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    namespace = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)


def test_commands_name_modules_and_keys_that_exist():
    groups = {"game", *presets.SETS, *arguments.OWN}
    text = "\n".join(block for page in PAGES for block in blocks(page, "bash"))
    pattern = r"python -m ((?:ez_jax|experiments)\.[\w.]+)(.*)"
    for line, module, words in re.findall(f"^({pattern})$", text, re.MULTILINE):
        path = ROOT / places.find(module).path
        path = path.with_name("__main__.py") if path.name == "__init__.py" else path
        for key in re.findall(r"(?<=\s)\+?([\w./]+)=", words):
            known = key in groups or key in dotted_keys() or f'"{key}"' in path.read_text()
            known |= key.startswith("hydra")
            assert known, f"{key} in {line}"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (
            "ez_jax.agent.targets.td:n_step_valu",
            "has no 'n_step_valu' there; did you mean n_step",
        ),
        ("ez_jax.agent.model:Model.stepp", "did you mean step"),
        ("ez_jax.nothing:x", "no file of that module"),
        ("tests/agent/test_targets.py::test_nothing", "has no 'test_nothing'"),
    ],
)
def test_a_name_that_does_not_exist_ends_the_build(target, told):
    with pytest.raises(PluginError, match=re.escape(told)):
        places.find(target)


@pytest.mark.parametrize(
    ("latex", "below", "told"),
    [
        ("x", "Somewhere. {{ code('a:b') }}", "write its source, {{ code"),
        ("x", "", "write its source"),
    ],
)
def test_a_formula_without_code_and_test_ends_the_build(latex, below, told):
    with pytest.raises(PluginError, match=re.escape(told)):
        formulas.number_blocks(f"```math\n{latex}\n```\n{below}\n", "page.md")


@pytest.mark.parametrize(
    "latex", [r"\nonsense x", r"a \\[1em] b", r"\begin{aligned} a &= b \end{aligned}"]
)
def test_latex_that_cannot_be_drawn_ends_the_build(latex):
    with pytest.raises(PluginError, match=r"page\.md"):
        formulas.to_mathml(latex, "block", "page.md")


@pytest.mark.parametrize("text", ["{{ nothing(1) }}", "{{ code(x) }}", '{{ key("no.key") }}'])
def test_a_macro_that_cannot_be_expanded_ends_the_build(text):
    with pytest.raises(PluginError, match=r"page\.md"):
        hooks.expand(text, "page.md")


def test_the_landing_page_names_every_page():
    pages = {page.name for page in PAGES} - {"index.md"}
    assert set(re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs/index.md").read_text())) == pages


def test_warnings_of_the_handbook_are_those_of_the_code():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    warnings = re.findall(r'^\| "(.+?)" \|', text, re.MULTILINE)
    code = [
        node
        for path in (ROOT / "ez_jax").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    said = [
        node.value
        for node in code
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(warnings) == 5
    for part in (part for warning in warnings for part in warning.split("…")):
        assert any(part in sentence for sentence in said), part


def test_exit_codes_of_the_handbook_are_those_of_the_commands():
    text = (ROOT / "docs/quickstart.md").read_text().partition("## Exit codes")[2]
    codes = list(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE)))
    assert codes == [
        exits.DONE,
        exits.FAILED,
        exits.BAD_INPUT,
        exits.INTERRUPTED,
        128 + signal.SIGABRT,
    ]


def test_the_repository_has_one_address():
    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["repo_url"]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"].get("url", told) == told
    assert [page.name for page in PAGES if told in page.read_text()] == []
