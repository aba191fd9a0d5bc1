"""The final race: more repeats for those that can still win, none for those that cannot.

Every candidate runs a few repeats; whoever is then too unlikely to be the best leaves, and the
trials that this saves go to those left, one repeat each at a time, until the budget is spent or one
is left. That one still gets all the repeats that baseline and start have, so that it is compared
with them on equal terms. Repeat k of every candidate has the same training seed. Scores are rewards
on val; test is reported of the winner and decides nothing.

Racing by posterior probability follows Hoeffding races (Maron and Moore 1994) and F-Race (Birattari
et al. 2002), with `search.noise` in the place of their tests.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from search.config import FinalConfig
from search.noise import Scores, probabilities
from search.space import Array

Pair = tuple[int, int]
Candidates = tuple[int, ...]
_OTHERS = ("baseline", "start")


@dataclass(frozen=True)
class Race:
    """How far a race has come.

    Attributes:
        wave: (candidate, repeat) pairs to run next; none when the race is over.
        left: the candidates that may still win, in their order; never none.
        dropped: {candidate: repeats that it had when it left}.
        probability: [candidates] of being the best, from all scores so far; None while unknown.
        saved: trials of the budget that need not be run, as one candidate was left; 0 until the
            race is over.
    """

    wave: tuple[Pair, ...]
    left: Candidates
    dropped: Mapping[int, int]
    probability: Array | None
    saved: int

    @property
    def over(self) -> bool:
        return not self.wave

    def chance(self, candidate: int) -> float | None:
        """The candidate's probability of being the best; None while unknown."""
        return None if self.probability is None else float(self.probability[candidate])


def next_wave(
    results: Scores, candidates: int, config: FinalConfig, others: Scores | None = None
) -> list[Pair]:
    """(candidate, repeat) pairs to run next, of the wave that is under way or of the next one.

    A pure function of what is finished. [] says that the race is over. See `run_race`.
    """
    return list(run_race(results, candidates, config, others).wave)


def most_trials(candidates: int, config: FinalConfig) -> int:
    """The most trials that a race of so many candidates takes."""
    return candidates * config.repeats


def run_race(
    results: Scores, candidates: int, config: FinalConfig, others: Scores | None = None
) -> Race:
    """The race as far as `results` go, decision by decision.

    Each decision uses what was known when it was taken, so the order in which the trials of a wave
    end changes nothing.

    Args:
        results: val rewards (0..1) by (candidate, repeat): 0 for a run that diverged, None for one
            that failed. A candidate that went on where it would have left here, as in a search
            from before there was a race, has not left.
        candidates: how many there are, >= 1.
        config: the final race.
        others: the same by (loss, repeat) for baseline and start, which had the same seeds: they
            only tell how large luck is.
    """
    unspent, repeats = most_trials(candidates, config), min(config.first, config.repeats)
    left, dropped = tuple(range(candidates)), dict[int, int]()
    known: dict[Pair, float | None] = {}
    wave = [(candidate, repeat) for repeat in range(repeats) for candidate in left]
    while wave and all(pair in results for pair in wave):
        known |= {pair: results[pair] for pair in wave}
        unspent -= len(wave)
        if not unspent or all(score is None for score in known.values()):
            wave = []  # nobody is dropped for nothing, and of nothing known there is no race
            break
        chances = probabilities(known, candidates, others)
        if chances is not None:
            went_on = {candidate for candidate, repeat in results if repeat >= repeats}
            staying = _staying(left, chances, config.drop, went_on)
            dropped |= {candidate: repeats for candidate in left if candidate not in staying}
            left = staying
        if len(left) == 1 and repeats >= config.repeats:
            break
        wave = [(candidate, repeats) for candidate in _most_likely(left, chances, unspent)]
        repeats += 1
    chances = probabilities(results, candidates, others)
    pending = tuple(pair for pair in wave if pair not in results)
    return Race(pending, left, dropped, chances, 0 if pending else unspent)


def scores_of(records: Iterable[Mapping[str, Any]]) -> tuple[Scores, Scores]:
    """Val rewards of the final race by (candidate, repeat), and of baseline (0) and start (1)."""
    results: dict[Pair, float | None] = {}
    others: dict[Pair, float | None] = {}
    for record in records:
        reward = None if record["status"] == "failed" else record.get("reward")
        if record["phase"] == "final":
            results[record["round"], record["repeat"]] = reward
        elif record["phase"] in _OTHERS:
            others[_OTHERS.index(record["phase"]), record["repeat"]] = reward
    return results, others


def _staying(left: Sequence[int], chances: Array, least: float, went_on: Set[int]) -> Candidates:
    """Those likely enough to be the best, and always the likeliest."""
    best = max(left, key=lambda one: chances[one])
    return tuple(one for one in left if chances[one] >= least or one == best or one in went_on)


def _most_likely(left: Sequence[int], chances: Array | None, most: int) -> list[int]:
    """As many of `left` as there are trials for, in their order."""
    if chances is None:
        return list(left[:most])
    return sorted(sorted(left, key=lambda one: -chances[one])[:most])
