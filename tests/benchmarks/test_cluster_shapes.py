"""What the rounds allow, by hand; and the made-up trials."""

import numpy as np
import pytest

from benchmarks.cluster_shapes import Shape, duration, ideal, outcome, round_ends
from search.config import SearchConfig
from search.journal import Journal, TrialKey
from search.plan import Plan
from search.space import SearchSpace


def plan_in(folder, *, rounds, samples, repeats=1, candidates=1, overlap=0):
    config = SearchConfig(
        name="toy",
        algorithm={"rounds": rounds, "samples": samples, "overlap": overlap, "steps": 2},
        final={"candidates": candidates, "repeats": repeats},
    )
    return Plan(SearchSpace(("x",), (0.5,)), config, Journal(folder), "baseline")


def wall(ends):
    return max(ends.values())


@pytest.mark.parametrize(
    ("slots", "seconds"),
    [
        # baseline, start, 3 rounds of 2 and a final trial, of one second each
        (1, 2 + 6 + 1),
        (2, 1 + 3 + 1),
        (4, 3 + 1),  # baseline and start beside the first round
        (64, 3 + 1),
    ],
)
def test_equal_trials(tmp_path, slots, seconds):
    plan = plan_in(tmp_path, rounds=3, samples=2)
    ends = ideal(plan, slots, lambda a: 1.0)
    assert len(ends) == plan.total_trials == 9
    assert wall(ends) == seconds


def test_a_round_waits_for_its_straggler(tmp_path):
    # With room for all: rounds of 1, of 5 (the straggler) and of 1, then the race.
    plan = plan_in(tmp_path, rounds=3, samples=2)
    slow = TrialKey("search", 1, 0, 0)
    ends = ideal(plan, 8, lambda a: 5.0 if a.key == slow else 1.0)
    assert round_ends(ends) == [1, 6, 7]
    assert wall(ends) == 8


def test_overlap_fills_the_slot_that_would_idle(tmp_path):
    # Two slots: baseline and start to 1; then round 0 to 2 in one slot and to 6 in the other. The
    # free slot takes a sample of round 1 meanwhile, so that one more trial of a second ends it.
    slow = TrialKey("search", 0, 0, 0)
    plan = plan_in(tmp_path, rounds=2, samples=2, overlap=1)
    ends = ideal(plan, 2, lambda a: 5.0 if a.key == slow else 1.0)
    assert ends[TrialKey("search", 1, 0, 0)] == 3
    assert round_ends(ends) == [6, 7]


def test_slots_are_filled_in_the_plans_order(tmp_path):
    # 3 + 3 baselines and starts of 2 s on 4 slots, then 4 samples: 2, 4 | 2 of them by 4, 2 by 6.
    plan = plan_in(tmp_path, rounds=1, samples=4, repeats=3)
    ends = ideal(plan, 4, lambda a: 2.0)
    of_round = sorted(end for key, end in ends.items() if key.phase == "search")
    assert of_round == [4, 4, 6, 6]


def test_durations_are_the_keys_alone():
    keys = [("search", r, s, 0) for r in range(40) for s in range(50)]
    seconds = np.array([duration(key, 3.0) for key in keys])
    assert duration(keys[7], 3.0) == seconds[7]
    assert duration(keys[7], 6.0) == 2 * seconds[7]
    assert len(set(seconds)) == len(keys)
    # Median 3; a twentieth of the trials at twice that moves it by little.
    assert 2.9 < np.median(seconds) < 3.2
    assert 0.02 < np.mean(seconds > 5.2) < 0.08


def test_outcomes_are_rewards():
    assert outcome([0.6] * 5, seed=1)["reward"] == outcome([0.6] * 5, seed=1)["reward"]
    assert outcome([0.6] * 5, 1)["reward"] > outcome([0.0] * 5, 1)["reward"]
    assert 0 <= outcome(None, 3)["reward"] <= 1


def test_the_delay_of_a_round_and_what_it_is_to_long_trials():
    shape = Shape(
        slots=8, trials=338, rounds=11, wall=30.0, allowed=20.0, first=5.0, steady=(15.0, 10.0),
        busy=100.0, cpu=(1.0, 2.0), memory=(1.0, 2.0),
    )  # fmt: skip
    assert shape.delay == 0.5  # 5 seconds in 10 rounds
    assert shape.ratio_at(1) == 10 / 15
    assert shape.ratio_at(100) == 1000 / 1005
