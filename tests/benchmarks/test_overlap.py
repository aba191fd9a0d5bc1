"""The schedule that benchmarks/overlap.py plays through."""

import numpy as np

from benchmarks.overlap import makespan


def test_rounds_wait_for_their_slowest_trial():
    # 3 + 4: in both rounds the slow one.
    assert makespan(np.array([[1.0, 3.0], [4.0, 1.0]]), overlap=0, slots=2) == 7


def test_a_sample_ahead_takes_the_slot_that_would_idle():
    # At 1 the free slot begins (1, 0), which takes 4; at 3 the round is over, (1, 1) ends at 4.
    assert makespan(np.array([[1.0, 3.0], [4.0, 1.0]]), overlap=1, slots=2) == 5


def test_without_enough_slots_trials_queue():
    assert makespan(np.array([[1.0, 1.0, 1.0]]), overlap=0, slots=2) == 2
    assert makespan(np.ones((2, 3)), overlap=1, slots=2) == 3  # six trials, never a slot idle
