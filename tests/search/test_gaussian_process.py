"""The Gaussian process against scikit-learn, the formulas, and functions that it can learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.gaussian_process.kernels import Matern

from search.gaussian_process import GaussianProcess, Prior, matern


def prior(beta=(0.0,), spread=(1.0,), length=1.0, signal=1.0, noise=0.1):
    return Prior(np.array(beta), np.array(spread), length, signal, noise)


def data(n, F=3, seed=0):
    generator = np.random.default_rng(seed)
    inputs = generator.random((n, F))
    return inputs, np.ones((n, 1)), np.sin(3 * inputs).sum(1) + 0.05 * generator.normal(size=n)


def test_the_kernel_is_matern_five_halves():
    points = np.random.default_rng(0).random((6, 2))
    expected = Matern(length_scale=0.7, nu=2.5)(points)
    np.testing.assert_allclose(matern(cdist(points, points) / 0.7), expected, atol=1e-12)


def test_the_posterior_mean_is_that_of_conditioned_normals():
    inputs, basis, y = data(12)
    process = GaussianProcess(inputs, basis, y, prior(beta=(0.5,), spread=(2.0,)))
    at = np.random.default_rng(1).random((4, 3))
    both = np.concatenate([at, inputs])
    joint = 4.0 + process.signal**2 * matern(cdist(both, both) / process.length)
    noisy = joint[4:, 4:] + process.noise**2 * np.eye(12)
    expected = 0.5 + joint[:4, 4:] @ np.linalg.solve(noisy, y - 0.5)
    np.testing.assert_allclose(process.mean(at, np.ones((4, 1))), expected, atol=1e-6)


def test_functions_have_the_posterior_mean_and_covariance():
    inputs, basis, y = data(10)
    process = GaussianProcess(inputs, basis, y, prior())
    at, ones = np.random.default_rng(2).random((3, 3)), np.ones((3, 1))
    generator = np.random.default_rng(3)
    drawn = np.array([process.draw(generator)(at, ones) for _ in range(4000)])
    both = np.concatenate([at, inputs])
    joint = 1.0 + process.signal**2 * matern(cdist(both, both) / process.length)
    noisy = joint[3:, 3:] + process.noise**2 * np.eye(10)
    covariance = joint[:3, :3] - joint[:3, 3:] @ np.linalg.solve(noisy, joint[3:, :3])
    # Six standard errors of 4,000 draws.
    tolerance = 6 * np.sqrt(covariance.diagonal().max() / 4000)
    np.testing.assert_allclose(drawn.mean(0), process.mean(at, ones), atol=tolerance)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.15 * covariance.max())


def test_a_function_is_the_same_at_every_question_and_for_the_same_chance():
    inputs, basis, y = data(10)
    first, second = (
        GaussianProcess(inputs, basis, y, prior()).draw(np.random.default_rng(0)) for _ in range(2)
    )
    np.testing.assert_array_equal(first(inputs, basis), second(inputs, basis))
    alone = np.concatenate([first(inputs[i : i + 1], basis[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(alone, first(inputs, basis), atol=1e-9)


def test_it_learns_the_weight_of_a_hint():
    generator = np.random.default_rng(4)
    inputs = generator.random((40, 2))
    hint = generator.random(40)
    basis = np.stack([np.ones(40), hint], axis=1)
    y = 0.02 + 0.8 * hint + 0.01 * generator.normal(size=40)
    believed = prior(beta=(0.0, 1.5), spread=(0.2, 0.75), signal=0.05, noise=0.01)
    process = GaussianProcess(inputs, basis, y, believed)
    low, high = process.mean(np.full((2, 2), 0.5), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert high - low == pytest.approx(0.8, abs=0.05)


def test_noise_is_told_from_signal():
    generator = np.random.default_rng(5)
    inputs = generator.random((120, 1))
    smooth = np.sin(6 * inputs[:, 0])
    quiet, loud = (
        GaussianProcess(
            inputs,
            np.ones((120, 1)),
            smooth + noise * generator.normal(size=120),
            prior(length=0.3, noise=0.1),
        )
        for noise in (0.03, 0.3)
    )
    assert quiet.noise < 0.08 < 0.2 < loud.noise


def test_without_data_it_is_the_prior():
    process = GaussianProcess(np.empty((0, 2)), np.empty((0, 1)), np.empty(0), prior(beta=(0.3,)))
    at = np.random.default_rng(6).random((5, 2))
    np.testing.assert_array_equal(process.mean(at, np.ones((5, 1))), np.full(5, 0.3))
    assert (process.length, process.signal, process.noise) == (1.0, 1.0, 0.1)


def test_equal_points_and_equal_rewards_are_no_trouble():
    inputs = np.zeros((20, 4))
    process = GaussianProcess(inputs, np.ones((20, 1)), np.full(20, 0.2), prior(noise=1e-3))
    assert process.mean(inputs[:1], np.ones((1, 1)))[0] == pytest.approx(0.2, abs=0.01)
    drawn = process.draw(np.random.default_rng(0))
    assert np.isfinite(drawn(inputs, np.ones((20, 1)))).all()
