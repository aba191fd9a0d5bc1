"""How far a search has come: what has finished, what runs, how long it may still take.

Plain state and arithmetic. The search's own process tells it events; whoever watches from
elsewhere fills it from files. Its numbers come from journal records, so a resumed search shows
the same as one that was never interrupted.
"""

import statistics
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from search.config import FinalConfig, SearchConfig
from search.journal import PHASES
from search.race import run_race, scores_of

Key = tuple[str, int, int, int]  # phase, round (or candidate), slot, repeat
NOTES = 4  # how many notes are kept
_PARTS = ("phase", "round", "slot", "repeat")


class Progress:
    """One search; times are seconds since 1970.

    Args:
        name: the experiment's.
        rounds, samples: T of the search, and how many trials of a round are whole ones.
        slots: trials that run side by side.
        candidates, repeats: of the final race; baseline and start run `repeats` times too.
        rung: trials of a round at a cheaper fidelity, before these.
        begun: when this session began; now if not given.

    Attributes:
        records: journal records by key.
        running: when each trial under way began, by key; `folders` has their folders' names.
        notes: the last lines that the user was told.
        phase, round: what is shown as under way.
    """

    def __init__(
        self,
        name: str,
        rounds: int,
        samples: int,
        slots: int = 1,
        *,
        candidates: int = 0,
        repeats: int = 0,
        rung: int = 0,
        begun: float | None = None,
    ) -> None:
        self.name, self.rounds, self.samples, self.rung = name, rounds, samples, rung
        self.slots = slots
        self._before_race = rounds * (samples + rung) + 2 * repeats
        self._race = candidates * repeats
        self.begun = time.time() if begun is None else begun
        self.records: dict[Key, Mapping[str, Any]] = {}
        self.running: dict[Key, float] = {}
        self.folders: dict[Key, str | None] = {}
        self.notes: deque[str] = deque(maxlen=NOTES)
        self.phase, self.round = "baseline", 0

    @staticmethod
    def of(config: SearchConfig) -> "Progress":
        algorithm, final = config.algorithm, config.final
        return Progress(
            config.name,
            algorithm.rounds,
            config.full_samples,
            candidates=final.candidates,
            repeats=final.repeats,
            rung=algorithm.samples if config.rungs else 0,
        )

    @property
    def total(self) -> int:
        """Trials of the whole search; at most so many, until a race that ends early has ended."""
        return self._before_race + self._race

    # --- events ---------------------------------------------------------------------------------

    def start(self, key: Mapping[str, Any], now: float) -> None:
        """A trial has started; `key` may name its `folder`."""
        self.running[key_of(key)] = now
        self.folders[key_of(key)] = key.get("folder")
        self._now(key)

    def take(self, record: Mapping[str, Any]) -> None:
        """A trial has ended; of two records with one key the later counts."""
        self.running.pop(key_of(record), None)
        self.records[key_of(record)] = record
        self._now(record)

    def end_race(self, final: FinalConfig) -> None:
        """See whether the final race is over: it may have needed fewer trials than were planned."""
        if race_is_over(self.records.values(), final):
            self._race = sum(key[0] == "final" for key in list(self.records))

    def _now(self, key: Mapping[str, Any]) -> None:
        # Baselines may run beside the first round: the search, once begun, is what is shown.
        if _order(key["phase"], key["round"]) >= _order(self.phase, self.round):
            self.phase, self.round = key["phase"], key["round"]

    # --- what it comes to -----------------------------------------------------------------------

    def rewards(self, phase: str, round: int | None = None) -> list[float]:
        """Those of a phase, or of one round of it; failed trials have none."""
        return [
            record["reward"]
            for key, record in list(self.records.items())
            if key[0] == phase and round in (None, key[1]) and record["reward"] is not None
        ]

    def best(self) -> Mapping[str, Any] | None:
        """The record of the best search trial so far."""
        done = (r for r in list(self.records.values()) if r["phase"] == "search")
        known = (record for record in done if record["reward"] is not None)
        return max(known, key=lambda record: record["reward"], default=None)

    def label(self, phase: str) -> str:
        """What the baseline, or the start, is called; empty before it has run."""
        labels = (r["label"] for r in list(self.records.values()) if r["phase"] == phase)
        return next(labels, "").removeprefix(f"{phase}: ")

    def finished_in(self, round: int, phase: str = "search") -> int:
        """Finished trials of a round, or of its rung."""
        return sum(key[:2] == (phase, round) for key in list(self.records))

    def whole_rounds(self) -> list[int]:
        """The rounds whose trials have all finished."""
        done = Counter(key[1] for key in list(self.records) if key[0] == "search")
        return [number for number in sorted(done) if done[number] >= self.samples]

    def statuses(self) -> Counter[str]:
        """How many trials ended in each way."""
        return Counter(record["status"] for record in list(self.records.values()))

    def left_seconds(self, now: float) -> float | None:
        """Time left: what trials have taken so far, over those to come, side by side."""
        seconds = [record["seconds"] for record in list(self.records.values())]
        if not seconds:
            return None
        mean = statistics.fmean(seconds)
        under_way = [max(0.0, mean - (now - begun)) for begun in list(self.running.values())]
        waiting = max(0, self.total - len(seconds) - len(under_way))
        together = max(1, min(self.slots, max(self.samples, self.rung)))
        return (waiting * mean + sum(under_way)) / together

    def facts(self) -> dict[str, Any]:
        """The fields of `search.status.Status` that change from trial to trial."""
        running = list(self.running.items())
        return {
            "slots": self.slots,
            "total_trials": self.total,
            "running": [
                dict(zip(_PARTS, key, strict=True))
                | {"started": begun, "folder": self.folders.get(key)}
                for key, begun in running
            ],
            "pending": max(0, self.total - len(self.records) - len(running)),
            "left_seconds": self.left_seconds(time.time()),
        }


def race_is_over(records: Iterable[Mapping[str, Any]], final: FinalConfig) -> bool:
    """Whether no trial of the final race is to come."""
    results, others = scores_of(list(records))
    return bool(results) and run_race(results, final.candidates, final, others).over


def key_of(record: Mapping[str, Any]) -> Key:
    """The key in a record, or in anything else that has its four parts."""
    return record["phase"], record["round"], record["slot"], record["repeat"]


def place(record: Mapping[str, Any]) -> str:
    """A trial's place in words, the same for a key and for a whole record."""
    if record["phase"] in ("rung", "search"):
        rung = " rung" if record["phase"] == "rung" else ""
        return f"round {record['round']}{rung} slot {record['slot']}"
    if record["phase"] == "final":
        return f"candidate {record['round']} repeat {record['repeat']}"
    return f"{record['phase']} repeat {record['repeat']}"


def _order(phase: str, round: int) -> tuple[int, ...]:
    """Of what a search does: a rung and the whole trials of its round, round by round."""
    index = PHASES.index(phase)
    return (PHASES.index("rung"), round, index) if phase in ("rung", "search") else (index, round)
