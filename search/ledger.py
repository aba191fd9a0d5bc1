"""The ledger of a search: which trials were assigned, and which have their record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.journal import Journal, TrialKey

Record = dict[str, Any]


@dataclass(frozen=True)
class Assignment:
    """A trial to run: theta is None for the baseline, early_stop where it is always run whole."""

    key: TrialKey
    theta: tuple[float, ...] | None
    seed: int
    label: str
    early_stop: Mapping[str, Any] | None = None


class Ledger:
    """Assignments and their records, in the order of their assignment.

    What a journal holds already waits until its trial is assigned: a search that is resumed
    assigns its trials one round after the other, as it did before.

    Args:
        journal: read once, now; records are written there before they count.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._assigned: dict[TrialKey, Assignment] = {}
        self._records: dict[TrialKey, Record] = {}
        self._waiting = {TrialKey.of(record): record for record in journal.records()}

    def __contains__(self, key: TrialKey) -> bool:
        return key in self._assigned

    def __getitem__(self, key: TrialKey) -> Assignment:
        return self._assigned[key]

    def get(self, key: TrialKey) -> Assignment | None:
        return self._assigned.get(key)

    @property
    def open(self) -> list[Assignment]:
        """Without a record."""
        return [a for key, a in self._assigned.items() if key not in self._records]

    @property
    def records(self) -> list[Record]:
        return [self._records[key] for key in self._assigned if key in self._records]

    def assign(self, assignment: Assignment) -> None:
        self._assigned[assignment.key] = assignment

    def keys(self, phase: str) -> list[TrialKey]:
        """Of the trials that are assigned in `phase`."""
        return [key for key in self._assigned if key.phase == phase]

    def all_known(self, keys: Sequence[TrialKey]) -> bool:
        """Whether each has a record."""
        return all(key in self._records for key in keys)

    def awaits(self, key: TrialKey) -> bool:
        """Whether `key` is assigned and has no record."""
        return key in self._assigned and key not in self._records

    def reward(self, key: TrialKey) -> float:
        """NaN for a trial that failed."""
        record = self._records[key]
        return math.nan if record["status"] == "failed" else float(record["reward"])

    def failures(self, keys: Sequence[TrialKey]) -> list[Record]:
        """The records of those of `keys` that failed."""
        return [self._records[key] for key in keys if self._records[key]["status"] == "failed"]

    def write(self, record: Record) -> None:
        """Onto storage, then into the ledger.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        self._journal.write(record)
        self.enter(record)

    def enter(self, record: Record) -> None:
        """Count a record that is on storage."""
        self._records[TrialKey.of(record)] = record

    def take_ready(self) -> list[Record]:
        """What was on storage at first and is of a trial that is open now; each is given once.

        A record counts for its key and its theta: a round that followed a record which was lost,
        and came out otherwise, runs again.
        """
        ready = [key for key, record in self._waiting.items() if self._fits(key, record)]
        return [self._waiting.pop(key) for key in ready]

    def _fits(self, key: TrialKey, record: Record) -> bool:
        if not self.awaits(key):
            return False
        theta = self._assigned[key].theta
        return bool(record.get("theta") == (None if theta is None else list(theta)))

    def take_back(self, keys: Sequence[TrialKey]) -> None:
        """Forget records, so that their trials are open again."""
        self._journal.forget(list(keys))
        for key in keys:
            del self._records[key]
