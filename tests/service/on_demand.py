"""A driver: a search on a cluster that has no machine for it yet; prints what it saw as JSON.

    python -m tests.service.on_demand FOLDER

The first actor that comes up runs its first trial only while the second one is starting, and the
second is up only after the first trial's end has been seen: what Tune does with a trial whose own
actor is starting, while another one is free, does not depend on luck.
"""

import contextlib
import json
import os
import re
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import search.run.cluster as clusters
import search.run.machines as machines
from paploss.errors import BadCluster
from paploss.files import read_yaml, write_yaml
from search.config import SearchConfig
from search.journal import Journal, TrialKey
from search.run.cluster import Cluster
from search.run.nodes import check_nodes
from search.run.tune import run_tune
from search.space import SearchSpace

SETTINGS = {
    "name": "toy",
    "algorithm": {"rounds": 2, "samples": 2, "steps": 2},
    "final": {"candidates": 1, "repeats": 1},
    "resources": {"autoscaling": True, "gpus_per_trial": 0, "pending_minutes": 2},
}


def short_trial() -> Any:
    from ray.tune import Trainable

    class Short(Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            folder = Path(config["experiment"])
            try:
                (folder / "first").touch(exist_ok=False)
            except FileExistsError:
                (folder / "second").touch()
                self._wait_for(folder / "seen")

        def _wait_for(self, file: Path) -> None:
            while not file.exists():
                time.sleep(0.05)

        def step(self) -> dict[str, Any]:
            self._wait_for(Path(self.config["experiment"]) / "second")
            record = {
                "status": "ok", "reward": 0.25, "test_reward": 0.25, "val": {"AP": 0.25},
                "test": {"AP": 0.25}, "fingerprint": "", "iterations": 1, "timing": {},
                "skipped_images": {}, "error": None, "control_points": None,
                "gradient_scale": None, "started": 0.0, "finished": 2.0, "seconds": 2.0,
                "trial_dir": self.trial_name, "node": "", "pid": os.getpid(), "cpus": 1.0,
                "gpus": 0.5,
            }  # fmt: skip
            return {"record": json.dumps(record), "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    return Short


class Listener:
    """Keeps what it is told."""

    def __init__(self, experiment: Path) -> None:
        self._experiment = experiment
        self.notes: list[str] = []
        self.slots: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def nodes(self, nodes: Any, slots: int) -> None:
        self.slots.append(slots)

    def finished(self, record: Any) -> None:
        # Tune takes its decision on the idle actor in the step after this one.
        time.sleep(0.5)
        (self._experiment / "seen").touch()


def run(folder: Path) -> dict[str, Any]:
    experiment = folder / "toy"
    experiment.mkdir(parents=True)
    write_yaml(experiment / "config.yaml", SETTINGS)
    config = SearchConfig(**{**SETTINGS, "storage": folder})
    machines._LOOK_SECONDS = 0.2
    asked = _record_demand()
    listener = Listener(experiment)
    space = SearchSpace(("x", "y"), (0.5, 0.5))
    with Cluster.connect(config.resources, config.algorithm.samples) as cluster:
        at_first = cluster.slots
        scraper = Scraper()
        scraper.start()
        problem = run_tune(experiment, space, config, "base", cluster, listener, short_trial())
        records = [*Journal(experiment).records()]
        seen = {
            "at_first": at_first,
            "problem": problem,
            "notes": listener.notes,
            "slots": listener.slots,
            "pids": {str(TrialKey.of(record)): record["pid"] for record in records},
            "metrics": scraper.wait_for(
                "ray_paploss_trials_finished{experiment=toy}", len(records)
            ),
            "unfit": unfit(cluster, experiment),
        }
    return {**seen, "asked": asked}


def _record_demand() -> list[int]:
    """How many bundles the cluster is asked for, each time; it is asked, too."""
    asked: list[int] = []
    ask = clusters.request_resources

    def request_resources(bundles: Any) -> None:
        asked.append(len(bundles))
        ask(bundles=bundles)

    clusters.request_resources = request_resources
    return asked


class Scraper(threading.Thread):
    """Reads the nodes' metrics again and again, as Prometheus does.

    Attributes:
        found: this search's, each as it was last seen.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: dict[str, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.3):
            for node in clusters.alive_nodes():
                url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                    self.found.update(parse(answer.read().decode()))

    def wait_for(self, name: str, value: float) -> dict[str, float]:
        """What was found once `name` is `value`, or after a while."""
        end = time.monotonic() + 30
        while self.found.get(name) != value and time.monotonic() < end:
            time.sleep(0.1)
        self._over.set()
        self.join()
        return self.found


def parse(text: str) -> dict[str, float]:
    """Prometheus' text, as far as it is of paploss and by paploss' own tags."""
    found = {}
    for name, tags, value in re.findall(r"^(ray_paploss_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        own = re.findall(r'(experiment|phase|status|by|le)="([^"]*)"', tags)
        shown = ",".join(f"{key}={value}" for key, value in sorted(own))
        found[f"{name}{{{shown}}}"] = float(value)
    return found


def unfit(cluster: Cluster, experiment: Path) -> list[str]:
    """What the machines that have joined say of themselves: as they are, and without the data."""
    cluster.look()
    said = []
    for data in (None, "/nowhere/train.json"):
        split = {"annotations": data, "images": str(experiment)}
        settings = read_yaml(experiment / "config.yaml")
        write_yaml(
            experiment / "config.yaml", {**settings, "data": {"train": split} if data else {}}
        )
        try:
            check_nodes(cluster, experiment)
            said.append("")
        except BadCluster as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
