"""RewardModel against the textbook's equations, in NumPy."""

import numpy as np
import pytest

from search.reward_model import RewardModel

RNG = np.random.default_rng(5)
INPUTS = RNG.standard_normal((12, 3))
REWARDS = np.clip(0.2 + 0.1 * np.sin(INPUTS.sum(axis=1)), 0, 1)


def posterior(model, points):
    """(mean, covariance) of sqrt(reward) by Rasmussen and Williams (2006), 2.23 and 2.24.

    With the hyperparameters that the model has found.
    """
    kernel = model._model.covar_module
    length, signal = kernel.base_kernel.lengthscale.item(), kernel.outputscale.item()
    noise, constant = model._model.likelihood.noise.item(), model._model.mean_module.constant.item()

    def k(a, b):
        r = np.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=2) / length
        return signal * (1 + r + r**2 / 3) * np.exp(-r)

    roots = np.sqrt(REWARDS)
    scale, center = roots.std(), roots.mean()
    gram = k(INPUTS, INPUTS) + noise * np.eye(len(INPUTS))
    cross = k(points, INPUTS)
    mean = constant + cross @ np.linalg.solve(gram, (roots - center) / scale - constant)
    covariance = k(points, points) - cross @ np.linalg.solve(gram, cross.T)
    return center + scale * mean, scale**2 * covariance


@pytest.fixture(scope="module")
def model():
    return RewardModel(INPUTS, REWARDS, noise=0.02, doubt=1.0)


def test_the_mean_is_the_textbooks(model):
    points = RNG.standard_normal((5, 3))
    mean, _ = posterior(model, points)
    np.testing.assert_allclose(model.root(points), mean, rtol=0, atol=1e-6)


def test_samples_have_the_posteriors_mean_and_covariance(model):
    points = RNG.standard_normal((4, 3))
    mean, covariance = posterior(model, points)
    np.testing.assert_allclose(model.sample(points, np.zeros(4)), mean, rtol=0, atol=1e-6)
    # A sample is mean + L z, so the unit vectors give L.
    root = np.array([model.sample(points, unit) - mean for unit in np.eye(4)]).T
    np.testing.assert_allclose(root @ root.T, covariance, rtol=0, atol=1e-6)


def test_equal_data_make_an_equal_model(model):
    again = RewardModel(INPUTS, REWARDS, noise=0.02, doubt=1.0)
    points = RNG.standard_normal((5, 3))
    np.testing.assert_array_equal(again.root(points), model.root(points))


def test_the_noise_is_what_repeats_say():
    """One theta three times, .16 to .36: sure of a small noise it believes them, else not."""
    inputs = np.concatenate([INPUTS, np.zeros((3, 3))])
    rewards = np.concatenate([REWARDS, [0.16, 0.25, 0.36]])
    sure = RewardModel(inputs, rewards, noise=0.1, doubt=0.1)
    unsure = RewardModel(inputs, rewards, noise=0.001, doubt=3.0)
    for model in (sure, unsure):
        # Deviation of .4, .5, .6: .1; the other trials agree with less.
        found = np.sqrt(model._model.likelihood.noise.item()) * np.sqrt(rewards).std()
        assert 0.02 < found < 0.12


def test_points_that_are_nearly_one_can_be_sampled(model):
    points = np.zeros((300, 3)) + 1e-9 * RNG.standard_normal((300, 3))
    values = model.sample(points, RNG.standard_normal(300))
    assert np.isfinite(values).all()
    # Jitter alone keeps them apart: a thousandth of the spread of sqrt(reward).
    assert values.std() < 0.002 * np.sqrt(REWARDS).std()


def test_rewards_of_zero_are_no_trouble():
    rewards = np.where(np.arange(12) % 2, REWARDS, 0.0)
    assert np.isfinite(RewardModel(INPUTS, rewards, noise=0.01, doubt=1.0).root(INPUTS)).all()
