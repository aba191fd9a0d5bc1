"""Who is trained in full after a rung, and what the others count for."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.rungs import Line, fit, pairs_of, promoted, rewards_of_round

NAN = math.nan


def test_the_best_go_on_in_the_order_of_their_slots():
    assert promoted([0.1, 0.4, 0.2, 0.3], 2) == [1, 3]
    assert promoted([0.1, 0.4, 0.2, 0.3], 4) == [0, 1, 2, 3]


def test_equal_ones_go_on_by_slot_and_failed_ones_last():
    assert promoted([0.0, 0.0, 0.0, 0.1], 2) == [0, 3]
    assert promoted([NAN, 0.0, NAN, 0.1], 2) == [1, 3]
    assert promoted([NAN, NAN, 0.0, NAN], 2) == [0, 2]


@pytest.mark.parametrize("count", [0, 3])
def test_as_many_as_there_are(count):
    with pytest.raises(ValueError, match="of 2 trials of a rung; expected 1 to 2"):
        promoted([0.1, 0.2], count)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1) | st.just(NAN), min_size=1, max_size=12), st.integers(1, 12))
def test_nobody_stays_behind_who_is_better(cheap, count):
    count = min(count, len(cheap))
    chosen = promoted(cheap, count)
    assert len(set(chosen)) == count
    left = [x for slot, x in enumerate(cheap) if slot not in chosen and not math.isnan(x)]
    taken = [x for slot, x in enumerate(cheap) if slot in chosen]
    if left:
        assert not any(math.isnan(x) for x in taken)
        assert min(taken) >= max(left)


def record(phase, round, slot, reward, status="ok"):
    return {"phase": phase, "round": round, "slot": slot, "reward": reward, "status": status}


def test_pairs_are_of_places_that_have_both():
    records = [
        record("search", 0, 1, 0.3),
        record("rung", 0, 0, 0.1),
        record("rung", 0, 1, 0.2),
        record("rung", 1, 0, 0.0, "diverged"),
        record("search", 1, 0, 0.1),
        record("rung", 1, 1, 0.2),
        record("search", 1, 1, None, "failed"),
        record("rung", 1, 2, 0.2),
        record("search", 1, 2, 0.05, "stopped"),
        record("final", 0, 0, 0.9),
        record("rung", 2, 0, 0.5),
        record("search", 2, 0, 0.5),
    ]
    assert pairs_of(records, 2) == [(0.2, 0.3), (0.0, 0.1)]
    assert pairs_of(records, 2) == pairs_of(records[::-1], 2)
    assert pairs_of(records, 0) == []


def test_the_line_of_least_squares():
    rng = np.random.default_rng(0)
    cheap = rng.random(20)
    full = 0.1 + 0.5 * cheap + 0.05 * rng.standard_normal(20)
    slope, intercept = np.polyfit(cheap, full, 1)
    line = fit(list(zip(cheap, full, strict=True)))
    assert line == Line(pytest.approx(slope), pytest.approx(intercept), 20)


def test_choosing_by_the_cheap_reward_does_not_bend_the_line():
    """Through the better half alone it expects of the others, on average, what they would get:
    exactly so where the two rewards are jointly normal."""
    rng = np.random.default_rng(1)
    theta = rng.normal(0.4, 0.1, 4000)
    cheap = theta + 0.1 * rng.standard_normal(4000)
    full = 0.8 * theta + 0.02 * rng.standard_normal(4000)
    chosen = np.zeros(4000, bool)
    for k in range(0, 4000, 16):
        chosen[[k + slot for slot in promoted(cheap[k : k + 16], 8)]] = True
    line = fit(list(zip(cheap[chosen], full[chosen], strict=True)))
    assert line is not None
    assert line(cheap[~chosen]).mean() == pytest.approx(full[~chosen].mean(), abs=0.01)
    assert full[chosen].mean() - full[~chosen].mean() > 0.08, "which is far from all alike"


def test_through_a_few_points_the_line_comes_from_the_origin():
    # The middle of (.1, .2) and (.3, .4) is (.2, .3).
    assert fit([(0.1, 0.2), (0.3, 0.4)]) == Line(pytest.approx(1.5), 0.0, 2)
    assert fit([(0.1, 0.2)] * 7) == Line(pytest.approx(2.0), 0.0, 7)
    assert fit([]) is fit([(0.0, 0.2)]) is None


def test_no_line_falls():
    flat = Line(0.0, pytest.approx(0.2), 8)
    assert fit([(0.1, 0.2)] * 8) == flat
    assert fit([(x / 10, 0.2 + (3.5 - x) / 100) for x in range(8)]) == flat


def test_what_is_expected_is_a_reward():
    line = Line(slope=2.0, intercept=-0.5, pairs=8)
    np.testing.assert_array_equal(line([0.0, 0.5, 1.0, NAN]), [0.0, 0.5, 1.0, NAN])


def test_what_a_round_counts_for():
    cheap = [0.1, 0.4, NAN, 0.3]
    full = {1: 0.9, 3: NAN}
    line = Line(slope=0.5, intercept=0.1, pairs=8)
    np.testing.assert_array_equal(rewards_of_round(cheap, full, None), [NAN, 0.9, NAN, NAN])
    np.testing.assert_allclose(rewards_of_round(cheap, full, line), [0.15, 0.9, NAN, NAN])
