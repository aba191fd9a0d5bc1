"""Machines that come and go, told in a line; the machines asked for are given back."""

import pytest
from ray.tune import Callback

from search.config import ResourcesConfig
from search.run import machines
from search.run.machines import MachineWatch


class Listener:
    def __init__(self):
        self.texts, self.seen = [], []

    def note(self, text):
        self.texts.append(text)

    def nodes(self, nodes, slots):
        self.seen.append(([node.address for node in nodes], slots))


class FakeCluster:
    """`search.run.cluster.Cluster`, with its answers given."""

    def __init__(self, addresses, slots, autoscaling=False):
        self.resources = ResourcesConfig(autoscaling=autoscaling, gpus_per_trial=0)
        self.asked = []
        self.become(addresses, slots)

    def become(self, addresses, slots, came=(), went=()):
        self.nodes = [
            {"NodeManagerAddress": address, "Resources": {"CPU": 2.0}} for address in addresses
        ]
        self.slots = slots
        self.change = (set(came), set(went))

    def look(self):
        change, self.change = self.change, (set(), set())
        return change

    def ask_for(self, trials):
        self.asked.append(trials)


@pytest.fixture(autouse=True)
def look_always(monkeypatch):
    monkeypatch.setattr(machines, "_LOOK_SECONDS", 0.0)


def step(watch):
    watch.on_step_end(iteration=0, trials=[])


def become_at_look(cluster, *state, **change):
    """As with the real one, the change and the new slots are known once it has looked."""
    look = cluster.look

    def first_look():
        cluster.look = look
        cluster.become(*state, **change)
        return look()

    cluster.look = first_look


def test_what_is_there_is_told_at_first():
    listener = Listener()
    watch = MachineWatch(FakeCluster(["a", "b"], 4), listener, trials=8)
    assert isinstance(watch, Callback)
    watch.setup()
    step(watch)
    assert listener.seen == [(["a", "b"], 4)]
    assert listener.texts == []


def test_a_machine_that_is_lost_takes_one_line():
    listener, cluster = Listener(), FakeCluster(["a", "b"], 4)
    watch = MachineWatch(cluster, listener, trials=8)
    watch.setup()
    become_at_look(cluster, ["a"], 2, went=["b"])
    step(watch)
    step(watch)
    assert listener.texts == ["machine b lost: 2 trials side by side now, 4 before"]
    assert listener.seen[-1] == (["a"], 2)


def test_a_machine_without_room_for_trials_is_not_worth_a_line():
    listener, cluster = Listener(), FakeCluster(["a"], 2)
    watch = MachineWatch(cluster, listener, trials=8)
    become_at_look(cluster, ["a", "head"], 2, came=["head"])
    step(watch)
    assert listener.texts == []
    assert listener.seen == [(["a", "head"], 2)]


def test_many_machines_are_not_listed():
    listener, cluster = Listener(), FakeCluster(["z"], 1)
    watch = MachineWatch(cluster, listener, trials=8)
    become_at_look(cluster, list("abcde"), 5, came="abcde", went=["z"])
    step(watch)
    [text] = listener.texts
    assert text.startswith("machine z lost and 5 machines (a, b, c, ...) joined: 5 trials")


def test_machines_on_demand_are_waited_for_in_one_line_and_given_back():
    listener, cluster = Listener(), FakeCluster([], 0, autoscaling=True)
    watch = MachineWatch(cluster, listener, trials=8)
    watch.setup()
    [text] = listener.texts
    assert text == (
        "waiting for machines: the cluster was asked for room for 8 trials, and none fits so far; "
        "a trial asks for 1 CPUs and 0 GPUs on one node"
    )
    step(watch)
    assert cluster.asked == [8]
    cluster.become(["a"], 8, came=["a"])
    step(watch)
    step(watch)
    assert cluster.asked == [8, 0]


def test_machines_are_given_back_when_a_trial_has_ended_on_fewer():
    cluster = FakeCluster(["a"], 2, autoscaling=True)
    watch = MachineWatch(cluster, Listener(), trials=8)
    watch.setup()
    watch.on_trial_complete(iteration=0, trials=[], trial=None)
    watch.on_trial_complete(iteration=0, trials=[], trial=None)
    assert cluster.asked == [8, 0]


def test_a_cluster_that_does_not_grow_is_asked_for_nothing():
    listener, cluster = Listener(), FakeCluster(["a"], 2)
    watch = MachineWatch(cluster, listener, trials=8)
    watch.setup()
    watch.on_trial_complete(iteration=0, trials=[], trial=None)
    assert cluster.asked == listener.texts == []


def test_a_listener_that_fails_does_not_end_the_search():
    cluster = FakeCluster(["a"], 2)
    watch = MachineWatch(cluster, object(), trials=8)
    watch.setup()
    become_at_look(cluster, [], 0, went=["a"])
    step(watch)
