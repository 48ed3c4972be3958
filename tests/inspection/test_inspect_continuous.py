"""The page about a game with continuous actions: made-up games, a browser, and one real run."""

import dataclasses
import json
import re

import numpy as np
import pytest
import runs
from scipy.special import ndtr

import ez_jax
from ez_jax.inspection import episode, imagined, measures, page
from ez_jax.inspection.episode import Episode, Numbers, number_of
from ez_jax.inspection.frames import Film
from ez_jax.inspection.imagined import Imagined
from ez_jax.inspection.trees import Nodes, compact, principal_variation

STEPS, CANDIDATES, DEPTH = 30, 8, 3
VISITS = np.array([0, 4, 2, 1, 0, 1, 0, 0])
CHOSEN = 2


def made_nodes(candidates, qs):
    """A tree of the visited candidates, below the first of which is one more node."""
    number = np.flatnonzero(VISITS)
    count = len(number) + 2
    size = candidates.shape[1]
    return Nodes(
        parent=np.array([-1, *[0] * len(number), 1]),
        action=np.array([-1, *number, 3]),
        visits=np.array([1 + VISITS.sum(), *VISITS[number], 1]),
        prior=np.full(count, 1 / CANDIDATES),
        reward=np.zeros(count),
        value=np.array([0, *qs[number], 0]),
        raw=np.zeros(count),
        vector=np.concatenate([np.zeros((1, size)), candidates[number], np.full((1, size), 0.25)]),
    )


def made_game(size, *, seed=0, **changes) -> Episode:
    """A game whose actions are `size` numbers, with everything drawn at random."""
    rng = np.random.default_rng(seed)
    candidates = np.tanh(rng.normal(size=(STEPS, CANDIDATES, size)))
    qs = rng.normal(size=(STEPS, CANDIDATES))
    policy = np.eye(CANDIDATES)[np.full(STEPS, CHOSEN)]
    numbers = Numbers(
        candidates=candidates,
        chosen=np.full(STEPS, CHOSEN),
        mean=rng.normal(size=(STEPS, size)),
        deviation=rng.uniform(0.3, 0.9, (STEPS, size)),
    )
    game = Episode(
        film=Film(),
        no_pictures="it draws none",
        observation=rng.normal(size=(STEPS, 3)),
        action=candidates[:, CHOSEN],
        score=rng.normal(size=STEPS),
        reward=rng.normal(size=STEPS),
        ends=np.arange(STEPS) == STEPS - 1,
        prior=np.full((STEPS, CANDIDATES), 1 / CANDIDATES),
        policy=policy,
        visits=np.tile(VISITS, (STEPS, 1)),
        qs=qs,
        gain=np.full(STEPS, 0.5),
        value=rng.normal(size=STEPS),
        search_value=rng.normal(size=STEPS),
        nodes=[made_nodes(*pair) for pair in zip(candidates, qs, strict=True)],
        roots=None,
        cut="",
        value_after=0.0,
        action_names=tuple(f"a{i}" for i in range(size)),
        numbers=numbers,
    )
    return dataclasses.replace(game, **changes)


def measured(game):
    returns = imagined.returns_to_go(game, 0.9)
    real = imagined.real(game, returns, depth=DEPTH, horizon=5)
    none = np.zeros((STEPS, DEPTH))
    dreamt = Imagined(reward=none, value_prefix=none, value=none)
    return measures.measure(game, returns, dreamt, real), dreamt, real


def content(game):
    return page.content(game, *measured(game), discount=0.9, horizon=5)


def warnings_and_notes(game):
    found = measures.findings(game, measured(game)[0])
    return {kind: " ".join(text for k, text in found if k == kind) for kind in ("warning", "note")}


def with_numbers(game, **changes):
    return dataclasses.replace(game, numbers=game.numbers._replace(**changes))


# The numbers.


