"""What a run says of its own health: numbers against plain numpy, sentences from made lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny

from ez_jax.agent import diagnostics, support
from ez_jax.agent.complaints import ENOUGH, PATIENCE, Watch, complaints, support_end
from ez_jax.agent.diagnostics import measure, readings
from ez_jax.agent.losses import mean_cosine
from ez_jax.storage.metrics import means, read_metrics
from ez_jax.structs import LossOutput, Sums, Targets

CONFIG = tiny.make_config({"learner.batch_size": 6, "network.support": 2})
STEPS, SIZE = CONFIG.learner.unroll_steps, CONFIG.learner.batch_size
MASK = np.ones((SIZE, STEPS + 1), np.float32)
MASK[1, 2:] = 0  # an episode that ended
WEIGHT = np.array([1, 0.5, 1, 0.25, 1, 0], np.float32)  # the last one was not drawn


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def seen(rng):
    """Predictions that follow their targets somehow, around a mean far from zero."""
    value = rng.normal(500, 3, (SIZE, STEPS + 1)).astype(np.float32)
    prefix = rng.normal(0, 2, (SIZE, STEPS)).astype(np.float32)
    batch = tiny.random_batch(CONFIG, tiny.make_spec(2)).replace(weight=jnp.asarray(WEIGHT))
    targets = Targets(
        value=jnp.asarray(value),
        value_prefix=jnp.asarray(prefix),
        policy=batch.policy,
        mask=jnp.asarray(MASK),
        policy_mask=jnp.asarray(MASK),
    )
    output = LossOutput(
        loss=jnp.zeros(()),
        terms={},
        priority=jnp.zeros(SIZE),
        value=jnp.asarray(0.8 * value.T + rng.normal(100, 1, value.T.shape), jnp.float32),
        value_prefix=jnp.asarray(0.5 * prefix.T + rng.normal(0, 0.1, prefix.T.shape), jnp.float32),
        alike=jnp.float32(0.25),
        value_gap=jnp.float32(1.5),
        batch_stats={},
    )
    return output, targets, batch


@pytest.fixture(scope="module")
def measured(seen):
    found = jax.jit(lambda *given: measure(*given, CONFIG))(*seen)
    return {name: float(x) for name, x in found.items()}


def summed(sums) -> Sums:
    return Sums.of(list(sums)).add(sums)


def counted(predicted, target, positions) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that count at some positions, one sample after another, in float64."""
    pairs = [
        (predicted[k][b], target[b][k - offset])
        for b in range(SIZE)
        for k, offset in positions
        if MASK[b, k] and WEIGHT[b] > 0
    ]
    return tuple(np.asarray(pairs, np.float64).T)


def test_errors_by_depth_are_means_of_what_counts(seen, measured):
    output, targets, _ = seen
    for k in range(1, STEPS + 1):
        predicted, target = counted(output.value, np.asarray(targets.value), [(k, 0)])
        assert measured[f"value/error_{k}"] == pytest.approx(
            np.mean(abs(predicted - target)), rel=1e-4
        )
        prefix = [None, *np.asarray(output.value_prefix)]
        predicted, target = counted(prefix, np.asarray(targets.value_prefix), [(k, 1)])
        assert measured[f"prefix/error_{k}"] == pytest.approx(
            np.mean(abs(predicted - target)), rel=1e-4
        )


@pytest.mark.parametrize("head", ["value", "prefix"])
def test_ratios_are_those_of_statistics(seen, measured, head):
    output, targets, _ = seen
    if head == "value":
        predicted, target = counted(output.value, np.asarray(targets.value), [(0, 0)])
    else:
        prefix = [None, *np.asarray(output.value_prefix)]
        positions = [(k, 1) for k in range(1, STEPS + 1)]
        predicted, target = counted(prefix, np.asarray(targets.value_prefix), positions)
    found = readings(measured)
    assert not any(f"{head}/{name}" in found for name in diagnostics.MOMENTS)
    expected = {
        "correlation": np.corrcoef(predicted, target)[0, 1],
        "spread": predicted.std() / target.std(),
        "explained": 1 - np.var(target - predicted) / np.var(target),
        "slope": np.polyfit(predicted, target, 1)[0],
    }
    for name, value in expected.items():
        assert found[f"{head}/{name}"] == pytest.approx(value, rel=1e-3), name
    if head == "value":
        assert found["value/bias"] == pytest.approx(np.mean(predicted - target), rel=1e-4)
        assert found["norm/value_gap_share"] == pytest.approx(1.5 / predicted.std(), rel=1e-3)


def test_a_game_without_rewards_gives_no_ratios_and_no_complaint(measured):
    still = {**measured, "prefix/variance": 0.0, "prefix/target_variance": 0.0}
    found = readings(still)
    assert not {"prefix/spread", "prefix/correlation", "prefix/slope"} & found.keys()
    assert "prefix/spread" not in complaints(found, CONFIG)


