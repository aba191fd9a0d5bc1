"""CMA-ES: what it hands to the library, and what it makes of samples that are not its own."""

import numpy as np
import pytest
from cmaes import CMA

from search.cma_es import CMAES, pull_in
from search.config import AlgorithmConfig
from search.seeds import Draw
from search.space import SearchSpace

SPACE = SearchSpace(("a", "b", "c"), (0.3, 0.6, 0.5), spread=(0.1, 0.05, 0.2))


def config(**settings):
    return AlgorithmConfig(**{"type": "cma-es", "rounds": 6, "samples": 6} | settings)


def library(samples=6):
    sigma = np.sqrt((0.01 + 0.0025 + 0.04) / 3)  # of the three spreads, in the mean of squares
    covariance = np.diag(np.array([0.01, 0.0025, 0.04]) / sigma**2)
    bounds = np.array([[0.0, 1.0]] * 3)
    mean = np.array(SPACE.start)
    return CMA(mean=mean, sigma=sigma, cov=covariance, bounds=bounds, population_size=samples)


def test_it_is_the_library_with_a_seed_for_each_sample():
    search, cma = CMAES(SPACE, config(), 7), library()
    for round in range(3):
        expected = []
        for slot in range(6):
            cma.reseed_rng(Draw(7, round, slot).integer())
            expected.append(cma.ask())
        np.testing.assert_allclose(search.ask(), expected, rtol=0, atol=1e-12)
        rewards = np.sin(10 * np.sum(expected, axis=1)) / 2 + 0.5
        search.tell(rewards)
        cma.tell([(theta, -reward) for theta, reward in zip(expected, rewards, strict=True)])
        np.testing.assert_allclose(search.best_guess(), cma.mean, rtol=0, atol=1e-12)
    spread = cma._sigma * np.sqrt(np.diag(cma._C))
    np.testing.assert_allclose(search.policy()[1], spread, rtol=1e-9)


def test_the_first_spread_is_the_spaces():
    np.testing.assert_allclose(CMAES(SPACE, config(), 0).policy()[1], SPACE.spread)
    plain = SearchSpace(("a", "b"), (0.3, 0.6))
    np.testing.assert_allclose(CMAES(plain, config(sigma=0.07), 0).policy()[1], 0.07)


def test_a_failed_sample_is_replaced_by_the_mean_at_the_median_reward():
    search, cma = CMAES(SPACE, config(), 7), library()
    thetas = search.ask()
    search.tell([0.1, np.nan, 0.4, 0.2, np.nan, 0.3])
    start = np.array(SPACE.start)
    points = [thetas[0], start, thetas[2], thetas[3], start, thetas[5]]
    cma.tell(list(zip(points, [-0.1, -0.25, -0.4, -0.2, -0.25, -0.3], strict=True)))
    np.testing.assert_allclose(search.best_guess(), cma.mean, rtol=0, atol=1e-12)


def test_points_beyond_reach_are_pulled_in_along_their_line():
    covariance = np.diag([0.04, 0.01])
    mean = np.array([0.5, 0.5])
    reach = 2**0.5 + 2 * 2 / (2 + 2)  # 2.414 standard deviations
    near, far = [0.5 + 0.2 * 2.4, 0.5], [0.5, 0.5 + 0.1 * 4.8]
    pulled = pull_in(np.array([near, far]), mean, covariance)
    np.testing.assert_allclose(pulled, [near, [0.5, 0.5 + 0.1 * reach]])


def test_samples_of_the_last_distribution_are_pulled_in():
    """The second round by hand: two of its six samples are of the first distribution."""
    search, cma = CMAES(SPACE, config(overlap=2), 7), library()
    first = search.ask()
    rewards = [0.1, 0.5, 0.4, 0.2, 0.6, 0.3]
    search.tell(rewards)
    cma.tell([(theta, -reward) for theta, reward in zip(first, rewards, strict=True)])
    thetas = search.ask()
    search.tell(rewards)
    covariance = cma._sigma**2 * cma._C
    thetas[:2] = pull_in(thetas[:2], cma.mean, covariance)
    cma.tell([(theta, -reward) for theta, reward in zip(thetas, rewards, strict=True)])
    np.testing.assert_allclose(search.best_guess(), cma.mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_a_target(seed):
    """The mean distance to a target .3 away in each of 10 coordinates, halved at least."""
    target = np.where(np.arange(10) % 2, 0.8, 0.2)
    space = SearchSpace(tuple(f"x{i}" for i in range(10)), (0.5,) * 10)
    search = CMAES(space, config(rounds=40, samples=8), seed)
    while not search.finished:
        search.tell(1 - abs(search.ask() - target).mean(axis=1))
    assert 1 - abs(search.best_guess() - target).mean() > 0.85
