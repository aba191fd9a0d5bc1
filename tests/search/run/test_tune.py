"""What is settled with Ray before and around a session, as far as no cluster is needed."""

from search.config import SearchConfig
from search.run.tune import _Listeners, most_at_once


def config(**changes):
    return SearchConfig(name="toy", **changes)


def test_all_that_is_open_can_be_given_to_tune():
    # Baseline and start with 3 seeds each, and a round of 8.
    assert most_at_once(config()) == 3 + 3 + 8
    assert most_at_once(config(algorithm={"overlap": 2})) == 3 + 3 + 8 + 2
    # A final race of 10 candidates with 3 seeds each.
    assert most_at_once(config(final={"candidates": 10})) == 30


def test_machines_are_added_for_a_round():
    assert most_at_once(config(resources={"autoscaling": True, "gpus_per_trial": 0})) == 8


def test_a_listener_that_fails_takes_nothing_from_the_others():
    told = []

    class Broken:
        def note(self, text):
            raise OSError("terminal gone")

    class Whole:
        def note(self, text):
            told.append(text)

    everyone = _Listeners(Broken(), Whole(), object())  # the last has no such event
    everyone.note("a")
    everyone.note("b")
    assert told == ["a", "b"]
