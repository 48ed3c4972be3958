"""The examples in the docstrings of public functions run, and show what they say."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import ez_jax
from ez_jax.agent import learner, losses
from ez_jax.agent.replay import ring
from ez_jax.agent.search import make_recurrent_fn, make_search, make_tree_search
from ez_jax.agent.targets import make_targets

pytestmark = pytest.mark.usefixtures("quick_compiling")

DOCUMENTED = (
    *(ez_jax.make_env, ez_jax.make_model, ez_jax.Model),
    *(make_recurrent_fn, make_search, make_tree_search),
    *(ring.add, ring.draw, ring.gather, ring.update_priorities),
    *(make_targets, losses.unroll_loss, learner.make_update),
    *(ez_jax.load, ez_jax.Agent.act),
)


@pytest.fixture(scope="module")
def names(finished):
    """What the examples speak of, at the smallest sizes."""
    changes = {"learner.unroll_steps": 1, "learner.lstm_horizon_len": 1, "env.frame_stack": 1}
    config = tiny.make_config(changes)
    env = ez_jax.make_env("CartPole", config.env, num_envs=2, seed=0, training=True)
    model = ez_jax.make_model(config, env.spec)
    variables, batch = tiny.init(model), tiny.random_batch(config, env.spec)
    replay = ring.init_replay(env.spec, rows=8, num_envs=2)
    yield {
        **{"ez_jax": ez_jax, "jax": jax, "jnp": jnp, "np": np},
        **{"config": config, "env": env, "model": model, "variables": variables, "batch": batch},
        "frames": jnp.zeros((2, 1, 4)),
        "replay": replay.replace(priority=jnp.ones((8, 2)), count=jnp.int32(8)),
        "targets": make_targets(config, model)(variables, batch, jnp.int32(0)),
        "run": finished.folder,
        "agent": ez_jax.load(finished.folder),
    }
    env.close()


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda documented: documented.__qualname__)
def test_the_example_of_a_docstring_shows_what_it_says(documented, names):
    own = vars(__import__(documented.__module__, fromlist=["*"]))
    parser, told = doctest.DocTestParser(), []
    name = documented.__qualname__
    test = parser.get_doctest(documented.__doc__, {**own, **names}, name, None, None)
    assert test.examples
    doctest.DocTestRunner().run(test, out=told.append)
    assert not told, "".join(told)
