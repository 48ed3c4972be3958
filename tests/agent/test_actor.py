"""Acting: what the replay holds is what the environments showed and what was decided on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.actor import make_act
from ez_jax.agent.frames import init_frames
from ez_jax.agent.replay import ring
from ez_jax.structs import NEVER, Embedding, Root, SearchOutput, Sums, TimeStep

pytestmark = pytest.mark.usefixtures("quick_compiling")

ENVS, STACK, STEPS, UPDATES = 2, 3, 20, 7
SPEC = tiny.make_spec(1, stack=STACK)
DIGITS = np.array([10_000, 100, 1])  # a stack of numbers below 100 as one number


class Counters:
    """Environments whose observation is 1 + step number; environment i lasts 4 + 3 i steps.

    The reward of a step is ten times its action, plus the step number. Environment 1 terminates,
    environment 0 is truncated. The action after the end is swallowed.
    """

    def __init__(self):
        self.time = np.zeros(ENVS, np.int64)
        self.length = 4 + 3 * np.arange(ENVS)

    def step(self, action: np.ndarray | None) -> TimeStep:
        is_first = np.full(ENVS, True) if action is None else self.time == self.length
        self.time = np.where(is_first, 0, self.time + 1)
        paid = 0 if action is None else 10 * action
        is_last = self.time == self.length
        reward = np.where(is_first, 0, paid + self.time).astype(np.float32)
        return TimeStep(
            observation=(1 + self.time)[:, None].astype(np.float32),
            reward=reward,
            score=reward,
            discount=np.where(is_last & (np.arange(ENVS) == 1), 0, 1).astype(np.float32),
            is_first=is_first,
            is_last=is_last,
            game_over=is_last,
        )


class Reader:
    """Stands in for a model: the value of a stack is the number that its frames spell."""

    spec = SPEC

    def root(self, variables, frames):
        del variables
        value = frames[..., 0] @ DIGITS.astype(np.float32)
        embedding = Embedding(state=frames, carry=(), value_prefix=value, step=value)
        logits = jnp.zeros((ENVS, tiny.ACTIONS))
        return Root(embedding=embedding, policy_logits=logits, value=value)


def search(variables, root, key, temperature) -> SearchOutput:
    """Decide by the newest frame; the policy shows the temperature."""
    del variables, key
    action = jnp.int32(root.value) % tiny.ACTIONS
    policy = jnp.full((ENVS, tiny.ACTIONS), temperature)
    return SearchOutput(action=action, policy=policy, value=root.value, gain=root.value)


@pytest.fixture(scope="module")
def act():
    return make_act(Reader(), search)


def drive(act, *, explore: bool, seed: int = 0) -> tuple:
    """All time steps, all actions, the replay and the metrics after STEPS decisions."""
    envs, steps, actions = Counters(), [], []
    replay = ring.init_replay(SPEC, rows=STEPS, num_envs=ENVS)
    frames, key = init_frames(SPEC, ENVS), jax.random.key(seed)
    sums = Sums.of(["search/count", "search/gain"])
    step = envs.step(None)
    for _ in range(STEPS):
        decide = jnp.asarray(explore)
        action, replay, sums, frames = act(
            {}, replay, sums, frames, step, key, jnp.float32(0.5), decide, UPDATES
        )
        steps.append(step)
        actions.append(np.asarray(action))
        step = envs.step(actions[-1])
    return steps, actions, *jax.device_get((replay, sums.by_name()))


@pytest.fixture(scope="module")
def searched(act):
    return drive(act, explore=False)


def test_rows_hold_what_arrived_and_what_was_decided_on_it(searched):
    steps, actions, replay, _ = searched
    assert replay.count == STEPS
    for t, (step, action) in enumerate(zip(steps, actions, strict=True)):
        for name in ("observation", "reward", "discount", "is_first"):
            recorded = getattr(replay.rows, name)[t]
            np.testing.assert_array_equal(recorded, getattr(step, name), err_msg=name)
        np.testing.assert_array_equal(replay.rows.action[t], action)
    np.testing.assert_array_equal(replay.rows.policy, 0.5)
    np.testing.assert_array_equal(replay.rows.searched, UPDATES)


def test_the_reward_of_an_action_stands_in_the_next_row(searched):
    _, _, replay, _ = searched
    rows = replay.rows
    for t in range(STEPS - 1):
        for env in range(ENVS):
            if not rows.is_first[t + 1, env]:
                following = rows.observation[t, env, 0]  # its step number: the frame counts from 1
                expected = 10 * rows.action[t, env] + following
                assert rows.reward[t + 1, env] == expected


def test_stacks_hold_the_last_frames_and_restart_with_an_episode(searched):
    steps, _, replay, _ = searched
    for env in range(ENVS):
        stack: list[float] = []
        for t, step in enumerate(steps):
            newest = float(step.observation[env, 0])
            stack = [newest] * STACK if step.is_first[env] else [*stack[1:], newest]
            assert replay.rows.value[t, env] == DIGITS @ np.array(stack)


def test_sampled_stacks_are_those_that_were_searched(searched):
    _, _, replay, _ = searched
    replay = jax.tree.map(jnp.asarray, replay)
    drawn = ring.draw(
        replay,
        jax.random.key(0),
        batch_size=16,
        unroll_steps=3,
        td_steps=1,
        frame_stack=STACK,
        priority_exponent=0.0,
        importance_exponent=0.0,
    )
    batch = ring.with_frames(replay, drawn)
    for k in range(4):
        spelt = batch.observation[:, k : k + STACK, 0] @ DIGITS
        inside = k <= batch.last
        np.testing.assert_array_equal(spelt[inside], batch.value[:, k][inside])


def test_what_searches_gain_is_summed_where_an_action_was_executed(searched, act):
    steps, _, replay, sums = searched
    counts = np.array([~step.is_last for step in steps])
    assert not counts.all()
    assert sums["search/count"] == counts.sum()
    np.testing.assert_allclose(sums["search/gain"], replay.rows.value[counts].sum(), rtol=1e-5)
    assert not any(drive(act, explore=True)[3].values())


def test_exploring_decides_at_random_and_says_so(act):
    _, actions, replay, _ = drive(act, explore=True)
    np.testing.assert_allclose(replay.rows.policy, 1 / tiny.ACTIONS, rtol=1e-6)
    np.testing.assert_array_equal(replay.rows.value, 0)
    assert set(np.unique(actions)) == set(range(tiny.ACTIONS))


def test_what_was_never_searched_is_marked(act):
    np.testing.assert_array_equal(drive(act, explore=True)[2].rows.searched, NEVER)


def test_random_actions_depend_on_the_key_alone(act):
    one, again, other = (drive(act, explore=True, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(np.array(one) != np.array(other))
