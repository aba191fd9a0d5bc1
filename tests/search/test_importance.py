"""Weights of samples that another policy drew."""

import numpy as np
import pytest
from scipy import stats

from search.importance import importance


def density(x, mean, std):
    """SciPy's truncated normal on [0, 1]."""
    return stats.truncnorm((0 - mean) / std, (1 - mean) / std, mean, std).pdf(x)


def test_one_coordinate_has_the_whole_ratio():
    x = np.array([[0.1], [0.5], [0.95]])
    now, then = (np.array([0.4]), np.array([0.2])), (np.array([0.6]), np.array([0.3]))
    expected = density(x[:, 0], 0.4, 0.2) / density(x[:, 0], 0.6, 0.3)
    np.testing.assert_allclose(importance(x, now, then), expected, rtol=1e-12)


def test_four_coordinates_have_its_fourth_root():
    x = np.random.default_rng(0).random((5, 4))
    now, then = (np.full(4, 0.4), np.full(4, 0.2)), (np.full(4, 0.45), np.full(4, 0.25))
    ratio = (density(x, 0.4, 0.2) / density(x, 0.45, 0.25)).prod(axis=1)
    np.testing.assert_allclose(importance(x, now, then), ratio**0.25, rtol=1e-10)


def test_the_same_policy_weighs_nothing():
    policy = np.full(3, 0.4), np.full(3, 0.2)
    np.testing.assert_array_equal(importance(np.full((2, 3), 0.7), policy, policy), [1, 1])


@pytest.mark.parametrize("far", [0.001, 0.999])
def test_weights_stay_finite_and_positive(far):
    near, narrow = np.full(9, 0.5), np.full(9, 1e-3)
    weights = importance(np.full((1, 9), far), (near, narrow), (near, np.full(9, 1.0)))
    back = importance(np.full((1, 9), far), (near, np.full(9, 1.0)), (near, narrow))
    for weight in (*weights, *back):
        assert np.isfinite(weight)
        assert weight > 0
