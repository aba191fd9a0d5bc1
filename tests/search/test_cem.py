"""CEM: its update by hand, where its elites come from, and what it finds."""

import numpy as np
import pytest

from search.cem import CEM, cem_update
from search.config import AlgorithmConfig
from search.space import SearchSpace

SPACE = SearchSpace(("a", "b"), (0.3, 0.6))


def config(**settings):
    return AlgorithmConfig(**{"type": "cem", "rounds": 8, "samples": 4} | settings)


def test_an_update_goes_part_of_the_way_to_the_elites():
    mean, std = np.array([0.5, 0.2]), np.array([0.1, 0.1])
    elites = np.array([[0.6, 0.3], [0.8, 0.3]])  # mean .7 and .3, deviation .1 and 0
    new_mean, new_std = cem_update(mean, std, elites, smoothing=0.25, floor=np.array([0.01, 0.09]))
    np.testing.assert_allclose(new_mean, [0.5 + 0.25 * 0.2, 0.2 + 0.25 * 0.1])
    np.testing.assert_allclose(new_std, [0.1, 0.09])  # .1 + .25 * 0; .075 is below the floor


def test_elites_are_the_best_quarter_of_the_last_three_rounds(monkeypatch):
    monkeypatch.setattr(CEM, "SMOOTHING", 1.0)
    search = CEM(SPACE, config(), 0)
    asked = []
    for rewards in ([0.9, 0.9, 0.9, 0.9], [0.1, 0.4, 0.2, 0.1], [0.3, 0.1, 0.1, 0.1]):
        asked.append(search.ask())
        search.tell(rewards)
    np.testing.assert_allclose(search.best_guess(), asked[0][:3].mean(0))  # 3 of 12, first of ties
    asked.append(search.ask())
    search.tell([0.2, np.nan, 0.1, 0.5])  # the first round is out of the window: 3 of 11
    elites = [asked[3][3], asked[1][1], asked[2][0]]
    np.testing.assert_allclose(search.policy()[0], np.mean(elites, axis=0))
    floor = CEM.FLOOR * CEM.SIGMA
    np.testing.assert_allclose(search.policy()[1], np.maximum(np.std(elites, axis=0), floor))


def test_a_round_of_failures_leaves_the_policy_and_the_window():
    search = CEM(SPACE, config(), 0)
    search.tell([0.1, 0.2, 0.3, 0.4])
    before = search.policy()
    search.tell([np.nan] * 4)
    np.testing.assert_array_equal(search.policy(), before)


def test_the_start_is_no_elite():
    """Its repeats are one point: as elites they would take all spread from the policy."""
    told, plain = CEM(SPACE, config(), 0), CEM(SPACE, config(), 0)
    told.tell_start([1.0, 1.0, 1.0])
    for search in (told, plain):
        search.tell([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(told.policy(), plain.policy())


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_a_target(seed):
    """The mean distance to a target .3 away in each of 10 coordinates, halved at least."""
    target = np.where(np.arange(10) % 2, 0.8, 0.2)
    space = SearchSpace(tuple(f"x{i}" for i in range(10)), (0.5,) * 10)
    search = CEM(space, config(rounds=20, samples=8), seed)
    while not search.finished:
        search.tell(1 - abs(search.ask() - target).mean(axis=1))
    assert 1 - abs(search.best_guess() - target).mean() > 0.85
