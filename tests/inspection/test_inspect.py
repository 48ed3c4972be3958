"""The page about one game: its trees and numbers against plain loops, and itself in a browser."""

import base64
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
import runs
from PIL import Image

import ez_jax
from ez_jax.config import Config
from ez_jax.evaluation import trained_agent
from ez_jax.inspect import __main__ as command
from ez_jax.inspection import episode, imagined, measures, page
from ez_jax.inspection.frames import Film
from ez_jax.inspection.inspect_run import of_training
from ez_jax.inspection.trees import Nodes, compact, principal_variation
from ez_jax.system import exits

try:
    from playwright.sync_api import expect
except ModuleNotFoundError:
    expect = None  # the fixture `browser` skips its tests

pytestmark = pytest.mark.usefixtures("quick_compiling")

SIMULATIONS, DEPTH, NODES = 12, 4, 100
POLICIES = ("gumbel", "puct", "puct_ez")


@pytest.fixture(scope="module")
def agent(finished):
    return ez_jax.load(finished.folder)


@pytest.fixture(scope="module")
def played(agent):
    """Return played(policy): the configuration and a game that this search played."""
    games = {}

    def play(policy):
        if policy not in games:
            changes = {"search.num_simulations": SIMULATIONS, "search.policy": policy}
            chosen = trained_agent.changed(agent, changes)
            games[policy] = (
                chosen,
                episode.play(chosen, agent, max_steps=25, max_nodes=NODES),
            )
        return games[policy]

    return play


@pytest.fixture(scope="module")
def dreamt(agent, played):
    """What is imagined along the game of Gumbel's search."""
    game = played("gumbel")[1]
    ahead = imagined.actions_ahead(game, DEPTH)
    return imagined.unroll(agent.model, agent.variables, game.roots, ahead)


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    """The file that the command writes, and what it said."""
    out, said = tmp_path_factory.mktemp("page") / "new" / "page.html", []
    path = ez_jax.inspect_run(finished.folder, out=out, depth=DEPTH, say=said.append)
    assert path == out
    return path, said