def test_the_executed_action_is_found_among_equal_candidates():
    candidates = np.array([[0.5, 1], [0.999, 1], [0.999, 1], [0.999, 0]])
    assert number_of(np.array([0.5, 1]), candidates, np.array([0, 3, 5, 9])) == 0
    assert number_of(np.array([0.999, 1]), candidates, np.array([9, 3, 5, 9])) == 2
    assert number_of(np.array([0.999, 0]), candidates, np.zeros(4, int)) == 3


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_nodes_action_is_that_candidate_of_its_parent(size):
    candidates = np.random.default_rng(size).normal(size=(5, 4, size))
    tree = type("Tree", (), {
        "node_visits": np.array([6, 3, 1, 2, 0]), "parents": np.array([-1, 0, 0, 1, -1]),
        "action_from_parent": np.array([-1, 3, 1, 2, -1]), "children_rewards": np.zeros((5, 4)),
        "children_prior_logits": np.zeros((5, 4)), "node_values": np.zeros(5),
        "raw_values": np.zeros(5),
    })  # fmt: skip
    nodes = compact(tree, 64, candidates)
    np.testing.assert_array_equal(nodes.vector[0], np.zeros(size))
    expected = [candidates[0, 3], candidates[0, 1], candidates[1, 2]]
    np.testing.assert_array_equal(nodes.vector[1:], expected)
    assert principal_variation(nodes, 3, 0.9) == [0, 1, 3]
    assert compact(tree, 64).vector is None


@pytest.mark.parametrize("size", [1, 2, 6])
def test_the_page_is_told_candidates_policy_and_the_executed_action(size):
    game = made_game(size)
    found = json.loads(json.dumps(content(game), allow_nan=False))
    steps = found["steps"]
    assert np.shape(steps["candidates"]) == (STEPS, CANDIDATES, size)
    assert np.shape(steps["action"]) == np.shape(steps["mean"]) == (STEPS, size)
    np.testing.assert_allclose(steps["candidates"], game.numbers.candidates, atol=6e-4)
    np.testing.assert_allclose(steps["deviation"], game.numbers.deviation, rtol=6e-4)
    for t in range(STEPS):
        assert steps["candidates"][t][steps["chosen"][t]] == steps["action"][t]
    for tree, nodes in zip(found["trees"], game.nodes, strict=True):
        np.testing.assert_allclose(tree["vector"], nodes.vector, atol=6e-4)
        assert tree["line"] == [0, 2]  # the second of the visited candidates was executed
    # A prior and an entropy over candidates would say nothing.
    assert not {"prior", "prior_entropy", "policy_entropy"} & steps.keys()
    assert found["actions"] == [f"a{i}" for i in range(size)]


def test_the_actions_ahead_are_those_that_followed():
    game = made_game(2)
    ahead = imagined.actions_ahead(game, DEPTH)
    assert ahead.shape == (STEPS, DEPTH, 2)
    np.testing.assert_array_equal(ahead[4], game.action[4 : 4 + DEPTH])


# The sentences.


@pytest.mark.parametrize("size", [1, 2, 6])
def test_an_ordinary_game_is_not_complained_about(size):
    told = warnings_and_notes(made_game(size))
    for word in ("bounds", "narrower", "collapsed", "hardly changes", "action,", "favourite"):
        assert word not in told["warning"] + told["note"]


def test_the_search_is_compared_with_the_middle_of_the_policy():
    game = made_game(2)
    away = np.abs(game.action - np.tanh(game.numbers.mean)).mean()
    found = measures.findings(game, measured(game)[0])
    (said,) = [finding for finding in found if "Search gain" in finding.text]
    assert said.kind == "good"
    np.testing.assert_allclose(
        float(re.search(r"are ([\d.]+) away", said.text)[1]), away, rtol=1e-2
    )


def test_actions_at_their_bounds_are_noted_by_name():
    game = made_game(2)
    signs = np.where(np.arange(STEPS) % 2, 0.99, -0.97)
    both = dataclasses.replace(game, action=np.stack([signs, -signs], axis=1))
    assert "beyond ±0.95 in 100% of the steps." in warnings_and_notes(both)["note"]
    one = dataclasses.replace(game, action=np.stack([game.action[:, 0], signs], axis=1))
    assert "beyond ±0.95 in 100% of the steps (a1)." in warnings_and_notes(one)["note"]


