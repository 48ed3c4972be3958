"""What games return, compared with what they declare."""

import numpy as np
import pytest
from gymnasium import spaces

from ez_jax.envs.raw_observations import Unlike, make_taken

INTEGERS = spaces.Box(0, 10, (2,), np.int32)


def test_whole_numbers_that_come_as_floats_are_integers():
    taken = make_taken(INTEGERS)(np.array([1.0, 7.0], np.float32))
    assert taken.dtype == np.int32
    np.testing.assert_array_equal(taken, [1, 7])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e12, 0.5])
def test_other_floats_are_none(number):
    with pytest.raises(Unlike, match="but the space is"):
        make_taken(INTEGERS)(np.array([number, 1.0]))


def test_a_black_image_of_floats_is_none_of_bytes():
    with pytest.raises(Unlike, match="but the space is"):
        make_taken(spaces.Box(0, 255, (16, 16, 1), np.uint8))(np.zeros((16, 16, 1), np.float32))
