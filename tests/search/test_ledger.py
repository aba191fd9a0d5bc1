"""Assignments and records, with real files."""

import math

import pytest

from search.journal import Journal, TrialKey
from search.ledger import Assignment, Ledger

A, B, FINAL = TrialKey("search", 0, 0, 0), TrialKey("search", 0, 1, 0), TrialKey("final", 0, 0, 0)


def assignment(key, theta=(0.25, 0.5)):
    return Assignment(key, theta, 1, str(key))


def record(key, theta=(0.25, 0.5), status="ok", reward=0.5):
    theta = None if theta is None else list(theta)
    return {**key._asdict(), "theta": theta, "status": status, "reward": reward}


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(Journal(tmp_path))
    ledger.assign(assignment(FINAL))
    ledger.assign(assignment(A))
    return ledger


def test_open_trials_and_records_are_in_the_order_of_their_assignment(ledger):
    assert [a.key for a in ledger.open] == [FINAL, A]
    ledger.write(record(A))
    assert [a.key for a in ledger.open] == [FINAL]
    ledger.write(record(FINAL))
    assert not ledger.open
    assert [TrialKey.of(r) for r in ledger.records] == [FINAL, A]


def test_a_trial_is_awaited_from_its_assignment_to_its_record(ledger):
    assert not ledger.awaits(B)
    ledger.assign(assignment(B))
    assert ledger.awaits(B)
    ledger.write(record(B))
    assert not ledger.awaits(B)
    assert B in ledger
    assert ledger.get(B) == ledger[B] == assignment(B)


def test_keys_by_phase_and_whether_all_are_known(ledger):
    assert ledger.keys("search") == [A]
    assert not ledger.all_known([A])
    ledger.write(record(A))
    assert ledger.all_known([A])
    assert not ledger.all_known([A, FINAL])
    assert ledger.all_known([])


def test_a_failed_trial_has_no_reward_but_a_record(ledger):
    ledger.write(record(A, reward=0.125))
    ledger.write(record(FINAL, status="failed", reward=None))
    assert ledger.reward(A) == 0.125
    assert math.isnan(ledger.reward(FINAL))
    assert [TrialKey.of(r) for r in ledger.failures([A, FINAL])] == [FINAL]


def test_a_record_is_on_storage_before_it_counts(ledger, tmp_path):
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="journal"):
        ledger.write(record(A))
    assert ledger.awaits(A)


def test_what_was_on_storage_waits_for_its_assignment_and_is_given_once(tmp_path):
    Journal(tmp_path).write(record(A))
    ledger = Ledger(Journal(tmp_path))
    assert ledger.take_ready() == []
    ledger.assign(assignment(A))
    assert ledger.take_ready() == [record(A)]
    assert ledger.take_ready() == []


@pytest.mark.parametrize("theta", [(0.25, 0.75), None])
def test_a_record_of_another_theta_is_no_record_of_this_trial(tmp_path, theta):
    Journal(tmp_path).write(record(A))
    ledger = Ledger(Journal(tmp_path))
    ledger.assign(assignment(A, theta))
    assert ledger.take_ready() == []
    assert ledger.awaits(A)


def test_a_baseline_has_no_theta(tmp_path):
    Journal(tmp_path).write(record(A, None))
    ledger = Ledger(Journal(tmp_path))
    ledger.assign(assignment(A, None))
    assert ledger.take_ready() == [record(A, None)]


def test_what_is_taken_back_is_open_again_here_and_on_storage(ledger, tmp_path):
    ledger.write(record(A))
    ledger.write(record(FINAL))
    ledger.take_back([A])
    assert [a.key for a in ledger.open] == [A]
    assert list(Journal(tmp_path).records()) == [record(FINAL)]
