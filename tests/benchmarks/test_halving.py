"""Halving at equal cost: against what is known of the best of n uniform draws."""

import numpy as np
import pytest

from benchmarks.halving import best_of, halving_table, samples_of

REWARDS = np.arange(100) / 100


@pytest.mark.parametrize(("budget", "cost", "factor", "count"), [
    (8, 0.0, 1, 8), (8, 0.5, 2, 8), (16, 0.25, 4, 32), (8, 0.3, 4, 14),
])  # fmt: skip
def test_so_many_samples_cost_the_budget(budget, cost, factor, count):
    assert samples_of(budget, cost, factor) == count
    assert count * (cost + 1 / factor) <= budget < (count + 1) * (cost + 1 / factor)


def best_of_uniform(n):
    """E max of n draws from 0, .01, ..., .99: 1 - sum of P(max <= k/100) / 100."""
    return 1 - sum((k / 100) ** n for k in range(1, 101)) / 100


def test_a_perfect_cheap_trial_makes_it_the_best_of_all_samples():
    for count in (4, 8, 16):
        found = best_of(REWARDS, REWARDS, REWARDS, count, 4)
        assert found == pytest.approx(best_of_uniform(count), abs=0.015)


def test_one_that_says_nothing_leaves_the_best_of_those_in_full():
    nothing = np.zeros(100)
    found = best_of(REWARDS, REWARDS, nothing, 16, 4)
    assert found == pytest.approx(best_of_uniform(4), abs=0.015)


def test_what_the_best_is_worth_is_not_what_it_was_chosen_by():
    luck, worth = np.random.default_rng(0).random((2, 5000))
    assert best_of(luck, worth, luck, 8, 1) == pytest.approx(0.5, abs=0.05)


def test_the_table_has_a_line_for_every_fidelity_and_factor():
    lines = halving_table(REWARDS, REWARDS, {"cheap": REWARDS}, {"cheap": 0.25}).splitlines()
    assert len(lines) == 2 + 1 + 2
    assert lines[-1].startswith("| cheap first, one in 4 in full | ")
    assert lines[-1].count("(16)") == 1 and lines[2].count("(8)") == 1