def test_an_action_that_never_changes_is_warned_of():
    action = np.tile([0.99, -0.5], (STEPS, 1))
    told = warnings_and_notes(made_game(2, action=action))
    assert "hardly changes: it stays near +0.99, -0.50." in told["warning"]
    assert "bounds" not in told["note"]


def test_a_collapsed_policy_and_one_that_learned_nothing_are_warned_of():
    game = made_game(2)
    narrow = with_numbers(game, deviation=np.tile([0.5, 0.11], (STEPS, 1)))
    assert "collapsed to a deviation of 0.11 (a1)" in warnings_and_notes(narrow)["warning"]
    first = np.full((STEPS, 2), 1.42)
    untrained = with_numbers(game, deviation=first, mean=np.full((STEPS, 2), 0.01))
    assert "it has learned none" in warnings_and_notes(untrained)["warning"]
    wide = with_numbers(game, deviation=first, mean=np.full((STEPS, 2), 3.0))
    assert "no narrower than before training" in warnings_and_notes(wide)["note"]


def test_the_deviation_of_an_untrained_network_is_the_policys():
    mean, deviation = episode.continuous.moments(np.zeros(2))
    np.testing.assert_allclose([mean[0], deviation[0]], [0, measures.FIRST_DEVIATION], atol=1e-6)


# The page in a browser.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The pages of made-up games, by the size of an action."""
    paths = {}
    for size in (1, 2, 6, 21):
        found = content(made_game(size))
        paths[size] = tmp_path_factory.mktemp("pages") / f"{size}.html"
        html = page.render(found, [], title="made up", about="", settings={"a": "b"})
        paths[size].write_text(html, encoding="utf-8")
    return paths


