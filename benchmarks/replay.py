"""A search as it was after fewer trials: what it knew then, from its journal."""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paploss.errors import BadExperiment
from search.algorithm import SearchAlgorithm
from search.algorithms import build_algorithm
from search.config import SearchConfig
from search.journal import Journal
from search.run.experiment import open_experiment, space_of
from search.run.hint import FILE, Simulations
from search.rungs import fit, pairs_of, rewards_of_round
from search.space import Array
from trainers.config import TaskConfig

Record = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A search's settings and its records by round: of each slot the full trial, or its rung."""

    path: Path
    config: SearchConfig
    task: TaskConfig
    start: tuple[Record, ...]
    search: tuple[Record, ...]

    @staticmethod
    def open(path: Path) -> "Experiment":
        """Raises BadExperiment where there is none."""
        config, task = open_experiment(path)
        records = list(Journal(path).records())
        start = tuple(r for r in records if r["phase"] == "start")
        search = tuple(r for r in records if r["phase"] in ("search", "rung"))
        return Experiment(path, config, task, start, search)

    def rounds_within(self, budget: float) -> int:
        """The whole rounds that cost at most `budget` full trials; 0 if it has not come so far.

        A rung, or a trial that was stopped early, costs its share of a full trial's seconds.
        """
        full = [r["seconds"] for r in self.search if _is_full(r)]
        if not full:
            return 0
        unit = float(np.median(full))
        spent, rounds = 0.0, 0
        for round in range(self.config.algorithm.rounds):
            records = [r for r in self.search if r["round"] == round]
            if not self._is_whole(round, records):
                return 0
            spent += sum(1.0 if _is_full(r) else r["seconds"] / unit for r in records)
            if spent > budget * 1.02:
                return rounds
            rounds += 1
            if spent > budget * 0.98:
                return rounds
        # Over, having saved on trials that were no full ones.
        saved = not all(_is_full(r) for r in self.search)
        return rounds if saved and spent > budget * 0.75 else 0

    def minutes(self, rounds: int) -> float:
        """Of training, one trial after another, in the first `rounds` rounds."""
        return sum(r["seconds"] for r in self.search if r["round"] < rounds) / 60

    def best_guess(self, rounds: int) -> Array:
        """The algorithm's best guess after `rounds` rounds, [D].

        Its samples are taken from the journal, so neither its screen nor its library has to draw
        them again.
        """
        with tempfile.TemporaryDirectory() as folder:  # nothing is written into the experiment
            with suppress(FileNotFoundError):
                shutil.copy(self.path / "samples" / FILE, folder)
            return self._replayed(rounds, Simulations(Path(folder))).best_guess()

    def _replayed(self, rounds: int, simulations: Simulations) -> SearchAlgorithm:
        space = space_of(self.task, simulations)
        algorithm = build_algorithm(space, self.config.algorithm, self.config.seed)
        algorithm.tell_start([_reward(r) for r in self.start])
        journal = Journal(self.path)
        for round in range(rounds):
            samples = self._slots(round)
            rejected = journal.samples(f"round-{round:03d}").get("rejected", [])
            asked = {
                "round": round,
                "evidence": algorithm.evidence,
                "thetas": [r["theta"] for r in samples],
                "rejected": rejected,
                "ahead": {"thetas": self._ahead(round), "rejected": []},
            }
            if not algorithm.recall(asked):
                raise BadExperiment(f"{self.path}: round {round} is not of its own settings.")
            algorithm.tell(self._rewards(round))
        return algorithm

    def best_samples(self, rounds: int, count: int) -> list[Record]:
        """The `count` best full trials of the first `rounds` rounds."""
        ended = [r for r in self.search if r["status"] == "ok" and _is_full(r)]
        early = [r for r in ended if r["round"] < rounds]
        return sorted(early, key=lambda r: (-r["reward"], r["round"], r["slot"]))[:count]

    def _slots(self, round: int) -> list[Record]:
        """One record a slot: the full trial where there is one."""
        of_slot = {r["slot"]: r for r in self.search if r["round"] == round and not _is_full(r)}
        of_slot |= {r["slot"]: r for r in self.search if r["round"] == round and _is_full(r)}
        return [of_slot[slot] for slot in sorted(of_slot)]

    def _rewards(self, round: int) -> Sequence[float]:
        """What the algorithm was told, by slot."""
        full = {
            r["slot"]: _reward(r)
            for r in self.search
            if r["round"] == round and r["phase"] == "search"
        }
        if self.config.rungs is None:
            return [full[slot] for slot in sorted(full)]
        rungs = [r for r in self.search if r["round"] == round and r["phase"] == "rung"]
        cheap = [_reward(r) for r in sorted(rungs, key=lambda r: r["slot"])]
        line = fit(pairs_of(self.search, round + 1))
        return list(rewards_of_round(cheap, full, line))

    def _is_whole(self, round: int, records: Sequence[Record]) -> bool:
        full = sum(r["phase"] == "search" for r in records)
        slots = len({r["slot"] for r in records})
        return full >= self.config.full_samples and slots == self.config.algorithm.samples

    def _ahead(self, round: int) -> list[list[float]]:
        last = round + 1 == self.config.algorithm.rounds
        ahead = self._slots(round + 1)[: self.config.algorithm.overlap]
        return [] if last else [r["theta"] for r in ahead]


def _is_full(record: Mapping[str, Any]) -> bool:
    return record["phase"] == "search" and record["status"] != "stopped"


def _reward(record: Mapping[str, Any]) -> float:
    return math.nan if record["status"] == "failed" else float(record["reward"])
