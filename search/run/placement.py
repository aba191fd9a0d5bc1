"""What a trial asks of the cluster, and how many fit on it side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune

from paploss.errors import NotEnoughResources
from search.config import ResourcesConfig

_UNITS = 10_000
"""Ray counts resources in ten-thousandths; so do we, as 0.3 / 0.1 is less than 3 in floats."""


def bundle(resources: ResourcesConfig) -> dict[str, float]:
    """What one worker of a trial holds, on one node; kinds that it has none of are absent."""
    share = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus}
    return {kind: amount / resources.workers for kind, amount in share.items() if amount}


def placement(resources: ResourcesConfig) -> Any:
    """What one trial asks Tune for: a bundle for each of its workers, close together.

    On one node if they fit there, else on as few as can be.
    """
    return tune.PlacementGroupFactory([bundle(resources)] * resources.workers, "PACK")


def workers_on(node: Mapping[str, float], share: Mapping[str, float]) -> int:
    """How many workers with `share` each fit on a node with these resources."""
    return min(_times(kind, node.get(kind, 0.0), amount) for kind, amount in share.items())


def side_by_side(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials fit on `nodes` at once.

    The workers of a trial are alike and may be on any nodes, so that room for a worker is never
    wasted but for the last few.
    """
    share = bundle(resources)
    return sum(workers_on(node, share) for node in nodes) // resources.workers


def check_resources(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials fit on `nodes` side by side; 0 only where machines are added on demand.

    Raises:
        NotEnoughResources: none fits, and none will.
    """
    slots = side_by_side(resources, nodes)
    if slots or resources.autoscaling:
        return slots
    raise NotEnoughResources(
        f"a trial asks for {asked(resources)}, but {_found(resources, nodes)}: it would wait for "
        "ever. Lower `resources.cpus_per_trial` or `resources.gpus_per_trial`, or join another "
        "cluster with RAY_ADDRESS. If this one adds machines on demand, let it: "
        "`resources.autoscaling: true`."
    )


def asked(resources: ResourcesConfig) -> str:
    """What one trial asks for, in words."""
    amounts = f"{resources.cpus_per_trial:g} CPUs and {resources.gpus:g} GPUs"
    if resources.workers == 1:
        return f"{amounts} on one node"
    share = bundle(resources)
    each = f"{share['CPU']:g} CPUs and {share.get('GPU', 0):g} GPUs"
    return f"{amounts} in {resources.workers} workers, each with {each} on one node"


def _found(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> str:
    most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
    largest = (
        f"the largest of the cluster's {len(nodes)} nodes has {most['CPU']:g} CPUs and "
        f"{most['GPU']:g} GPUs"
    )
    if resources.workers == 1:
        return largest
    room = sum(workers_on(node, bundle(resources)) for node in nodes)
    return f"the cluster has room for {room} such workers; {largest}"


def _times(kind: str, has: float, needs: float) -> int:
    """How often `needs` goes into `has`; a share of a GPU never spans two."""
    if kind == "GPU" and needs < 1:
        return int(has) * (_UNITS // _units(needs))
    return _units(has) // _units(needs)


def _units(amount: float) -> int:
    return max(1, round(amount * _UNITS)) if amount else 0
