"""A search of 300 short trials with a random kill every few seconds: is its history right?

    python -m benchmarks.soak [--rounds 36] [--every 3] [--seed 0]

A real Ray cluster of a head and two worker nodes, real actors, servers and forked children; only
the training is replaced (`short_trials`). Processes are killed by their ids, drivers resumed, lost
machines replaced, records cut in half. In the end the history must be what the same search gives
undisturbed, worked out without Ray; and every reward that was on storage when a fault struck must
still be there, byte by byte. The exit code says whether it is so.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.short_search import create, expected, trial_of, what_counts
from tests.service.local_cluster import LocalCluster

ROOT = Path(__file__).parents[1]
MACHINES = 3  # the head is one


@dataclass
class Soak:
    """One search under faults.

    Attributes:
        faults: how many were injected, by kind.
        kept: finished trials, as they were on storage before the next fault.
        lost: those of them that were not as before in the end.
    """

    cluster: LocalCluster
    experiment: Path
    log: Path
    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    kept: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        self._luck = np.random.default_rng(self.seed)
        self._spared: set[str] = set()  # a second death of the same training would be its own
        self._known: dict[str, bytes] = {}
        self._cut: dict[str, bytes] = {}
        self._replacing: threading.Thread | None = None
        self.kinds: dict[str, Callable[[], bool]] = {
            "training": self._kill_training,
            "server": self._kill_server,
            "actor": self._kill_actor,
            "driver": self._kill_driver,
            "worker node": self._kill_node,
            "record cut in half": self._cut_record,
        }

    def run(self, every: float, seconds: float, most: int | None = None) -> None:
        """Faults, `every` so many seconds on average, and `most` in all, until all is done."""
        until = time.monotonic() + seconds
        self._start()
        following = time.monotonic() + every
        # One of each kind first, then at random.
        to_come = list(self._luck.permutation(list(self.kinds)))
        while (code := self.driver.poll()) != 0:
            assert time.monotonic() < until, f"not done after {seconds} s:\n{self.log.read_text()}"
            if code is not None:
                assert code in (3, -9), self.log.read_text()
                self._start()
            enough = most is not None and self.faults.total() >= most
            progress = self._records().keys() - self._at_start
            if not enough and progress and time.monotonic() > following:
                kind = str(to_come[0] if to_come else self._luck.choice(list(self.kinds)))
                self._remember()
                if self.kinds[kind]():
                    self.faults[kind] += 1
                    to_come = to_come[1:]
                    following = time.monotonic() + self._luck.exponential(every)
            time.sleep(0.02)
        self._remember()

    def close(self) -> None:
        """End what still runs of it, the cluster aside."""
        self.driver.kill()
        self.driver.wait()
        if self._replacing is not None:
            self._replacing.join(timeout=120)

    def check(self) -> list[str]:
        """What is wrong with the history in the end: nothing, if this is empty."""
        now = self._records()
        self.kept = len(self._known)
        self.lost = sum(now.get(name) != content for name, content in self._known.items())
        found = {name: what_counts(json.loads(content)) for name, content in now.items()}
        right = expected(self.experiment)
        wrong = [
            f"{key}: {right.get(key)} expected, {found.get(key)} found"
            for key in sorted({*found, *right})
            if found.get(key) != right.get(key)
        ]
        return wrong + [f"{self.lost} finished rewards changed"] * bool(self.lost)

    def runs(self) -> Counter[str]:
        """How often each trial was begun, by its key."""
        names = (self.experiment / "runs.txt").read_text().split()
        return Counter(name.rpartition("-")[0] for name in names)

    # --- faults: each says whether it has found a victim ----------------------------------------

    def _kill_training(self) -> bool:
        for server in self._servers():
            for training in server.children():
                trial = trial_of(training)
                if trial is not None and trial not in self._spared:
                    self._spared.add(trial)
                    training.kill()
                    return True
        return False

    def _kill_server(self) -> bool:
        return self._kill(self._servers())

    def _kill_actor(self) -> bool:
        return self._kill(s.parent() for s in self._servers() if s.children())

    def _kill_driver(self) -> bool:
        self.driver.kill()
        self.driver.wait()
        return True

    def _kill_node(self) -> bool:
        """One machine at a time; another takes its place once Ray has noticed."""
        if self._replacing is not None and self._replacing.is_alive():
            return False
        self.cluster.workers[-1].kill()
        self._replacing = threading.Thread(target=self._replace_node, daemon=True)
        self._replacing.start()
        return True

    def _replace_node(self) -> None:
        self.cluster.wait_for_nodes(MACHINES - 1)
        self.cluster.add_node()

    def _cut_record(self) -> bool:
        """As a bad disk would; it counts when the driver is killed and the journal read again."""
        name = str(self._luck.choice(sorted(self._records())))
        self._kill_driver()
        path = self.experiment / "journal" / f"{name}.json"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self._known.pop(name, None)
        self._cut[name] = path.read_bytes()
        return True

    def _kill(self, processes: Iterator[psutil.Process]) -> bool:
        with contextlib.suppress(psutil.Error):
            found = list(processes)
            if found:
                found[self._luck.integers(len(found))].kill()
                return True
        return False

    def _servers(self) -> Iterator[psutil.Process]:
        for node in (self.cluster.head, *self.cluster.workers):
            for process in node.processes():
                with contextlib.suppress(psutil.Error):
                    if "trainers.worker" in process.cmdline():
                        yield process

    # --- the search -----------------------------------------------------------------------------

    def _start(self) -> None:
        """A driver; faults wait until it has got somewhere."""
        self.drivers += 1
        self._at_start = self._records().keys()
        command = [sys.executable, "-m", "benchmarks.short_search", str(self.experiment)]
        with self.log.open("ab") as out:
            self.driver = subprocess.Popen(
                command, cwd=ROOT, env=self.cluster.env | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def _records(self) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in self.experiment.glob("journal/*.json")}

    def _remember(self) -> None:
        """What is finished now has to be in the history as it is, whatever follows."""
        for name, content in self._records().items():
            if content != self._cut.get(name):
                self._known.setdefault(name, content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=36)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--every", type=float, default=3, help="seconds between faults, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=3600, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage, LocalCluster(workers=MACHINES - 1) as cluster:
        algorithm = {"rounds": options.rounds, "samples": options.samples}
        final = {"candidates": 4, "repeats": 2}
        experiment = create(Path(storage), seed=options.seed, algorithm=algorithm, final=final)
        soak = Soak(cluster, experiment, Path(storage) / "log", options.seed)
        begun = time.monotonic()
        try:
            soak.run(options.every, options.limit)
        finally:
            soak.close()
        wrong = soak.check()
        report(soak, time.monotonic() - begun)
    for line in wrong:
        print(f"WRONG: {line}")
    return bool(wrong)


def report(soak: Soak, seconds: float) -> None:
    trials, runs = len(soak._records()), soak.runs()
    print("| fault | injected |\n| --- | --- |")
    for kind in soak.kinds:
        print(f"| {kind} | {soak.faults[kind]} |")
    print(f"| all | {soak.faults.total()} |\n")
    print(f"{trials} trials in {seconds:.0f} s and {soak.drivers} sessions; {runs.total()} runs.")
    print(f"Rewards kept, byte for byte as they were first seen: {soak.kept - soak.lost} of "
          f"{soak.kept}.")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
