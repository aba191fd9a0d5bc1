"""Which trials are still to run, and when a search is done. Knows no Ray.

    baseline and start, with the seeds of the final race
    round 0 | round 1 | ... | round T - 1       each waits for the one before, its first
                                                `algorithm.overlap` samples aside
    final race: the policy's best guess and the best trials, with fresh seeds

The plan is a pure function of the configuration and the records; it may be rebuilt from a
journal at any time, and goes on where the records end.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.algorithm import SearchAlgorithm
from search.algorithms import build_algorithm
from search.config import SearchConfig
from search.journal import Journal, TrialKey
from search.seeds import trial_seed
from search.space import Array, SearchSpace


@dataclass(frozen=True)
class Assignment:
    """A trial to run: theta is None for the baseline."""

    key: TrialKey
    theta: tuple[float, ...] | None
    seed: int
    label: str


class Plan:
    """The state of one search.

    Args:
        space: theta's coordinates.
        config: the search.
        journal: where records are read from now, and kept from now on.
        baseline: what the baseline is called in tables.

    Attributes:
        problem: why the search cannot go on, or None.
    """

    def __init__(
        self, space: SearchSpace, config: SearchConfig, journal: Journal, baseline: str
    ) -> None:
        self.config = config
        self.space = space
        self.journal = journal
        self.baseline = baseline
        self.problem: str | None = None
        self.algorithm: SearchAlgorithm = build_algorithm(space, config.algorithm, config.seed)
        self._records: dict[TrialKey, dict[str, Any]] = {}
        self._assigned: dict[TrialKey, Assignment] = {}
        self._kept: dict[TrialKey, dict[str, Any]] = {}
        repeats = range(config.final.repeats)
        for repeat in repeats:
            self._assign(TrialKey("baseline", 0, 0, repeat), None, baseline)
        for repeat in repeats:
            self._assign(TrialKey("start", 0, 0, repeat), space.start, space.start_label)
        self._assign_round()
        self._replay()

    @property
    def finished(self) -> bool:
        """Whether every trial of the search, the final race included, has its record."""
        return self.algorithm.finished and not self.open and self.problem is None

    @property
    def open(self) -> list[Assignment]:
        """Trials without a record that can run now, in the order to run them."""
        return [a for key, a in self._assigned.items() if key not in self._records]

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records so far, in the order of their assignment."""
        return [self._records[key] for key in self._assigned if key in self._records]

    @property
    def total_trials(self) -> int:
        algorithm, final = self.config.algorithm, self.config.final
        return algorithm.rounds * algorithm.samples + (2 + final.candidates) * final.repeats

    def assignment(self, key: TrialKey) -> Assignment | None:
        return self._assigned.get(key)

    def record(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """Take in a finished trial: onto storage first, then into the policy.

        A record of a trial that has one already, or that was never assigned, is ignored.

        Returns:
            The records that are new: this one, and those on storage that had waited for it.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        key = TrialKey.of(record)
        if key not in self._assigned or key in self._records:
            return []
        self.journal.write(record)
        self._apply(record)
        return [record, *self._take_kept()]

    def _replay(self) -> None:
        self._kept = {TrialKey.of(record): record for record in self.journal.records()}
        self._take_kept()

    def _take_kept(self) -> list[dict[str, Any]]:
        """Apply what is on storage and open by now: after a lost record, later ones wait for it."""
        taken = []
        # A record opens the assignments of the next round, so one pass is not enough.
        while self.problem is None:
            ready = [key for key, record in self._kept.items() if self._awaits(record)]
            if not ready:
                break
            for key in ready:
                taken.append(self._kept.pop(key))
                self._apply(taken[-1])
        return taken

    def _awaits(self, record: dict[str, Any]) -> bool:
        """Whether `record` is of a trial that is open: of its key, and of its theta.

        A round that followed a record which was lost, and came out otherwise, runs again.
        """
        key = TrialKey.of(record)
        assignment = self._assigned.get(key)
        if assignment is None or key in self._records:
            return False
        theta = None if assignment.theta is None else list(assignment.theta)
        return bool(record.get("theta") == theta)

    def retry_failed_round(self) -> None:
        """Take back the failures of the round, or the final race, that stopped the search.

        For when somebody resumes a search after mending what made them fail. What made them fail
        failed the baseline and the start too, so these are tried again with them.
        """
        if self.problem is None:
            return
        failed = [
            key
            for key, record in self._records.items()
            if record["status"] == "failed"
            and (key.phase != "search" or key.round == self.algorithm.round)
        ]
        self.journal.forget(failed)
        for key in failed:
            del self._records[key]
        self.problem = None

    def _apply(self, record: dict[str, Any]) -> None:
        key = TrialKey.of(record)
        self._records[key] = record
        if key.phase == "search" and all(key in self._records for key in self._round_keys()):
            self._end_round()
        elif key.phase == "final":
            self._check_race()

    def _check_race(self) -> None:
        """A final race of which nothing is known has no winner, and is not the end."""
        race = [self._records.get(key) for key in self._assigned if key.phase == "final"]
        ended = [record for record in race if record is not None]
        if len(ended) == len(race) and all(record["status"] == "failed" for record in ended):
            errors = sorted({str(record["error"]) for record in ended})
            self.problem = f"every trial of the final race failed. Errors: {' | '.join(errors)}"

    def _round_keys(self) -> list[TrialKey]:
        round = self.algorithm.round
        return [TrialKey("search", round, s, 0) for s in range(self.config.algorithm.samples)]

    def _end_round(self) -> None:
        records = [self._records[key] for key in self._round_keys()]
        rewards = [math.nan if r["status"] == "failed" else r["reward"] for r in records]
        failed = sum(map(math.isnan, rewards))
        if 2 * failed > len(rewards):
            errors = sorted({str(r["error"]) for r in records if r["status"] == "failed"})
            self.problem = (
                f"{failed} of {len(rewards)} samples of round {self.algorithm.round} failed, and "
                f"a policy cannot learn from fewer than half. Errors: {' | '.join(errors)}"
            )
            return
        self.algorithm.tell(rewards)
        self._assign_round()

    def _assign_round(self) -> None:
        round = self.algorithm.round
        self.journal.write_policy(round, *self.algorithm.policy())
        if self.algorithm.finished:
            self._assign_finals()
            return
        self._assign_samples(round, self.algorithm.ask())
        # Last of all that is open: only a slot that would idle takes one of them.
        self._assign_samples(round + 1, self.algorithm.ask_ahead())

    def _assign_samples(self, round: int, thetas: Array) -> None:
        for slot, theta in enumerate(thetas):
            key = TrialKey("search", round, slot, 0)
            if key not in self._assigned:  # as those are that were drawn ahead
                self._assign(key, theta.tolist(), f"round {round} slot {slot}")

    def _assign_finals(self) -> None:
        """The best guess, then the best samples; repeats outermost, so that none waits."""
        samples = [r for r in self._records.values() if r["phase"] == "search"]
        ranked = sorted(
            (r for r in samples if r["status"] == "ok"),
            key=lambda r: (-r["reward"], r["round"], r["slot"]),
        )
        guess = self.algorithm.best_guess().tolist()
        name = "policy mean" if self.config.algorithm.type == "ppo2" else "best guess"
        candidates = [(guess, name)]
        for record in ranked:
            if len(candidates) >= self.config.final.candidates:
                break
            if not any(np.array_equal(record["theta"], theta) for theta, _ in candidates):
                candidates.append((record["theta"], record["label"]))
        for repeat in range(self.config.final.repeats):
            for index, (theta, label) in enumerate(candidates):
                self._assign(TrialKey("final", index, 0, repeat), theta, label)

    def _assign(self, key: TrialKey, theta: Any, label: str) -> None:
        seed = trial_seed(self.config.seed, *key)
        point = None if theta is None else tuple(theta)
        self._assigned[key] = Assignment(key, point, seed, label)
