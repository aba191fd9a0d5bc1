"""How many trials fit on which nodes, and what is said where none does."""

import pytest

from paploss.errors import NotEnoughResources
from search.config import ResourcesConfig
from search.run.placement import bundle, check_resources, placement, side_by_side


def node(cpus, gpus=0.0):
    """As ray.nodes() describes one; resources that a node lacks are absent."""
    resources = {"CPU": float(cpus), "memory": 1e9, "node:10.0.0.1": 1.0}
    return resources | ({"GPU": float(gpus)} if gpus else {})


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "slots"),
    [
        (1, 0, [node(2)], 2),
        (2, 0, [node(7)], 3),
        (0.5, 0, [node(2)], 4),
        (0.1, 0, [node(0.3)], 3),  # 0.3 / 0.1 is 2.9999999999999996 in floats
        (1, 0, [node(2), node(3)], 5),
        (3, 0, [node(4), node(4)], 2),  # 8 CPUs are two trials, as a worker never spans nodes
        (1, 1, [node(16, 2)], 2),
        (8, 1, [node(16, 4)], 2),
        (1, 0.5, [node(16, 1)], 2),
        (1, 0.4, [node(16, 2)], 4),  # two on each GPU: a fifth would need parts of both
        (1, 1, [node(16), node(4, 1)], 1),  # the head node of a cluster has no GPU
    ],
)
def test_slots_of_trials_with_one_worker(cpus, gpus, nodes, slots):
    resources = ResourcesConfig(cpus_per_trial=cpus, gpus_per_trial=gpus)
    assert resources.workers == 1
    assert check_resources(resources, nodes) == slots


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "nodes", "slots"),
    [
        (2, 2, None, [node(8, 8)], 4),
        (8, 8, None, [node(64, 8)], 1),
        (16, 16, None, [node(64, 8), node(64, 8)], 1),  # one trial on two nodes
        (4, 2, None, [node(2, 8), node(8, 2)], 1),  # 1 worker of 2 CPUs + 2 workers
        (3, 3, None, [node(8, 2), node(8, 2), node(8, 2)], 2),  # the second spans all three
        (3, 3, None, [node(8, 2), node(8, 3)], 1),  # room for 5 workers, and 2 trials need 6
        (2, 0, 2, [node(1), node(1)], 1),
        (1, 0, 3, [node(1)], 1),  # three thirds of a CPU
        (2, 0, 2, [node(3), node(2)], 2),
    ],
)
def test_slots_of_trials_with_several_workers(cpus, gpus, workers, nodes, slots):
    resources = ResourcesConfig(cpus_per_trial=cpus, gpus_per_trial=gpus, workers_per_trial=workers)
    assert check_resources(resources, nodes) == slots
    assert side_by_side(resources, nodes[::-1]) == slots


def test_a_trial_asks_for_a_bundle_a_worker():
    resources = ResourcesConfig(cpus_per_trial=8, gpus_per_trial=2)
    assert bundle(resources) == {"CPU": 4, "GPU": 1}
    asked = placement(resources)
    assert asked.bundles == [{"CPU": 4, "GPU": 1}] * 2
    assert asked.strategy == "PACK"
    assert placement(ResourcesConfig()).bundles == [{"CPU": 1}]


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes"),
    [
        (64, 0, [node(2)]),
        (1, 1, [node(64)]),
        (3, 0, [node(2), node(2)]),  # 4 CPUs in all, but none of them has 3
        (4, 1, [node(8), node(2, 1)]),  # each is enough in one thing
        (1, 0, []),
    ],
)
def test_what_no_node_can_ever_give(cpus, gpus, nodes):
    resources = ResourcesConfig(cpus_per_trial=cpus, gpus_per_trial=gpus)
    with pytest.raises(NotEnoughResources, match=f"asks for {cpus} CPUs and {gpus} GPUs") as error:
        check_resources(resources, nodes)
    assert f"largest of the cluster's {len(nodes)} nodes" in str(error.value)
    assert "resources.cpus_per_trial" in str(error.value)
    assert "resources.autoscaling: true" in str(error.value)


def test_the_message_has_the_most_of_each():
    resources = ResourcesConfig(cpus_per_trial=4, gpus_per_trial=1)
    with pytest.raises(NotEnoughResources, match="has 8 CPUs and 1 GPUs"):
        check_resources(resources, [node(8), node(2, 1)])


def test_the_message_counts_workers():
    resources = ResourcesConfig(cpus_per_trial=16, gpus_per_trial=8)
    with pytest.raises(NotEnoughResources) as error:
        check_resources(resources, [node(64, 4), node(4, 4)])  # 4 workers, and 2 of 2 CPUs
    assert "8 workers, each with 2 CPUs and 1 GPUs on one node" in str(error.value)
    assert "room for 6 such workers" in str(error.value)


def test_machines_that_are_added_on_demand_are_waited_for():
    resources = ResourcesConfig(gpus_per_trial=1, autoscaling=True)
    assert check_resources(resources, [node(4)]) == 0
    assert check_resources(resources, [node(4), node(8, 2)]) == 2
