"""gymnax's games of MinAtar are those of the original, but for what the handbook says."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.minatar.asterix import spawn_entity

from experiments import minatar

original = pytest.mark.usefixtures("original_minatar")


@pytest.fixture
def original_minatar():
    pytest.importorskip("minatar", reason="the original games are not here: pip install minatar")


@pytest.mark.long
@original
@pytest.mark.parametrize("game", minatar.GAMES)
def test_every_transition_is_that_of_the_original(game):
    told = minatar.rules(game, steps=300, games=3)
    assert told["compared"] > 200
    assert (told["observation"], told["reward"], told["terminal"]) == (0, 0, 0)


@pytest.mark.long
@original
def test_a_transition_that_is_not_the_originals_shows(monkeypatch):
    def twice(key, state, count):
        return 1 + jax.random.bernoulli(key).astype(int)  # it moves in every step

    monkeypatch.setattr(minatar, "chosen", twice)
    as_it_is = minatar.as_original

    def shifted(env, state):
        as_it_is(env, state.replace(pos=np.array(9 - state.pos)))

    monkeypatch.setattr(minatar, "as_original", shifted)
    told = minatar.rules("Breakout-MinAtar", steps=101, games=1)
    assert told["observation"] > 50


@pytest.mark.long
@original
@pytest.mark.parametrize("game", ["Breakout-MinAtar", "SpaceInvaders-MinAtar"])
def test_random_play_scores_alike(game):
    told = minatar.at_random(game, episodes=300)
    for what in ("return", "length"):
        (one, half), (other, other_half) = told["gymnax"][what], told["original"][what]
        assert abs(one - other) < 2 * np.hypot(half, other_half)  # four standard errors


@pytest.mark.long
@pytest.mark.parametrize(("taken", "after"), [(3, {4}), (7, {6, 8}), (8, {7})])
def test_a_full_board_of_asterix_loses_something(taken, after):
    env, params = gymnax.make("Asterix-MinAtar")
    state = env.reset_env(jax.random.key(0), params)[1]
    rows = jnp.zeros((8, 5), int).at[:taken].set(jnp.array([3, 1, 1, 0, 1]))

    def spawned(key):
        entity, slot = spawn_entity(key, state.replace(entities=rows))
        return rows.at[slot].set(entity)[:, 4].sum()

    found = jax.jit(jax.vmap(spawned))(jax.random.split(jax.random.key(1), 200))
    assert set(np.unique(found).tolist()) == after