def test_moments_of_many_small_batches_make_the_ratio_of_all_of_them():
    """In most batches nothing is rewarded; a mean of their ratios would not exist."""
    rewarded = {"prefix/variance": 1.0, "prefix/target_variance": 4.0, "prefix/covariance": 2.0}
    sums = {name: value + 9 * 0.0 for name, value in rewarded.items()} | {"count": 10.0}
    found = readings(means(summed(sums)))
    assert found["prefix/spread"] == pytest.approx(0.5)
    assert found["prefix/correlation"] == pytest.approx(1.0)


def test_sections_have_counts_of_their_own():
    sums = {"count": 2.0, "loss/total": 6.0, "search/gain": 10.0, "search/count": 5.0}
    assert means(summed(sums)) == {"loss/total": 3.0, "search/gain": 2.0}
    assert means(summed(sums | {"count": 0.0})) == {"search/gain": 2.0}
    assert means(summed({"count": 0.0, "loss/total": 0.0})) == {}


def test_a_metric_without_a_sum_is_a_mistake():
    with pytest.raises(KeyError, match="loss/totl"):
        Sums.of(["loss/total"]).add({"loss/totl": jnp.ones(())})


def test_the_share_of_a_batch_that_counts_is_that_of_kish(measured):
    expected = WEIGHT.sum() ** 2 / (len(WEIGHT) * np.sum(WEIGHT**2))
    assert measured["replay/effective_share"] == pytest.approx(expected, rel=1e-5)


def test_targets_past_the_support_are_counted(measured):
    assert measured["value/clipped"] == 1.0
    end = support_end(CONFIG.network.support)
    assert float(support.transform(jnp.float32(end))) == pytest.approx(2.0, rel=1e-5)
    said = complaints({"value/clipped": 1.0}, CONFIG)
    assert "100% of the value targets lie past 7.952" in said["value/clipped"]


def test_the_mean_cosine_is_over_pairs_of_different_samples(rng):
    x = rng.normal(size=(5, 3))
    pairs = [
        x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert float(mean_cosine(jnp.asarray(x))) == pytest.approx(np.mean(pairs), rel=1e-4)
    assert float(mean_cosine(jnp.ones((4, 3)))) == pytest.approx(1.0)


HEALTHY = {
    "prefix/spread": 0.9,
    "prefix/correlation": 0.9,
    "value/explained": 0.5,
    "value/bias": 0.1,
    "value/clipped": 0.0,
    "norm/value_gap": 0.1,
    "norm/value_gap_share": 0.1,
    "consistency/alike": 0.1,
    "replay/effective_share": 0.8,
    "search/gain": 0.01,
}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"prefix/spread": 0.01, "prefix/correlation": 0.0}, "does not follow the rewards"),
        ({"value/explained": -0.5}, "less than a constant would"),
        ({"norm/value_gap_share": 0.8}, "network.norm=sample has none"),
        ({"value/clipped": 0.2}, "a larger network.support"),
        ({"consistency/alike": 0.99}, "the same"),
        ({"replay/effective_share": 0.01}, "replay.min_weight"),
        ({"search/gain": -0.1}, "worse than the policy alone"),
    ],
)
def test_each_number_that_is_broken_is_said_once_and_with_a_mend(broken, words):
    assert complaints(HEALTHY, CONFIG) == {}
    watch, late = Watch(CONFIG), max(CONFIG.total_updates, ENOUGH)
    sick = HEALTHY | broken
    told = [watch(late, sick) for _ in range(PATIENCE + 3)]
    assert [len(sentences) for sentences in told] == [0] * (PATIENCE - 1) + [1] + [0] * 3
    assert words in told[PATIENCE - 1][0]


def test_at_the_beginning_and_after_a_single_line_nothing_is_said():
    watch, sick = Watch(CONFIG), HEALTHY | {"value/explained": -1.0}
    assert [watch(0, sick) for _ in range(5)] == [[]] * 5
    assert [watch(ENOUGH - 1, sick) for _ in range(5)] == [[]] * 5  # however short the run is
    late = max(CONFIG.total_updates, ENOUGH)
    assert [watch(late, line) for line in (sick, HEALTHY, sick, HEALTHY)] == [[]] * 4


def test_a_run_writes_what_is_promised(finished):
    lines = [line for line in read_metrics(finished.folder) if "loss/total" in line]
    depth = runs.SETTINGS["learner.unroll_steps"]
    promised = {f"prefix/error_{depth}", f"value/error_{depth}"}
    promised |= {"consistency/alike", "replay/effective_share", "value/bias", "reanalyse/age"}
    promised |= {"norm/value_gap"}
    assert lines
    for line in lines:
        assert promised <= line.keys()
    assert not any(name.endswith(diagnostics.MOMENTS) for line in lines for name in line)