class Reader(HTMLParser):
    """Collects the elements of a page and the text of its scripts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.scripts and self.elements[-1][0] == "script":
            self.scripts[-1] += text


def data_of(html):
    return json.loads(Reader(html).scripts[0])


# The trees.


@pytest.mark.parametrize("policy", POLICIES)
def test_visits_and_values_of_a_tree_are_those_of_what_is_below(played, policy):
    chosen, game = played(policy)
    for nodes in game.nodes:
        assert len(nodes.parent) == nodes.visits[0] == SIMULATIONS + 1
        for i in range(len(nodes.parent)):
            children = np.flatnonzero(nodes.parent == i)
            assert nodes.visits[i] == 1 + nodes.visits[children].sum()
            # The first visit brought the network's value, every other one a return by a child.
            returns = nodes.reward[children] + chosen.discount * nodes.value[children]
            total = nodes.raw[i] + np.sum(nodes.visits[children] * returns)
            np.testing.assert_allclose(nodes.value[i], total / nodes.visits[i], rtol=2e-5)
            assert nodes.prior[children].sum() <= 1 + 1e-6
            assert len(set(nodes.action[children])) == len(children)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_told_of_a_root_is_what_the_search_went_by(played, policy):
    chosen, game = played(policy)
    for t, nodes in enumerate(game.nodes):
        children = np.flatnonzero(nodes.parent == 0)
        visits, qs = np.zeros(2), np.full(2, np.nan)
        visits[nodes.action[children]] = nodes.visits[children]
        qs[nodes.action[children]] = (
            nodes.reward[children] + chosen.discount * nodes.value[children]
        )
        np.testing.assert_array_equal(game.visits[t], visits)
        np.testing.assert_allclose(game.prior[t][nodes.action[children]], nodes.prior[children])
        known = visits > 0
        shares = game.prior[t] * known / np.sum(game.prior[t] * known)
        mixed = (nodes.raw[0] + SIMULATIONS * np.nansum(shares * qs)) / (1 + SIMULATIONS)
        np.testing.assert_allclose(game.qs[t], np.where(known, qs, mixed), rtol=1e-5)
        if policy != "gumbel":
            np.testing.assert_allclose(game.policy[t], visits / SIMULATIONS, rtol=1e-6)


def test_priors_and_values_are_those_of_the_network(agent, played):
    game = played("puct_ez")[1]
    logits, value = jax.jit(agent.model.predict)(agent.variables, game.roots)
    np.testing.assert_allclose(game.prior, jax.nn.softmax(logits), rtol=1e-4)
    np.testing.assert_allclose(game.value, value, rtol=1e-4)


def test_the_most_visited_nodes_are_kept_and_hang_together(agent, played):
    whole = played("puct_ez")[1].nodes[3]
    size = len(whole.parent)
    children = np.full((size, 2), -1)
    for i in range(1, size):
        children[whole.parent[i], whole.action[i]] = i
    edge = lambda column: np.where(children >= 0, column[children], 0)  # noqa: E731
    tree = type("Tree", (), {
        "node_visits": whole.visits, "parents": whole.parent, "action_from_parent": whole.action,
        "children_prior_logits": np.zeros((size, 2)), "children_rewards": edge(whole.reward),
        "node_values": whole.value, "raw_values": whole.raw,
    })  # fmt: skip
    for count in (2, 5, size, size + 3):
        kept = compact(tree, count)
        assert len(kept.parent) == min(count, size)
        assert kept.parent[0] == -1
        assert np.all(kept.parent[1:] < np.arange(1, len(kept.parent)))
        assert sorted(kept.visits) == sorted(np.sort(whole.visits)[::-1][:count])
        for i in range(1, len(kept.parent)):
            assert kept.visits[i] <= kept.visits[kept.parent[i]]
    np.testing.assert_array_equal(compact(tree, size).parent, whole.parent)
    np.testing.assert_array_equal(compact(tree, size).reward, whole.reward)


def test_the_principal_variation_begins_with_the_action_taken():
    nodes = Nodes(
        parent=np.array([-1, 0, 0, 1, 1, 4]),
        action=np.array([-1, 0, 1, 0, 1, 0]),
        visits=np.array([9, 4, 4, 1, 1, 1]),
        prior=np.ones(6),
        reward=np.array([0, 0, 0, 0.1, 0.2, 0]),
        value=np.array([0, 1, 2, 1, 1, 0]),
        raw=np.zeros(6),
    )
    assert principal_variation(nodes, 0, 0.9) == [0, 1, 4, 5]  # of two equals the higher Q
    assert principal_variation(nodes, 1, 0.9) == [0, 2]
    assert principal_variation(nodes, 2, 0.9) == [0]  # never searched


# What really came, and what was imagined.


def made_game(game, *, seed, cut=""):
    """The game with rewards and ends that are drawn."""
    rng, total = np.random.default_rng(seed), len(game.action)
    ends = rng.random(total) < 0.15
    ends[-1] = not cut
    return dataclasses.replace(
        game, reward=rng.normal(size=total), ends=ends, cut=cut, value_after=3.0 if cut else 0.0
    )


@pytest.mark.parametrize("cut", ["", "max_steps"])
def test_realised_returns_and_prefixes_are_plain_sums(played, cut):
    game, discount, horizon = made_game(played("gumbel")[1], seed=1, cut=cut), 0.9, 3
    total = len(game.action)
    found = imagined.returns_to_go(game, discount)
    for t in range(total + 1):
        expected, weight = 0.0, 1.0
        for reward, end in zip(game.reward[t:], game.ends[t:], strict=True):
            expected += weight * reward
            weight *= 0.0 if end else discount
        np.testing.assert_allclose(found[t], expected + weight * game.value_after, rtol=1e-9)
    came = imagined.real(game, found, depth=5, horizon=horizon)
    for t in range(total):
        for k in range(5):
            is_known = t + k < total and not game.ends[t : t + k].any()
            assert is_known != np.isnan(came.reward[t, k])
            if is_known:
                first = t + k // horizon * horizon
                np.testing.assert_allclose(
                    came.value_prefix[t, k], game.reward[first : t + k + 1].sum()
                )
                later = 0.0 if game.ends[t + k] else found[t + k + 1]
                np.testing.assert_allclose(came.value[t, k], later)


def test_what_is_imagined_is_the_model_stepped_by_hand(agent, played, dreamt):
    game = played("gumbel")[1]
    dynamics, predict = jax.jit(agent.model.dynamics), jax.jit(agent.model.predict)
    horizon = agent.config.horizon
    for t in (0, len(game.action) - DEPTH - 1):
        embedding, prefix = jax.tree.map(lambda x, t=t: x[t : t + 1], game.roots), 0.0
        for k in range(DEPTH):
            embedding, reward = dynamics(agent.variables, embedding, game.action[t + k][None])
            prefix = float(reward[0]) + (prefix if k % horizon else 0.0)
            value = predict(agent.variables, embedding)[1]
            np.testing.assert_allclose(dreamt.reward[t, k], reward[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(dreamt.value_prefix[t, k], prefix, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(dreamt.value[t, k], value[0], rtol=1e-4, atol=1e-5)


def test_the_first_imagined_step_is_that_of_the_search(played, dreamt):
    game = played("gumbel")[1]
    for t, nodes in enumerate(game.nodes):
        child = np.flatnonzero((nodes.parent == 0) & (nodes.action == game.action[t]))[0]
        np.testing.assert_allclose(dreamt.reward[t, 0], nodes.reward[child], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dreamt.value[t, 0], nodes.raw[child], rtol=1e-4, atol=1e-5)


def test_many_frames_are_unrolled_in_chunks(agent, played, dreamt, monkeypatch):
    game = played("gumbel")[1]
    monkeypatch.setattr(imagined, "CHUNK", 7)
    ahead = imagined.actions_ahead(game, DEPTH)
    again = imagined.unroll(agent.model, agent.variables, game.roots, ahead)
    assert again.value.shape == (len(game.action), DEPTH)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), again, dreamt)


def test_errors_by_depth_and_search_gain_are_means(played, dreamt):
    game = made_game(played("gumbel")[1], seed=2)
    returns = imagined.returns_to_go(game, 0.9)
    came = imagined.real(game, returns, depth=DEPTH, horizon=5)
    found = measures.measure(game, returns, dreamt, came)
    for k in range(DEPTH):
        known = [t for t in range(len(game.action)) if not np.isnan(came.reward[t, k])]
        prefix = np.array([came.value_prefix[t, k] for t in known])
        off = [abs(dreamt.value_prefix[t, k] - came.value_prefix[t, k]) for t in known]
        np.testing.assert_allclose(found.prefix_error[k], np.mean(off), rtol=1e-5)
        np.testing.assert_allclose(found.prefix_guess[k], np.abs(prefix - prefix.mean()).mean())
    np.testing.assert_allclose(found.value_error[0], np.abs(game.value - returns[:-1]).mean())
    by_hand = [
        sum((p - q) * value for p, q, value in zip(*rows, strict=True))
        for rows in zip(game.policy, game.prior, game.qs, strict=True)
    ]
    np.testing.assert_allclose(game.gain, by_hand, rtol=1e-4, atol=1e-6)
    assert imagined.error_by_depth(np.zeros((3, 2)), np.full((3, 2), np.nan)) == [None, None]


def test_the_sentences_warn_where_the_numbers_are_bad(played, dreamt, monkeypatch):
    monkeypatch.setattr(measures, "FEW_STEPS", 3)
    game = played("gumbel")[1]
    total = len(game.action)
    still = Film()
    for _ in range(total):
        still.add(np.zeros((2, 2, 3), np.uint8))
    bad = dataclasses.replace(
        made_game(game, seed=3),
        action=np.zeros(total, int),
        value=np.full(total, 50.0),
        prior=np.full((total, 2), 0.5),
        policy=np.tile([1.0, 0.0], (total, 1)),
        gain=np.full(total, -0.5),
        film=still,
    )
    returns = imagined.returns_to_go(bad, 0.9)
    came = imagined.real(bad, returns, depth=DEPTH, horizon=5)
    dull = jax.tree.map(lambda x: x * 0 + 9, dreamt)
    told = measures.findings(bad, measures.measure(bad, returns, dull, came))
    warnings = " ".join(text for kind, text in told if kind == "warning")
    for sentence in (
        "values are off, mostly too high: predicted 50",
        "no better than always guessing the mean",
        "by its own Qs the search is worse",
        "prefers no action",
        "One action, left, was taken in 100%",
        f"did not change for {total} steps from step 0",
    ):
        assert sentence in warnings


# The page.


@pytest.mark.long
def test_a_game_is_the_one_that_evaluation_played(finished, written):
    scores = json.loads((finished.folder / "scores.json").read_text())
    found = data_of(written[0].read_text())
    steps = found["steps"]
    assert steps["score"][-1] + steps["reward"][-1] == scores["returns"][0]
    assert len(steps["action"]) == len(found["trees"]) == len(found["frames"]["index"])
    assert found["actions"] == ["left", "right"]
    assert any("score" in sentence for sentence in written[1])


def test_the_page_needs_nothing_else_and_is_small(written):
    html = written[0].read_text()
    assert len(html) < 250_000
    named = set(re.findall(r"https?://[^\s\"'<>)]*", html))
    assert named <= {"http://www.w3.org/2000/svg"}  # a name, which nothing is loaded from
    for tag, attributes in Reader(html).elements:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not attributes.get("src")
        assert attributes.get("href", "data:,") == "data:,"
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html
    assert re.findall(r"@@\w+@@", html) == []


def test_names_cannot_leave_their_place(written):
    found = data_of(written[0].read_text())
    nasty = "</script><script>alert(1)</script><!-- @@DATA@@ &quot;"
    found["actions"] = [nasty, nasty]
    html = page.render(
        found, [measures.Finding("note", nasty)], title=nasty, about=nasty, settings={"a": nasty}
    )
    scripts = [tag for tag, _ in Reader(html).elements if tag == "script"]
    assert len(scripts) == 2
    again = data_of(html)
    assert again["actions"] == [nasty, nasty]
    assert again["title"] == again["about"] == nasty


def test_numbers_have_few_digits_and_unknown_ones_are_null():
    given = {"a": np.array([1 / 3, np.nan, 2.0]), "b": [np.float32(1e-9), None, True, "x"]}
    assert page.rounded(given) == {"a": [0.3333, None, 2], "b": [1e-9, None, True, "x"]}


def test_equal_pictures_are_kept_once_and_flat_ones_exactly():
    drawn = np.zeros((400, 600, 3), np.uint8)
    drawn[100:200] = 255
    film = Film()
    for picture in (drawn, drawn.copy(), 255 - drawn):
        film.add(picture)
    found = film.encode()
    assert (found["index"], len(found["images"])) == ([0, 0, 1], 2)
    assert (found["width"], found["height"]) == (320, 213)
    raw = base64.b64decode(found["images"][0].removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(raw)) as image:
        assert image.size == (320, 213)
        assert [image.getpixel((5, y))[0] for y in (20, 80, 200)] == [0, 255, 0]
    assert measures.longest_still(found["index"]) == (2, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run? write run=DIR"),
        (["run=/nowhere/at/all"], "is not a run folder"),
        (["run={run}", "learner.batch_size=8"], "learner.batch_size belongs to the training run"),
        (["run={run}", "max_step=8"], "did you mean max_steps"),
        (["run={run}", "max_steps=0"], "max_steps is 0: choose 1 to 10,000"),
        (["run={run}", "depth=1000"], "depth is 1000"),
        (["run={run}", "max_nodes=1"], "max_nodes is 1"),
        (["run={run}", "out={run}"], "is a folder: name a file"),
        (["run={run}", "out=/proc/none/page.html"], "choose another out="),
        (["run={run}", "seed=-1"], "eval.seed"),
        (["run={run}", "env.frame_stack=3"], "fixed by the training of these weights"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(finished, capsys, words, message):
    words = [word.format(run=finished.folder) for word in words]
    assert exits.guarded(lambda: command.main(words)) == exits.BAD_INPUT
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (finished.folder / "inspect.html").exists()


@pytest.mark.parametrize("words", [["-m", "ez_jax.inspect"], [str(runs.ROOT / "ez_jax/report.py")]])
def test_the_commands_name_hides_nothing_of_the_standard_library(words):
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    done = subprocess.run(
        [sys.executable, *words, "--help"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m ez_jax.")


def test_a_game_without_pictures_is_told_by_its_numbers(agent, played):
    chosen, game = played("gumbel")
    blind = dataclasses.replace(game, film=Film(), no_pictures="it draws none")
    returns = imagined.returns_to_go(blind, 0.9)
    came = imagined.real(blind, returns, depth=DEPTH, horizon=5)
    ahead = imagined.actions_ahead(blind, DEPTH)
    found = imagined.unroll(agent.model, agent.variables, blind.roots, ahead)
    measured = measures.measure(blind, returns, found, came)
    shown = page.content(blind, measured, found, came, discount=chosen.discount, horizon=5)
    assert shown["frames"]["images"] == []
    assert np.shape(shown["steps"]["observation"]) == (len(blind.action), 4)
    assert any("it draws none" in text for _, text in measures.findings(blind, measured))


# The page in a browser.


@pytest.fixture
def visit(browser, written):
    """Return visit(width, ...) -> the page opened; nothing may be loaded or complained about."""
    complaints, contexts = [], []

    def open_page(width, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda told: complaints.append(told.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url[:80])
               if not request.url.startswith(("data:", written[0].as_uri())) else None)  # fmt: skip
        tab.goto(written[0].as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def at(tab, step):
    """Wait until the page shows this step; its policy forbids code given as text."""
    expect(tab.locator("#place")).to_have_text(re.compile(rf"^{step} of \d+$"))


def overflow(tab):
    return tab.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def test_the_scrubber_and_the_keys_move_through_the_game(visit):
    tab = visit(1280)
    last = tab.evaluate("TOTAL - 1")
    at(tab, 0)
    first = tab.locator("#frame").get_attribute("src")
    tab.keyboard.press("ArrowRight")
    at(tab, 1)
    assert "before step 1" in tab.locator("#frame").get_attribute("alt")
    tab.locator("#step").fill("5")
    at(tab, 5)
    assert tab.locator("#frame").get_attribute("src") != first
    tab.locator("#back").click()
    at(tab, 4)
    tab.keyboard.press("Home")
    at(tab, 0)
    chart = tab.locator("#overview svg.chart").first
    chart.click(position={"x": chart.bounding_box()["width"] - 12, "y": 60})
    at(tab, last)
    tab.locator("#speed").select_option("30")
    tab.locator("#play").click()
    at(tab, last)
    expect(tab.locator("#play")).to_have_text("Play")
    assert overflow(tab) <= 0


def test_the_numbers_shown_are_those_of_the_step(visit, written):
    steps, tab = data_of(written[0].read_text())["steps"], visit(1280)
    tab.evaluate("setStep(6)")
    at(tab, 6)
    rows = tab.locator("#policy tbody tr")
    assert rows.count() == 2
    for action in range(2):
        cells = rows.nth(action).locator("td").all_inner_texts()
        np.testing.assert_allclose(float(cells[0]), steps["prior"][6][action], atol=6e-4)
        np.testing.assert_allclose(float(cells[1]), steps["policy"][6][action], atol=6e-4)
        assert int(cells[2]) == steps["visits"][6][action]
    assert "(taken)" in rows.nth(steps["action"][6]).inner_text()


def test_nodes_of_the_tree_open_and_close(visit):
    tab = visit(1280)
    rows = tab.locator("#tree [role=treeitem]")
    closed = rows.count()
    tab.locator("#openall").click()
    assert rows.count() == tab.evaluate("DATA.trees[0].parent.length")
    tab.locator("#closeall").click()
    assert rows.count() == 1
    rows.first.click()
    assert rows.first.get_attribute("aria-expanded") == "true"
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.activeElement.getAttribute('aria-level')") == "2"
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("ArrowLeft")
    assert rows.count() == 1
    tab.locator("#openline").click()
    assert rows.count() == closed
    line = tab.evaluate("DATA.trees[0].line.length")
    assert tab.locator("#tree .inline").count() == line


def test_on_a_phone_nothing_sticks_out_and_everything_can_be_touched(visit):
    tab = visit(360, has_touch=True, is_mobile=True, color_scheme="dark")
    tab.locator("#openall").tap()
    tab.locator("summary").tap()
    assert overflow(tab) <= 0
    small = tab.evaluate(
        """[...document.querySelectorAll("button, select, input, summary, [role=treeitem]")]
        .filter(x => x.offsetParent !== null || x.closest("#controls"))
        .filter(x => x.getBoundingClientRect().height < 40).map(x => x.id || x.className)"""
    )
    assert small == []
    outside = """[...document.querySelectorAll("body *")]
        .filter(x => x.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map(x => x.tagName + x.className)"""
    for width in (360, 700, 1000):
        tab.set_viewport_size({"width": width, "height": 740})
        assert tab.evaluate(outside) == []


def test_the_page_works_inside_a_frame_of_a_notebook(browser, written):
    tab = browser.new_page()
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.set_content("<iframe width=700 height=500></iframe>")
    tab.evaluate("html => document.querySelector('iframe').srcdoc = html", written[0].read_text())
    inside = tab.frame_locator("iframe")
    inside.locator("#next").click()
    assert inside.locator("#place").inner_text().startswith("1 ")
    tab.close()
    assert complaints == []


def test_on_paper_are_the_frame_the_charts_and_the_line_but_no_controls(visit):
    tab = visit(1000, color_scheme="dark")
    tab.locator("#closeall").click()
    pdf = tab.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    assert not tab.locator("#controls").is_visible()
    assert not tab.locator("#treebuttons").is_visible()
    assert tab.locator("#frame").is_visible()
    assert tab.locator("#tree .inline").count() == tab.evaluate("DATA.trees[0].line.length")
    assert tab.locator("#words").evaluate("words => words.open")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_without_pictures_the_page_shows_what_the_agent_observes(browser, written, tmp_path):
    found = data_of(written[0].read_text())
    found["frames"] = Film().encode()
    found["steps"]["observation"] = [[0.5, -1.25]] * len(found["steps"]["action"])
    (tmp_path / "blind.html").write_text(
        page.render(found, [], title="blind", about="", settings={}), encoding="utf-8"
    )
    tab = browser.new_page()
    tab.goto((tmp_path / "blind.html").as_uri())
    expect(tab.locator("#observation")).to_contain_text("0.5  \N{MINUS SIGN}1.25")
    assert not tab.locator("#frame").is_visible()
    tab.close()


def test_what_was_broken_in_training_is_said(tmp_path):
    line = {"agent_steps": 10, "updates": 500, "loss/total": 1.0, "prefix/correlation": 0.0}
    assert of_training(tmp_path, Config()) == []
    for spread, number in [(0.9, 0), (0.0, 1)]:
        text = json.dumps(line | {"prefix/spread": spread}) + "\n"
        (tmp_path / "metrics.jsonl").write_text(text)
        found = of_training(tmp_path, Config())
        assert [finding.kind for finding in found] == ["warning"] * number
    assert "does not follow the rewards" in found[0].text
