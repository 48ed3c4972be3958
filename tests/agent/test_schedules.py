"""What is done by the clocks alone."""

from itertools import pairwise

import pytest

from ez_jax.agent.schedules import has_crossed


def test_what_is_periodic_is_due_once_per_crossing_however_long_the_step():
    clock = (0, 4, 9, 12, 19, 20, 55, 59)
    due = [now for before, now in pairwise(clock) if has_crossed(10, before, now)]
    assert due == [12, 20, 55]


@pytest.mark.parametrize("period", [1, 4, 7, 10])
def test_what_was_done_at_any_time_is_due_again_at_the_next_multiple(period):
    for done in range(30):
        due = next(now for now in range(done, 60) if has_crossed(period, done, now))
        assert due == (done // period + 1) * period


def test_a_period_of_zero_is_never():
    assert not any(has_crossed(0, 0, now) for now in range(5))
