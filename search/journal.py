"""The journal: what a search has learned so far, one small file a finished trial.

Tune's own files are snapshots that lag behind or run ahead of each other after a crash; the
journal is the truth. A trial's record is on storage before its reward is used.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from paploss.files import write_json
from search.space import Array

PHASES = ("baseline", "start", "rung", "search", "final")


class TrialKey(NamedTuple):
    """What a trial is for; two runs with one key are the same sample.

    Attributes:
        phase: "baseline", "start", "rung", "search" or "final".
        round: the round of a search or its rung; the candidate of a final; else 0.
        slot: the place in the round; else 0.
        repeat: counts the seeds in the other phases; 0 in a search and its rungs.
    """

    phase: str
    round: int
    slot: int
    repeat: int

    def __str__(self) -> str:
        return f"{self.phase}-{self.round:03d}-{self.slot:02d}-{self.repeat}"

    @staticmethod
    def of(record: dict[str, Any]) -> "TrialKey":
        return TrialKey(record["phase"], record["round"], record["slot"], record["repeat"])


class Journal:
    """The records in `experiment`/journal; policies and samples of the rounds beside them.

    Attributes:
        damaged: a line for each file that `records` has left out the last time.
    """

    def __init__(self, experiment: Path) -> None:
        self.experiment = experiment
        self.damaged: list[str] = []
        self._records = experiment / "journal"
        self._unwritten: dict[Path, dict[str, Any]] = {}

    def write(self, record: dict[str, Any]) -> None:
        """Keep one finished trial; a second record of the same key replaces the first.

        Raises:
            OSError: it could not be written, and is not there.
        """
        write_json(self._records / f"{TrialKey.of(record)}.json", record)
        self._write_rest()

    def records(self) -> Iterator[dict[str, Any]]:
        """All usable records, by name of their files.

        Written atomically, a record is whole or absent. One that was damaged later is left out:
        its trial runs again, and gives the same. So is a copy under another name, which would
        count its trial twice.
        """
        self.damaged = []
        for path in sorted(self._records.glob("*.json")):
            name = f"{self._records.name}/{path.name}"
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                key = str(TrialKey.of(record))
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                self.damaged.append(f"{name} cannot be read and was left out: its trial runs again")
                continue
            if path.stem == key:
                yield record
            else:
                self.damaged.append(f"{name} holds the trial {key} and was left out: it is a copy")

    def forget(self, keys: list[TrialKey]) -> None:
        """Take back failed trials, so that they are tried again."""
        for key in keys:
            (self._records / f"{key}.json").unlink(missing_ok=True)

    def write_policy(self, round: int, mean: Array, std: Array) -> None:
        """Keep the policy that `round` is drawn from, for whoever looks.

        It follows from the records, so what cannot be written now is written with the next one.
        """
        path = self.experiment / "policy" / f"round-{round:03d}.json"
        self._write_later(path, {"round": round, "mean": mean.tolist(), "std": std.tolist()})

    def write_samples(self, name: str, samples: dict[str, Any]) -> None:
        """Keep what was drawn for a round, or chosen for the race: it may have taken long.

        That too follows from the records, and is drawn again where it is missing.
        """
        self._write_later(self.experiment / "samples" / f"{name}.json", samples)

    def samples(self, name: str) -> dict[str, Any]:
        """What `write_samples` has kept; empty where there is nothing to read."""
        path = self.experiment / "samples" / f"{name}.json"
        if path in self._unwritten:
            return self._unwritten[path]
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def _write_later(self, path: Path, values: dict[str, Any]) -> None:
        self._unwritten[path] = values
        self._write_rest()

    def _write_rest(self) -> None:
        with contextlib.suppress(OSError):
            for path, values in list(self._unwritten.items()):
                if not _holds(path, values):  # most are there when a journal is replayed
                    write_json(path, values)
                del self._unwritten[path]


def _holds(path: Path, value: Any) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == value)
    except (OSError, ValueError, RecursionError):
        return False
