"""Turbo: what it takes from rewards, what it draws, and what it finds."""

import numpy as np
import pytest

from search.config import AlgorithmConfig
from search.space import SearchSpace
from search.turbo import Turbo

NAMES = tuple("abcdef")
SPACE = SearchSpace(NAMES, (0.5,) * 6)


def build(space=SPACE, seed=3, **settings):
    config = AlgorithmConfig(**{"type": "turbo", "rounds": 5, "samples": 8} | settings)
    return Turbo(space, config, seed)


def smooth(thetas):
    """.25 at .6 in every coordinate, less around it."""
    return np.clip(0.25 - ((thetas - 0.6) ** 2).sum(axis=1), 0, 1)


def test_the_best_guess_is_a_tried_theta_that_its_neighbours_vouch_for():
    """A reward of .3 among neighbours of .1 was luck; .25 among neighbours of .2 was not."""
    search = build(samples=12)
    near_a, near_b = np.full((6, 6), 0.3), np.full((6, 6), 0.7)
    for near in (near_a, near_b):
        near[1:, :5] += 0.02 * np.eye(5)
    search._learn(
        np.concatenate([near_a, near_b]), np.array([0.3] + [0.1] * 5 + [0.25] + [0.2] * 5)
    )
    np.testing.assert_array_equal(search.best_guess(), near_b[0])
    lucky, sound = search.predict(search.best_guess()[None] * [[0.3 / 0.7], [1.0]])
    assert lucky < 0.2 < sound < 0.25


def test_the_starts_repeats_say_how_noisy_rewards_are():
    """In square roots: .4 and .5, so squares of .05 twice, and NOISE^2 as of two more trials."""
    search = build()
    assert search._noise() == pytest.approx((Turbo.NOISE, 1.0))
    search._learn_start(np.array([0.16, 0.25]))
    expected = np.sqrt((2 * Turbo.NOISE**2 + 2 * 0.05**2) / 3)
    assert search._noise() == pytest.approx((expected, np.sqrt(2 / 3)))


def test_the_model_sees_the_features():
    """Rewards are |a - .5|: with that as the only feature, eight trials say it all."""

    def fold(thetas):
        return abs(thetas[:, :1] - 0.5)

    folded = build(SearchSpace(NAMES, (0.5,) * 6, features=fold), sigma=0.3)
    folded.tell(abs(folded.ask()[:, 0] - 0.5))
    thetas = np.random.default_rng(0).random((50, 6))
    thetas[:, 0] = 0.6 + 0.2 * thetas[:, 0]
    predicted = folded.predict(thetas)
    np.testing.assert_allclose(predicted, abs(thetas[:, 0] - 0.5), atol=0.03)
    mirrored = thetas * [-1, 1, 1, 1, 1, 1] + [1, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(folded.predict(mirrored), predicted, atol=1e-9)


def test_a_candidate_moves_some_coordinates_of_the_best_or_all_of_the_start(monkeypatch):
    monkeypatch.setattr(Turbo, "MOVED", 2)
    search = build()
    search.tell(smooth(search.ask()))
    candidates = search._candidates(np.random.default_rng(0))
    wide = round(Turbo.WIDE * Turbo.CANDIDATES)
    moved = candidates[wide:] != search.best_guess()
    # Each of 6 with chance 1/3: within 5 standard errors of that.
    assert moved.mean() == pytest.approx(1 / 3, abs=5 * (2 / 9 / moved.size) ** 0.5)
    assert (candidates[:wide] != SPACE.start).all()
    np.testing.assert_allclose(candidates[:wide].mean(axis=0), 0.5, atol=5 * 0.15 / wide**0.5)


def test_the_region_shrinks_in_rounds_that_find_nothing_better(monkeypatch):
    monkeypatch.setattr(Turbo, "SHORTEST", 0.6)
    search = build(rounds=20, samples=2)
    lengths = []
    rounds = ([0.1, 0.2], [0.1, 0.3], [0.3, 0.1], [0.2, 0.1], [np.nan, 0.4], [0.1, 0.2])
    for rewards in rounds:
        search.tell(rewards)
        lengths.append(search.policy()[1][0] / Turbo.SIGMA)
    np.testing.assert_allclose(lengths, [1, 1, 0.8, 0.64, 0.64, 0.6])


def test_of_many_trials_it_learns_from_those_near_the_best(monkeypatch):
    monkeypatch.setattr(Turbo, "MOST", 10)
    near, far = build(), build()
    thetas = np.random.default_rng(0).random((30, 6))
    rewards = smooth(thetas)
    best = thetas[np.argmax(rewards)]
    order = np.argsort(np.linalg.norm((thetas - best) / near._scaling[1], axis=1))
    far._learn(thetas, rewards)
    inside = np.sort(order[:10])
    near._learn(thetas[inside], rewards[inside])
    np.testing.assert_allclose(far.predict(thetas), near.predict(thetas), atol=1e-9)
    np.testing.assert_array_equal(far.state_dict()["learned"]["thetas"], thetas)


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_the_top_under_noise(seed):
    """40 trials in 6 dimensions: from .19 at the start to .24 of .25."""
    search, noise = build(seed=seed), np.random.default_rng(seed)
    search.tell_start([0.18, 0.2, 0.19])
    while not search.finished:
        rewards = smooth(search.ask()) + 0.01 * noise.standard_normal(8)
        search.tell(np.clip(rewards, 0, 1))
    assert smooth(search.best_guess()[None])[0] > 0.24
