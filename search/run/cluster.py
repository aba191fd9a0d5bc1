"""The cluster that trials run on: joined or started, and what fits on it."""

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from paploss.errors import NotEnoughResources
from search.config import ResourcesConfig


@dataclass(frozen=True)
class Cluster:
    """What trials run on.

    Attributes:
        slots: trials that fit side by side, now.
    """

    resources: ResourcesConfig
    slots: int

    @staticmethod
    @contextlib.contextmanager
    def connect(resources: ResourcesConfig) -> Iterator["Cluster"]:
        """Join the cluster at RAY_ADDRESS, or start one on this machine until the end.

        Raises:
            NotEnoughResources: no node can ever run one trial.
        """
        own = not ray.is_initialized()
        if own:
            _make_token()
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        # Ray has just taken SIGTERM, which a scheduler ends a job with, and would crash on it:
        # treat it as Ctrl-C, which Tune ends cleanly on.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        logging.getLogger("ray.tune.execution.experiment_state").addFilter(one_line)
        try:
            alive = [n for n in ray.nodes() if n["Alive"]]
            nodes = [node["Resources"] for node in alive]
            yield Cluster(resources, check_resources(resources, nodes))
        finally:
            if own:
                ray.shutdown()


def check_resources(resources: ResourcesConfig, nodes: list[dict[str, float]]) -> int:
    """How many trials fit on `nodes` side by side; each runs on one node.

    Raises:
        NotEnoughResources: none fits on any of them.
    """
    need = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}
    need = {kind: amount for kind, amount in need.items() if amount}
    slots = sum(int(min(node.get(kind, 0) / need[kind] for kind in need)) for node in nodes)
    if slots:
        return slots
    most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
    raise NotEnoughResources(
        f"a trial asks for {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} "
        f"GPUs on one node, but the largest of the cluster's {len(nodes)} nodes has "
        f"{most['CPU']:g} CPUs and {most['GPU']:g} GPUs: it would wait for ever. Lower "
        "`resources.cpus_per_trial` or `resources.gpus_per_trial`, or join another cluster with "
        "RAY_ADDRESS."
    )


def placement(resources: ResourcesConfig) -> Any:
    """What one trial asks Tune for: a bundle for each of its workers, close together."""
    share = {
        "CPU": resources.cpus_per_trial / resources.workers,
        "GPU": resources.gpus_per_trial / resources.workers,
    }
    return tune.PlacementGroupFactory([dict(share) for _ in range(resources.workers)], "PACK")


def one_line(record: logging.LogRecord) -> bool:
    """A log filter that says an exception without its stack.

    For Tune's snapshots of itself: one that cannot be copied, because the next one takes its place
    or the search is being ended, is no loss. What counts is in the journal.
    """
    if record.exc_info:
        record.msg, record.args = f"{record.getMessage()}{record.exc_info[1]!r}", ()
        record.exc_info = None
    return True


def _make_token() -> None:
    """Ray's token for clusters of this user, readable by nobody else, if there is none yet."""
    path = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(handle, secrets.token_hex(32).encode())
        os.close(handle)
