"""A rehearsal: finds where a hint is high, asks as often as it says, and is a pure function."""

import numpy as np
import pytest

from search.rehearsal import rehearse
from search.space import SearchSpace

D = 12
TARGET = np.linspace(0.2, 0.8, D)
SPACE = SearchSpace(tuple(f"c{i // 3}.{i}" for i in range(D)), (0.5,) * D)


def hint(theta):
    """1 at the target, falling with the distance; asked for points of the cube alone."""
    assert theta.shape == (D,) and ((theta >= 0) & (theta <= 1)).all()
    return float(np.exp(-2 * ((theta - TARGET) ** 2).sum()))


@pytest.fixture(scope="module")
def found():
    return rehearse(SPACE, np.full(D, 0.2), hint, seed=3, count=160)


def test_it_gets_well_above_its_start_and_above_as_many_random_draws(found):
    start = hint(np.array(SPACE.start))
    generator = np.random.default_rng(0)
    random = max(hint(theta) for theta in generator.random((len(found.hints), D)))
    assert found.hints[0] > 1.5 * start
    assert found.hints[0] > random + 0.2


def test_it_knows_what_it_was_told_best_first(found):
    np.testing.assert_array_equal(found.hints, [hint(theta) for theta in found.thetas])
    assert (np.diff(found.hints) <= 0).all()
    assert any((theta == SPACE.start).all() for theta in found.thetas)


def test_its_model_guesses_hints_that_it_was_not_told(found):
    near = found.thetas[:20] + np.random.default_rng(1).normal(0, 0.02, (20, D))
    near = near.clip(0, 1)
    guessed = found.guess(SPACE.features_of(near))
    told = np.array([hint(theta) for theta in near])
    assert np.abs(guessed - told).mean() < 0.05


def test_it_is_a_function_of_its_seed():
    first, again, other = (rehearse(SPACE, np.full(D, 0.2), hint, seed, 40) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.thetas, again.thetas)
    assert not np.array_equal(first.thetas, other.thetas)


def test_a_hint_that_says_nothing_is_no_trouble():
    found = rehearse(SPACE, np.full(D, 0.2), lambda theta: 0.0, seed=0, count=20)
    assert (found.hints == 0).all()
    assert np.isfinite(found.guess(found.thetas)).all()


@pytest.mark.parametrize("count", [0, 1, 3, 41])
def test_it_asks_as_often_as_it_is_told(count):
    asked = []

    def counting(theta):
        asked.append(theta)
        return hint(theta)

    found = rehearse(SPACE, np.full(D, 0.2), counting, seed=0, count=count)
    assert len(asked) == len(found.hints) == 1 + count
