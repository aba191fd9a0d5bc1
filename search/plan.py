"""Which trials are still to run, and when a search is done. Knows no Ray.

    baseline and start, with the seeds of the final race
    round 0 | round 1 | ... | round T - 1       each waits for the one before, its first
                                                `algorithm.overlap` samples aside
    final race: the policy's best guess and the best trials, with fresh seeds

The plan is a pure function of the configuration and the records; it may be rebuilt from a
journal at any time, and goes on where the records end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from search import rungs
from search.algorithm import SearchAlgorithm
from search.algorithms import build_algorithm
from search.config import SearchConfig
from search.early_stop import Rule, early_stop, is_exempt, rule_of
from search.finalists import finalists
from search.journal import Journal, TrialKey
from search.ledger import Assignment, Ledger
from search.race import most_trials, next_wave, scores_of
from search.rejections import Rejections
from search.screen import Screen
from search.seeds import trial_seed
from search.space import Array, SearchSpace


class Plan:
    """The state of one search.

    Args:
        space: theta's coordinates.
        config: the search.
        journal: where records are read from now, and kept from now on.
        baseline: what the baseline is called in tables.
        screen: what samples have to pass before they are tried; one that was asked by nobody yet.
        draw: whether to draw a round whose samples are not on storage. Drawing may take minutes;
            who only asks how far a search has come does without it, and sees nothing open there.

    Attributes:
        problem: why the search cannot go on, or None.
        notes: lines to show to the user, from the oldest; whoever shows them takes them out.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: SearchConfig,
        journal: Journal,
        baseline: str,
        screen: Screen | None = None,
        *,
        draw: bool = True,
    ) -> None:
        self.config = config
        self.space = space
        self.journal = journal
        self.baseline = baseline
        self.problem: str | None = None
        self.notes: list[str] = []
        self.algorithm: SearchAlgorithm = build_algorithm(
            space, config.algorithm, config.seed, screen
        )
        self._draws, self._drawn = draw, False
        self._candidates: list[tuple[list[float], str]] = []
        self._rule: Rule | None = None
        self._ledger = Ledger(journal)
        repeats = range(config.final.repeats)
        for repeat in repeats:
            self._assign(TrialKey("baseline", 0, 0, repeat), None, baseline)
        for repeat in repeats:
            self._assign(TrialKey("start", 0, 0, repeat), space.start, space.start_label)
        self._assign_round()
        self._take_ready()

    @property
    def finished(self) -> bool:
        """Whether every trial of the search, the final race included, has its record."""
        return self.algorithm.finished and not self.open and self.problem is None

    @property
    def open(self) -> list[Assignment]:
        """Trials without a record that can run now, in the order to run them."""
        return self._ledger.open

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records so far, in the order of their assignment."""
        return self._ledger.records

    @property
    def total_trials(self) -> int:
        """At most so many; a race may end early."""
        algorithm, final = self.config.algorithm, self.config.final
        round = self.config.full_samples + (algorithm.samples if self.config.rungs else 0)
        return algorithm.rounds * round + 2 * final.repeats + most_trials(final.candidates, final)

    def assignment(self, key: TrialKey) -> Assignment | None:
        return self._ledger.get(key)

    def record(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """Take in a finished trial: onto storage first, then into the policy.

        A record of a trial that has one already, or that was never assigned, is ignored.

        Returns:
            The records that are new: this one, and those on storage that had waited for it.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        if not self._ledger.awaits(TrialKey.of(record)):
            return []
        self._ledger.write(record)
        self._go_on(record)
        return [record, *self._take_ready()]

    def _take_ready(self) -> list[dict[str, Any]]:
        """Go on with what is on storage: after a lost record, later ones wait for it."""
        taken = []
        # A record opens the assignments of the next round, so one pass is not enough.
        while self.problem is None and (ready := self._ledger.take_ready()):
            for record in ready:
                self._ledger.enter(record)
                self._go_on(record)
            taken += ready
        return taken

    def _go_on(self, record: dict[str, Any]) -> None:
        if TrialKey.of(record).phase == "final":
            self._go_on_with_race()
        else:
            self._go_on_with_rounds()

    def retry_failed_round(self) -> None:
        """Take back the failures of the round, or the final race, that stopped the search.

        For when somebody resumes a search after mending what made them fail. What made them fail
        failed the baseline and the start too, so these are tried again with them.
        """
        if self.problem is None:
            return
        failed = [TrialKey.of(r) for r in self._ledger.records if r["status"] == "failed"]
        current = self.algorithm.round
        sampled = ("rung", "search")
        self._ledger.take_back(
            [key for key in failed if key.phase not in sampled or key.round == current]
        )
        self.problem = None

    # --- rounds ---------------------------------------------------------------------------------

    def _go_on_with_rounds(self) -> None:
        """End the round if all is known that it needs, and begin what follows."""
        if self.algorithm.finished or not self._drawn:
            return
        start = self._ledger.keys("start")
        if self.algorithm.learns_from_start and not self._ledger.all_known(start):
            return
        if self.config.rungs and not self._promoted():
            return
        if self._ledger.all_known(self._round_keys()):
            self._end_round()

    def _round_keys(self, phase: str = "search") -> list[TrialKey]:
        """Of the current round, by slot."""
        round = self.algorithm.round
        slots = range(self.config.algorithm.samples)
        keys = (TrialKey(phase, round, slot, 0) for slot in slots)
        return [key for key in keys if key in self._ledger]

    def _promoted(self) -> bool:
        """Whether the round's rung is over; the best of it are assigned in full then."""
        rung = self._round_keys("rung")
        if not self._ledger.all_known(rung):
            return False
        if self._too_many_failed(rung):
            return False
        cheap = [self._ledger.reward(key) for key in rung]
        for slot in rungs.promoted(cheap, self.config.full_samples):
            theta = self._ledger[rung[slot]].theta
            self._assign_sample(TrialKey("search", rung[slot].round, slot, 0), theta)
        return True

    def _too_many_failed(self, keys: Sequence[TrialKey]) -> bool:
        """Whether fewer than half are left to learn from; that is a problem then."""
        failed = self._ledger.failures(keys)
        if 2 * len(failed) <= len(keys):
            return False
        errors = sorted({str(record["error"]) for record in failed})
        self.problem = (
            f"{len(failed)} of {len(keys)} samples of round {self.algorithm.round} failed, and "
            f"a policy cannot learn from fewer than half. Errors: {' | '.join(errors)}"
        )
        return True

    def _end_round(self) -> None:
        keys = self._round_keys()
        if self._too_many_failed(keys):
            return
        if self.algorithm.learns_from_start and self.algorithm.round == 0:
            start = self._ledger.keys("start")
            self.algorithm.tell_start([self._ledger.reward(key) for key in start])
        if self.config.rungs:
            rewards = self._rewards_with_rungs()
        else:
            rewards = [self._ledger.reward(key) for key in keys]
        self.algorithm.tell(rewards)
        self._assign_round()

    def _rewards_with_rungs(self) -> list[float]:
        """What the samples of the round count for: rewards in full, or what the rung says."""
        line = rungs.fit(rungs.pairs_of(self.records, self.algorithm.round + 1))
        cheap = [self._ledger.reward(key) for key in self._round_keys("rung")]
        full = {key.slot: self._ledger.reward(key) for key in self._round_keys()}
        counted: list[float] = rungs.rewards_of_round(cheap, full, line).tolist()
        return counted

    def _assign_round(self) -> None:
        round = self.algorithm.round
        self.journal.write_policy(round, *self.algorithm.policy())
        if self.algorithm.finished:
            self._begin_race()
            return
        self._drawn = self._draw()
        if not self._drawn:
            return
        self._rule = self._rule_of_early_stop()
        self._assign_samples(round, self.algorithm.ask())
        # Last of all that is open: only a slot that would idle takes one of them.
        self._assign_samples(round + 1, self.algorithm.ask_ahead())

    def _rule_of_early_stop(self) -> Rule | None:
        """What ends trials of this round early, as far as the rounds before have proven it."""
        if self.config.early_stop is None:
            return None
        lag = 1 if self.config.algorithm.overlap else 0
        return rule_of(self.algorithm.round, self.records, self.config.seed, lag)

    def _draw(self) -> bool:
        """Have the round's samples, from storage if they are there; whether they are known."""
        algorithm = self.algorithm
        name = f"round-{algorithm.round:03d}"
        if algorithm.recall(self.journal.samples(name)):
            return True
        if not self._draws:
            return False
        self.journal.write_samples(name, algorithm.samples())
        screened = Rejections.of(algorithm.rejections, algorithm.config.samples)
        if screened.rejected:
            self.notes.append(f"round {algorithm.round}: {screened.line()}")
        return True

    def _assign_samples(self, round: int, thetas: Array) -> None:
        phase = "rung" if self.config.rungs else "search"
        for slot, theta in enumerate(thetas):
            key = TrialKey(phase, round, slot, 0)
            if key not in self._ledger:  # as those are that were drawn ahead
                self._assign_sample(key, theta.tolist())

    def _assign_sample(self, key: TrialKey, theta: Any) -> None:
        if key in self._ledger:
            return
        stop = None
        if self.config.early_stop and key.phase == "search":
            exempt = is_exempt(self.config.seed, key.round, key.slot)
            stop = early_stop(self.config.early_stop, self._rule, exempt)
        self._assign(key, theta, f"round {key.round} slot {key.slot}", stop)

    # --- the race -------------------------------------------------------------------------------

    def _begin_race(self) -> None:
        kept = self.journal.samples("final")
        if kept.get("evidence") == self.algorithm.evidence:
            self._candidates = [(theta, label) for theta, label in kept["candidates"]]
        else:
            self._candidates = finalists(
                self.algorithm, self._ledger.records, self.config.final.candidates
            )
            evidence = self.algorithm.evidence
            self.journal.write_samples(
                "final", {"evidence": evidence, "candidates": self._candidates}
            )
        self._assign_wave()

    def _assign_wave(self) -> None:
        """What the race needs next, repeats outermost, so that no candidate waits for another."""
        results, others = scores_of(self._ledger.records)
        wave = next_wave(results, len(self._candidates), self.config.final, others)
        for candidate, repeat in sorted(wave, key=lambda pair: pair[::-1]):
            key = TrialKey("final", candidate, 0, repeat)
            if key not in self._ledger:
                self._assign(key, *self._candidates[candidate])

    def _go_on_with_race(self) -> None:
        race = self._ledger.keys("final")
        if not self._ledger.all_known(race):
            return
        self._assign_wave()
        if len(self._ledger.keys("final")) > len(race):
            return
        # A race of which nothing is known has no winner, and is not the end.
        failed = self._ledger.failures(race)
        if len(failed) == len(race):
            errors = sorted({str(record["error"]) for record in failed})
            self.problem = f"every trial of the final race failed. Errors: {' | '.join(errors)}"

    def _assign(
        self, key: TrialKey, theta: Any, label: str, stop: Mapping[str, Any] | None = None
    ) -> None:
        paired = self.config.paired_seeds and key.phase in ("rung", "search")
        slot = 0 if paired else key.slot
        seed = trial_seed(self.config.seed, key.phase, key.round, slot, key.repeat)
        point = None if theta is None else tuple(theta)
        self._ledger.assign(Assignment(key, point, seed, label, stop))
