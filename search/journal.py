"""The journal: what a search has learned so far, one small file a finished trial.

Tune's own files are snapshots that lag behind or run ahead of each other after a crash; the
journal is the truth. A trial's record is on storage before its reward is used.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from paploss.files import write_json
from search.space import Array

PHASES = ("baseline", "start", "search", "final")


class TrialKey(NamedTuple):
    """What a trial is for; two runs with one key are the same sample.

    Attributes:
        phase: "baseline", "start", "search" or "final".
        round: the round of a search; the candidate of a final; else 0.
        slot: the place in the round; else 0.
        repeat: counts the seeds in the other phases; 0 in a search.
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
    """The records in `experiment`/journal and policies in `experiment`/policy."""

    def __init__(self, experiment: Path) -> None:
        self.experiment = experiment
        self._records = experiment / "journal"
        self._policies = experiment / "policy"

    def write(self, record: dict[str, Any]) -> None:
        """Keep one finished trial; a second record of the same key replaces the first."""
        write_json(self._records / f"{TrialKey.of(record)}.json", record)

    def records(self) -> Iterator[dict[str, Any]]:
        """All readable records, by name of their files.

        Written atomically, a record is whole or absent. One that was damaged later is passed
        over: its trial runs again, and gives the same.
        """
        for path in sorted(self._records.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                TrialKey.of(record)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield record

    def forget(self, keys: list[TrialKey]) -> None:
        """Take back failed trials, so that they are tried again."""
        for key in keys:
            (self._records / f"{key}.json").unlink(missing_ok=True)

    def write_policy(self, round: int, mean: Array, std: Array) -> None:
        """The policy that `round` is drawn from."""
        policy = {"round": round, "mean": mean.tolist(), "std": std.tolist()}
        write_json(self._policies / f"round-{round:03d}.json", policy)
