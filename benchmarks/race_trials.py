"""Trials of given losses with given seeds, some side by side, each kept as a line of JSON.

What `benchmarks.search_real` runs its races with: no Ray, and nothing is run twice.
"""

import hashlib
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paploss.errors import SearchStopped, UserError
from paploss.files import write_atomic
from search.seeds import trial_seed
from trainers.config import TaskConfig
from trainers.trial import TrialSpec
from trainers.worker import TrialProcess, WorkerLost

SEED = 1_000_003
"""Of the race, far from any search's: every loss meets the same luck in the same repeat."""
CHOOSING = (0, 1)
"""Repeats scored on val alone, by which a search's winner is chosen."""
SCORING = (2, 3, 4)
"""Repeats scored on the third split too; what is reported comes from there."""
_ATTEMPTS = 3
_STALL_SECONDS = 600.0


@dataclass(frozen=True)
class Loss:
    """What a trial trains with.

    Attributes:
        criterion: a family's settings where there is a theta, else a criterion's.
        label: for the reader.
    """

    criterion: Mapping[str, Any] = field(hash=False)
    theta: tuple[float, ...] | None
    label: str = field(compare=False)

    @property
    def digest(self) -> str:
        """The same for the same loss."""
        text = json.dumps([self.criterion, self.theta], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


Run = tuple[Loss, int]
"""A loss and a repeat."""


class Runs:
    """The runs that are kept in a file of JSON lines; a line cut short by a kill is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, int], dict[str, Any]] = {}
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        if path.exists():
            self._mend()
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def get(self, loss: Loss, repeat: int) -> dict[str, Any] | None:
        return self._known.get((loss.digest, repeat))

    def add(self, loss: Loss, repeat: int, record: dict[str, Any]) -> None:
        """Keep one run, with the columns that `benchmarks.trials_table` reads."""
        with self._lock:
            number = self._numbers.get(loss.digest, len(self._numbers))
            key = {"phase": "final", "round": number, "slot": 0, "repeat": repeat}
            theta = None if loss.theta is None else list(loss.theta)
            line = {**key, "label": loss.label, "digest": loss.digest, "theta": theta, **record}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self._known[line["digest"], line["repeat"]] = line
        self._numbers.setdefault(line["digest"], line["round"])

    def _mend(self) -> None:
        data = self.path.read_bytes()
        if not data.endswith(b"\n"):
            self.path.write_bytes(data[: data.rfind(b"\n") + 1])


def run_missing(
    wanted: Sequence[Run],
    runs: Runs,
    task: TaskConfig,
    processes: int,
    say: Callable[[str], None],
    trials: str = "trainers.trial",
) -> None:
    """Run what `runs` lacks of `wanted`, `processes` at a time, each run in its order.

    Args:
        trials: the module that runs a trial, see `trainers.worker.TrialProcess`.

    Raises:
        SearchStopped: processes get lost again and again.
    """
    missing = {(loss.digest, repeat): (loss, repeat) for loss, repeat in wanted}
    waiting = deque(run for run in missing.values() if runs.get(*run) is None)
    if not waiting:
        return
    total, begun = len(waiting), time.monotonic()
    stop = threading.Event()

    def work() -> None:
        slot = _Slot(trials)
        try:
            while waiting and not stop.is_set():
                try:
                    loss, repeat = waiting.popleft()
                except IndexError:  # the other one was quicker
                    return
                record = slot.run(loss, repeat, task, runs.path.parent)
                runs.add(loss, repeat, record)
                reward = record["reward"]
                shown = "failed: " + str(record["error"]) if reward is None else f"{reward:.4f}"
                minutes = (time.monotonic() - begun) / 60
                counted = f"{total - len(waiting)} of {total}"
                say(f"[{minutes:5.1f} min] {loss.label}, repeat {repeat}: {shown}, {counted}")
        except BaseException:
            stop.set()
            raise
        finally:
            slot.close()

    with ThreadPoolExecutor(processes) as pool:
        workers = [pool.submit(work) for _ in range(min(processes, total))]
        try:
            for worker in workers:
                worker.result()
        except BaseException:  # Ctrl-C too: what runs is waited for, what waits is not begun
            stop.set()
            raise


def report(make: Callable[[], str], work: Path) -> None:
    """Print the tables that `make` gives and keep them in `work`, or say what is wrong."""
    try:
        text = make()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; finished runs are kept, and the same command goes on.")
    print(f"\n{text}")
    write_atomic(work / "tables.md", f"{text}\n")


class _Slot:
    """A process that runs trial after trial, and another one when it is lost."""

    def __init__(self, trials: str) -> None:
        self._trials = trials
        self._process = TrialProcess(trials)

    def run(self, loss: Loss, repeat: int, task: TaskConfig, folder: Path) -> dict[str, Any]:
        """One trial to its end, as a record."""
        spec = TrialSpec(
            detector=task.detector,
            data=task.data,
            criterion=dict(loss.criterion),
            theta=loss.theta,
            schedule=task.schedule,
            seed=trial_seed(SEED, "final", 0, 0, repeat),
            evaluate=("val",) if repeat in CHOOSING else ("val", "test"),
            reward=task.reward,
        )
        place = folder / "logs" / f"{loss.digest}-{repeat}"
        for _ in range(_ATTEMPTS):
            started = time.monotonic()
            try:
                result = self._process.run(spec, place, _STALL_SECONDS)
            except WorkerLost:
                self.close()
                self._process = TrialProcess(self._trials)
                continue
            if result.status != "lost":
                seconds = time.monotonic() - started
                return {**result.model_dump(mode="json"), "seed": spec.seed, "seconds": seconds}
        raise SearchStopped(f"{loss.label}: its process was lost {_ATTEMPTS} times.")

    def close(self) -> None:
        self._process.close()
