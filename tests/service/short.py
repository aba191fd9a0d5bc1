"""Searches of short trials under faults: started as a user starts them, with real Ray."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.short_search import create, expected, trial_of, what_counts
from tests.service.local_cluster import LocalCluster


class ShortSearch:
    """One search of short trials.

    Args:
        start: the fixture that starts commands.
        storage: where its experiment goes.
        variables: of its drivers' environment.
        settings: of the search, over 2 rounds of 3 and a final of 2.
    """

    def __init__(
        self,
        start: Callable[..., Any],
        storage: Path,
        variables: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._start = start
        self.variables = dict(variables or {})
        small = {
            "algorithm": {"rounds": 2, "samples": 3},
            "final": {"candidates": 2, "repeats": 1},
        }
        self.path = create(storage, **{**small, **settings})
        self.expected = expected(self.path)

    def start(self, **variables: str) -> Any:
        """A driver, as `paploss resume` is one."""
        return self._start(
            self.path, module="benchmarks.short_search", variables=self.variables | variables
        )

    @property
    def records(self) -> dict[str, Any]:
        """The journal as it is on storage, damaged files aside."""
        found = {}
        for path in self.path.glob("journal/*.json"):
            try:
                found[path.stem] = json.loads(path.read_text())
            except ValueError:
                continue
        return found

    def what_counts(self) -> dict[str, Any]:
        """What is comparable with `expected`."""
        return {key: what_counts(record) for key, record in self.records.items()}

    @property
    def runs(self) -> Counter[str]:
        """How often each trial was begun, by its key."""
        names = (self.path / "runs.txt").read_text().split()
        return Counter(name.rpartition("-")[0] for name in names)


def join(cluster: LocalCluster) -> dict[str, str]:
    """The variables with which a driver joins `cluster`."""
    return {name: value for name, value in cluster.env.items() if name.startswith("RAY_")}


def training_of(cluster: LocalCluster, *phases: str) -> tuple[str, psutil.Process] | None:
    """(its trial, process) of a training on `cluster` in one of these phases, if one runs."""
    for node in (cluster.head, *cluster.workers):
        for process in node.processes():
            trial = trial_of(process)
            if trial is not None and trial.startswith(phases):
                return trial, process
    return None
