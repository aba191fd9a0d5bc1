"""Machines that come and go while a search runs: seen, said, and told to what follows it."""

import contextlib
import time
from typing import Any, Protocol

from ray.tune import Callback

from search.run.cluster import Cluster
from search.run.placement import asked
from search.status import Node

_LOOK_SECONDS = 5.0


class MachineListener(Protocol):
    """What is told about machines (see `search.run.follower.Follower`)."""

    def nodes(self, nodes: list[Node], slots: int) -> None: ...
    def note(self, text: str) -> None: ...


class MachineWatch(Callback):
    """Looks at the cluster every few seconds, from Tune's loop.

    Tune needs no help to use a machine that joins: all open trials wait in Ray's queue, and run
    wherever there is room.

    Args:
        trials: that were asked room for; taken back when they run, or when one has ended.
    """

    def __init__(self, cluster: Cluster, listener: MachineListener, trials: int) -> None:
        self._cluster = cluster
        self._listener = listener
        self._asked = trials if cluster.resources.autoscaling else 0
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def setup(self, *_: Any, **__: Any) -> None:
        self._tell()
        if self._asked > self._cluster.slots:
            self._cluster.ask_for(self._asked)
            fit = f"{self._cluster.slots} fit" if self._cluster.slots else "none fits"
            wanted = "one trial" if self._asked == 1 else f"{self._asked} trials"
            self._note(
                f"waiting for machines: the cluster was asked for room for {wanted}, and {fit} so "
                f"far; a trial asks for {asked(self._cluster.resources)}"
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._take_back()

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        before = self._cluster.slots
        came, went = self._cluster.look()
        if came or went:
            self._tell()
            if self._cluster.slots != before:  # else these are no machines for trials
                self._say(came, went, before)
        if self._asked and self._cluster.slots >= self._asked:
            self._take_back()

    def _take_back(self) -> None:
        """No longer hold machines: from now on, only trials do."""
        if self._asked:
            self._asked = 0
            self._cluster.ask_for(0)

    def _say(self, came: set[str], went: set[str], before: int) -> None:
        changes = [
            f"{_listed(addresses)} {verb}"
            for addresses, verb in ((went, "lost"), (came, "joined"))
            if addresses
        ]
        after = f"{self._cluster.slots} trials side by side now, {before} before"
        self._note(f"{' and '.join(changes)}: {after}")

    def _tell(self) -> None:
        nodes = [
            Node(
                address=node["NodeManagerAddress"],
                cpus=node["Resources"].get("CPU", 0.0),
                gpus=node["Resources"].get("GPU", 0.0),
                alive=True,
            )
            for node in self._cluster.nodes
        ]
        with contextlib.suppress(Exception):  # what follows a search never ends it
            self._listener.nodes(nodes, self._cluster.slots)

    def _note(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._listener.note(text)


def _listed(addresses: set[str]) -> str:
    """'machine 10.0.0.3', or '5 machines (10.0.0.3, 10.0.0.4, ...)'."""
    if len(addresses) == 1:
        return f"machine {next(iter(addresses))}"
    few = sorted(addresses)[:3]
    return f"{len(addresses)} machines ({', '.join(few)}{', ...' if len(addresses) > 3 else ''})"
