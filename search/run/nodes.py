"""Every machine that trials may run on, checked before the first one does."""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from paploss.doctor import compiled_ops
from paploss.errors import BadCluster, BadExperiment
from paploss.files import read_yaml
from search.run.cluster import Cluster
from search.run.placement import bundle, workers_on
from trainers.machine import data_files, expect, machine_problems
from trainers.trial import one_line

_SECONDS = 180.0
"""A node that starts no process in this time will run no trial either."""


def check_nodes(cluster: Cluster, experiment: Path) -> None:
    """Have each machine that can hold trials look at itself, all at the same time.

    A machine that joins later is looked at by the actors that start on it. Trials on the driver's
    own machine alone need no check.

    Raises:
        BadCluster: a line for each problem.
        BadExperiment: the folder cannot be written.
    """
    settings = read_yaml(experiment / "config.yaml")
    share = bundle(cluster.resources)
    here = ray.get_runtime_context().get_node_id()
    others = [
        node
        for node in cluster.nodes
        if workers_on(node["Resources"], share) and node["NodeID"] != here
    ]
    token = ""
    try:
        token = expect(experiment, data_files(settings.get("data", {})))
    except OSError as error:
        if others:
            raise BadExperiment(
                f"cannot write to {experiment}: {error.strerror}. Make room there, or mend it."
            ) from error
    problems = [
        f"node {node['NodeManagerAddress']}: {problem}"
        for node, found in zip(others, _ask(others, experiment, token), strict=True)
        for problem in found
    ]
    if problems:
        raise BadCluster(
            "the search cannot run on this cluster:\n  " + "\n  ".join(dict.fromkeys(problems))
        )


def _ask(
    nodes: Sequence[dict[str, Any]], experiment: Path, token: str, seconds: float = _SECONDS
) -> list[list[str]]:
    """The problems that each node finds with itself."""
    look: Any = ray.remote(_look)
    answers = [
        look.options(
            num_cpus=0,  # so that it runs on a busy node too
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(str(experiment), token, _machine())
        for node in nodes
    ]
    if not answers:
        return []
    done, late = ray.wait(answers, num_returns=len(answers), timeout=seconds)
    for answer in late:
        ray.cancel(answer, force=True)
    return [_answer(answer) if answer in done else [_no_answer(seconds)] for answer in answers]


def _answer(answer: Any) -> list[str]:
    try:
        return list(ray.get(answer))
    except (TaskUnschedulableError, NodeDiedError):
        return []  # it has left the cluster meanwhile, and runs nothing
    except Exception as error:  # of any kind: code that is missing there, a process that crashed
        cause = getattr(error, "cause", None)
        said = one_line(cause if isinstance(cause, BaseException) else error)
        if "No module named" in said:
            return [
                f"cannot run paploss ({said}); install it there, in the same version, or start the "
                "search with `paploss submit`, which brings the code along"
            ]
        return [f"cannot run a task: {said}"]


def _no_answer(seconds: float) -> str:
    return f"has started no process within {seconds:.0f} s; look at `ray status` and its logs"


def _look(experiment: str, token: str, driver: tuple[str, ...]) -> list[str]:
    """On a node: what is wrong with it."""
    problems = machine_problems(Path(experiment), token)
    if problems or _machine() == driver:
        return problems
    ops = compiled_ops()  # takes seconds, in a process of its own
    return [] if ops.ok else [f"{ops.detail}; there: {ops.remedy}"]


def _machine() -> tuple[str, ...]:
    """The machine, or container, and the Python: where they are equal, so is what is installed."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return (socket.gethostname(), boot.read_text().strip() if boot.exists() else "", sys.prefix)
