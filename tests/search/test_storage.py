"""How long failing storage is tried again."""

import pytest

from search.storage import StorageTrouble


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def trouble(clock, told):
    return StorageTrouble(10, told.append, clock)


def test_storage_that_works_needs_no_word(trouble, told):
    trouble.works()
    assert not trouble.waits and trouble.problem is None and told == []


def test_a_period_is_told_once_and_ends_with_a_write(trouble, clock, told):
    for _ in range(5):
        trouble.failed("cannot write x: No space left on device")
        assert trouble.waits
        clock.now += 60
        assert not trouble.waits
    trouble.works()
    assert told == [
        "cannot write x: No space left on device; trying again for 10 minutes",
        "storage can be written again, after 300 s",
    ]
    assert trouble.problem is None


def test_it_ends_after_its_minutes(trouble, clock):
    trouble.failed("cannot write x: Read-only file system")
    for _ in range(10):
        assert trouble.problem is None
        clock.now += 60
        trouble.failed("cannot write x: Read-only file system")
    assert "cannot write x: Read-only file system, for 10 minutes" in trouble.problem
    trouble.works()
    assert trouble.problem is None


def test_failures_far_from_each_other_are_periods_of_their_own_but_not_for_ever(trouble, clock):
    """As of trials of an hour, each of which cannot write its end."""
    for _ in range(3):
        trouble.failed("cannot write x")
        assert trouble.problem is None
        clock.now += 3600
    trouble.failed("cannot write x")
    assert trouble.problem is not None


def test_none_of_it_where_no_minutes_are_given(clock, told):
    trouble = StorageTrouble(0, told.append, clock)
    trouble.failed("cannot write x")
    assert trouble.problem is not None