@pytest.fixture
def visit(browser, files):
    """Return visit(size, width, ...) -> the page opened; nothing may be complained about."""
    complaints, contexts = [], []

    def open_page(size, width, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda told: complaints.append(told.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(files[size].as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("size", [1, 2, 6])
def test_the_picture_shows_every_candidate_where_it_is(visit, size):
    tab, game = visit(size, 1000), made_game(size)
    rows = size if size > 2 else 1
    searched = tab.locator("svg.space circle.candidate:not(.unvisited):not(.ring)")
    assert searched.count() == np.sum(VISITS > 0) * rows
    assert tab.locator("svg.space circle.unvisited").count() == np.sum(VISITS == 0) * rows
    assert tab.locator("svg.space .policy").count() == size
    ring = tab.locator("svg.space circle.ring").first
    zero, one = tab.evaluate("""["0", "1"].map((text) => Number([...document.querySelectorAll(
        "svg.space text[text-anchor=middle]")].find((each) => each.textContent === text)
        .getAttribute("x")))""")  # the labels of the horizontal axis
    place = (float(ring.get_attribute("cx")) - zero) / (one - zero)
    np.testing.assert_allclose(place, game.action[0, 0], atol=2e-3)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_the_pointer_tells_action_q_and_visits(visit, size):
    tab, game = visit(size, 1000), made_game(size)
    told = tab.locator(".told")
    assert told.inner_text().startswith("Executed: ")
    assert f"{VISITS[CHOSEN]} of {VISITS.sum()} visits" in told.inner_text()
    dot = tab.locator("svg.space circle.unvisited").first
    dot.dispatch_event(
        "pointerdown",
        tab.evaluate("""(() => {
        const box = document.querySelector("svg.space circle.unvisited").getBoundingClientRect();
        return { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
    })()"""),
    )
    assert told.inner_text().startswith("Candidate 1: ")
    assert "not searched" in told.inner_text()
    first = game.numbers.candidates[0, 0, 0]
    assert f"{abs(first):.2f}" in told.inner_text()


@pytest.mark.parametrize("size", [1, 2, 6, 21])
def test_nothing_sticks_out(visit, size):
    tab = visit(size, 1280, has_touch=True)
    tab.locator("#openall").click()
    for details in tab.locator("summary").all():
        details.click()
    outside = """[...document.querySelectorAll("body *")]
        .filter(x => x.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map(x => x.tagName + x.className)"""
    for width in (1280, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate(outside) == []


def test_edges_of_the_tree_and_the_table_say_the_actions(visit):
    tab = visit(2, 1000)
    game = made_game(2)
    signed = lambda action, places: "({})".format(  # noqa: E731
        ", ".join(f"{x:+.{places}f}".replace("-", "\N{MINUS SIGN}") for x in action)
    )
    names = tab.locator("#tree .name").all_inner_texts()
    for number in np.flatnonzero(VISITS):
        label = signed(np.round(game.numbers.candidates[0, number], 3), 2)
        assert any(label in name for name in names), label
    tab.locator("#candidates summary").click()
    rows = tab.locator("#candidates tbody tr").all_inner_texts()
    assert len(rows) == CANDIDATES
    (taken,) = [row for row in rows if "▶" in row]
    assert signed(np.round(game.action[0], 3), 2) in taken


def test_the_drawn_policy_is_the_squashed_normal(visit):
    tab = visit(1, 1000)
    for mean, deviation in [(0, 1.41), (0.8, 0.1), (-4.9, 2.0)]:
        normal = [mean, deviation]
        drawn = tab.evaluate("([mean, deviation]) => shares(mean, deviation, 40)", normal)
        with np.errstate(divide="ignore"):
            below = ndtr((np.arctanh(np.linspace(-1, 1, 41)) - mean) / deviation)
        np.testing.assert_allclose(drawn, np.diff(below), atol=1e-6)


def test_words_of_finite_actions_are_left_out(visit):
    tab = visit(1, 1000)
    text = tab.locator("body").inner_text() + tab.locator("#words").text_content()
    for word in ("undefined", "NaN", "before and after the search", "PUCT"):
        assert word not in text
    titles = tab.locator("figcaption").all_inner_texts()
    assert "Action" in titles
    assert "Deviation of the network's policy" in titles
    assert "Entropy of the policy" not in titles


# A real run.


@pytest.mark.long
def test_a_real_run_is_inspected(tmp_path):
    settings = [f"{key}={value}" for key, value in runs.SETTINGS.items()]
    words = ["+game=Pendulum", *settings, "total_agent_steps=60", "eval.every=0"]
    done = runs.wait(runs.start("ez_jax.train", *words, f"run_dir={tmp_path}"))
    assert done.returncode == 0, done.stdout + done.stderr
    said = []
    path = ez_jax.inspect_run(
        tmp_path, changes={"search.num_simulations": 20}, depth=DEPTH, max_steps=25, say=said.append
    )
    text = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1]
    found = json.loads(text)
    steps, discount = found["steps"], found["discount"]
    assert np.shape(steps["candidates"]) == (25, 16, 1)
    for t, tree in enumerate(found["trees"]):
        children = [i for i, parent in enumerate(tree["parent"]) if parent == 0]
        assert sum(tree["visits"][i] for i in children) == sum(steps["visits"][t]) == 20
        for i in children:
            number = tree["action"][i]
            assert tree["vector"][i] == steps["candidates"][t][number]
            q = tree["reward"][i] + discount * tree["value"][i]
            np.testing.assert_allclose(steps["q"][t][number], q, rtol=1e-2, atol=1e-2)
        assert steps["candidates"][t][steps["chosen"][t]] == steps["action"][t]
        # What is imagined along the executed action is what the search saw below it.
        (child,) = [i for i in children if tree["action"][i] == steps["chosen"][t]]
        np.testing.assert_allclose(
            found["imagined"]["reward"][t][0], tree["reward"][child], rtol=1e-2, atol=1e-3
        )
    assert any("away from the middle of the network's policy" in sentence for sentence in said)
