"""Which trial is next and how many idle actors are kept; a real Tune: tests/service/test_on_demand.

A controller of Tune's is played by the parts of it that are used.
"""

from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

from search.run.actors import KeepActors

GROUP = "what every trial asks for"


class FakeTrial:
    """`actor`: that is being reset for it; `own`: that was asked for it."""

    def __init__(self, status, actor=None, own=None):
        self.status = status
        self.temporary_state = SimpleNamespace(ray_actor=actor)
        self.placement_group_factory = GROUP
        self.own = own


class Controller:
    def __init__(self, trials, live=()):
        self._trials = trials
        self._actor_cache = _ObjectCache(may_keep_one=True)
        self._actor_manager = SimpleNamespace(live_actors=list(live))
        self._trial_to_actor = {trial: trial.own for trial in trials if trial.own}
        waiting = {trial for trial in trials if trial.status == Trial.PENDING}
        self._resources_to_pending_trials = {GROUP: waiting}

    def get_trials(self):
        return self._trials


def scheduler(samples, last=False):
    algorithm = SimpleNamespace(finished=last)
    return KeepActors(SimpleNamespace(plan=SimpleNamespace(algorithm=algorithm)), samples)


def kept(controller):
    return controller._actor_cache.total_max_objects


@pytest.mark.parametrize(
    ("running", "waiting", "last", "most"),
    [
        # A round of 4, the first of which ends: one actor is idle while three run.
        (4, 0, False, 1),
        (2, 0, False, 3),
        (1, 0, False, 4),  # the round is over, and the next one needs them all
        (2, 2, False, 1),  # two slots, and trials that wait: Tune keeps actors for these by itself
        (8, 0, False, 0),  # baseline and start beside the round: no more than a round's are kept
        (3, 0, True, 0),  # the final race: what is idle can go
    ],
)
def test_as_many_actors_are_kept_as_a_round_needs(running, waiting, last, most):
    trials = [FakeTrial(Trial.RUNNING) for _ in range(running)]
    trials += [FakeTrial(Trial.PENDING) for _ in range(waiting)]
    trials.append(FakeTrial(Trial.TERMINATED))
    controller = Controller(trials)
    keeper = scheduler(4, last)
    keeper.on_trial_complete(controller, trials[0], None)
    assert kept(controller) == most
    keeper.on_trial_complete(controller, trials[0], None)  # it is set, and not added up
    assert kept(controller) == most


def test_idle_actors_go_when_the_race_begins():
    trials = [FakeTrial(Trial.RUNNING) for _ in range(2)]
    controller, keeper = Controller(trials), scheduler(4)
    keeper.on_trial_complete(controller, trials[0], None)
    assert kept(controller) == 3
    keeper._searcher.plan.algorithm.finished = True
    keeper.on_trial_complete(controller, trials[0], None)
    assert kept(controller) == 0


def test_the_first_that_waits_is_next():
    trials = [
        FakeTrial(Trial.TERMINATED),
        FakeTrial(Trial.RUNNING, actor="a"),
        FakeTrial(Trial.PENDING, actor="b"),  # its actor is being reset
        FakeTrial(Trial.PENDING),
        FakeTrial(Trial.PENDING),
    ]
    assert scheduler(4).choose_trial_to_run(Controller(trials)) is trials[3]
    assert scheduler(4).choose_trial_to_run(Controller(trials[:3])) is None


def test_a_trial_whose_actor_is_starting_is_left_to_it():
    done = FakeTrial(Trial.RUNNING, actor="a", own="a")
    starting = FakeTrial(Trial.PENDING, own="b")
    queued = FakeTrial(Trial.PENDING, own="c")
    controller = Controller([done, starting, queued], live=["a", "b"])
    keeper = scheduler(4)
    keeper.on_trial_complete(controller, done, None)
    assert keeper.choose_trial_to_run(controller) is queued
    # Tune would give the idle actor to any of these.
    assert controller._resources_to_pending_trials[GROUP] == {queued}


def test_a_tune_without_these_private_parts_does_as_it_likes():
    trials = [FakeTrial(Trial.RUNNING), FakeTrial(Trial.PENDING)]
    controller = SimpleNamespace(get_trials=lambda: trials)
    keeper = scheduler(4)
    keeper.on_trial_complete(controller, trials[0], None)
    assert keeper.choose_trial_to_run(controller) is trials[1]
