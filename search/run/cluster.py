"""The cluster that trials run on: joined or started, and what fits on it."""

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from search.config import ResourcesConfig, SearchConfig
from search.run.placement import bundle, check_resources, side_by_side


class Cluster:
    """What trials run on, as it was when it was last looked at.

    Attributes:
        resources: what one trial asks for, its GPUs decided.
        nodes: the machines that are alive, as `ray.nodes()` describes them.
        slots: trials that fit on them side by side.
    """

    def __init__(self, resources: ResourcesConfig, nodes: Sequence[dict[str, Any]] = ()) -> None:
        held = [node["Resources"] for node in nodes]
        self.resources = resources.where(any(node.get("GPU", 0) for node in held))
        self.nodes = tuple(nodes)
        self.slots = check_resources(self.resources, held)

    @staticmethod
    @contextlib.contextmanager
    def connect(resources: ResourcesConfig, trials: int = 1) -> Iterator["Cluster"]:
        """Join the cluster at RAY_ADDRESS, or start one on this machine until the end.

        Args:
            trials: that will want to run at once. With `resources.autoscaling` machines for them
                are asked for at once, so that they start while the search prepares.

        Raises:
            NotEnoughResources: no node can ever run one trial.
        """
        own = not ray.is_initialized()
        if own:
            _make_token()
            ray.init(
                # One that happens to run here is not joined unasked.
                address=os.environ.get("RAY_ADDRESS") or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        # Ray has just taken SIGTERM, which a scheduler ends a job with, and would crash on it:
        # treat it as Ctrl-C, which Tune ends cleanly on. A terminal that is closed, likewise; under
        # nohup, which has the signal ignored, it stays so.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        # It lists the trials that did not end well, each of which has been told.
        logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
        logging.getLogger("ray.tune.execution.experiment_state").addFilter(one_line)
        cluster = None
        try:
            cluster = Cluster(resources, alive_nodes())
            cluster.ask_for(trials)
            yield cluster
        finally:
            if cluster:
                cluster.ask_for(0)
            if own:
                ray.shutdown()

    def look(self) -> tuple[set[str], set[str]]:
        """See which machines there are now: the addresses of those that came, and that went."""
        before = {node["NodeID"]: node["NodeManagerAddress"] for node in self.nodes}
        self.nodes = tuple(alive_nodes())
        self.slots = side_by_side(self.resources, [node["Resources"] for node in self.nodes])
        now = {node["NodeID"]: node["NodeManagerAddress"] for node in self.nodes}
        came = {address for node, address in now.items() if node not in before}
        return came, {address for node, address in before.items() if node not in now}

    def ask_for(self, trials: int) -> None:
        """Ask a cluster that adds machines on demand for room for so many trials; 0: no more.

        Trials that wait in Ray's queue are demand by themselves; this one comes before them. It
        is the cluster's, not this process's: while it stands, machines stay, so it is taken back
        as soon as trials have started.
        """
        if not self.resources.autoscaling:
            return
        with contextlib.suppress(Exception):  # a hint; the trials themselves will ask as well
            request_resources(bundles=[bundle(self.resources)] * self.resources.workers * trials)


def early_demand(config: SearchConfig) -> contextlib.AbstractContextManager[Any]:
    """Has machines start while a search is being checked, on a cluster that adds them on demand."""
    if not config.resources.autoscaling:
        return contextlib.nullcontext()
    return Cluster.connect(config.resources, config.algorithm.samples)


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's machines, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


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
