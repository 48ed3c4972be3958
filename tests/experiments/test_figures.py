"""The committed curves: each is drawn, by its file, with the mean over its seeds."""

import json

import numpy as np
from runs import ROOT

from experiments import figures

RESULTS = ROOT / "experiments" / "results"


def test_every_committed_curve_is_in_a_figure_and_every_figure_is_committed():
    paths = RESULTS.rglob("*.json")
    curves = {
        path for path in paths if "curve" in (json.loads(path.read_text()).get("runs") or [{}])[0]
    }
    drawn = {
        RESULTS / f"{file}.json" for arms in figures.FIGURES.values() for file in arms.values()
    }
    assert drawn == curves
    assert all((RESULTS / f"{name}.png").exists() for name in figures.FIGURES)


def test_the_mean_is_over_seeds_that_are_interpolated_to_common_steps():
    grid = np.array([1000, 2000, 3000])
    curves = [(grid, grid / 1000 + seed) for seed in range(3)]
    curves[2] = (np.array([1000, 3000]), np.array([3.0, 5.0]))
    steps, mean, (low, high) = figures.mean_with_interval(curves)
    np.testing.assert_array_equal(steps, grid)
    np.testing.assert_allclose(mean, [2, 3, 4])
    assert np.all((low <= mean) & (mean <= high))
    np.testing.assert_allclose([low, high], [[1, 2, 3], [3, 4, 5]])  # of three, all of the range
