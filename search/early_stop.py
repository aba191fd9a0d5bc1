"""When to end a trial part of the way: a threshold for its early score, learned from trials that
were not ended, and none before that has proof.

Proof. Take n trials that ran to their end whatever their early score was, as if drawn alike, and
call rho the reward that k = floor(n / 4) of them are above. Given rho, these k are independent
draws from the thetas with a reward above rho (order statistics form a Markov chain). Let T be the
(r + 1)-th smallest of their early scores, with r chosen from k alone. The part p of all such thetas
whose early score is below T then has the distribution Beta(r + 1, k - r), or is smaller where
scores can be equal (Wilks, "Determination of sample sizes for setting tolerance limits", Annals of
Mathematical Statistics 12, 1941). Its quantile at 90 % is the one-sided bound of Clopper and
Pearson for r events in k, valid here although the threshold was chosen by the data. So with the
largest r for which that is at most 20 %, the rule "end a trial whose early score is below T" loses,
at a confidence of 90 %, at most every fifth theta of the best quarter. The first r that will do is
0 at k = 11, or n = 44; before, there is no rule.

Honesty. The policy moves, and the trials that a rule has spared are no fair sample. Once there is a
rule, only trials count that were exempt from it before they began, by a draw of their place alone:
an eighth of them. So evidence keeps coming in on both sides of the threshold, and a rule that has
become wrong ends itself.

What a trial that was ended is worth to the algorithm is what those like it were worth: the mean
reward of the evidence below the threshold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv

from search.config import EarlyStopConfig

Pair = tuple[float, float]
"""The early score of a trial and the reward that it ended with."""


@dataclass(frozen=True)
class Proof:
    """What a rule has to show.

    Attributes:
        best: the part of the thetas, by reward, that a rule must not lose.
        risk: the largest part of these that it may lose,
        confidence: and how sure that has to be.
        least: trials that it must have ended, had it been there, to be worth having.
        exempt: part of the trials that no rule applies to.
    """

    best: float = 0.25
    risk: float = 0.2
    confidence: float = 0.9
    least: int = 4
    exempt: float = 0.125


@dataclass(frozen=True)
class Rule:
    """Ends trials with an early score below a threshold.

    Attributes:
        below: the threshold.
        reward: what a trial that it ends is worth.
        trials: the evidence: how many ran to their end,
        ended: and how many of them the rule would have ended.
    """

    below: float
    reward: float
    trials: int
    ended: int


def learn(pairs: Sequence[Pair], proof: Proof = Proof()) -> Rule | None:
    """The rule that `pairs`, of trials that ran to their end, prove; None if they prove none."""
    if not pairs:
        return None
    early, rewards = np.array(pairs, dtype=np.float64).T
    # Above the (k + 1)-th highest reward: k of them, or fewer where some are equal.
    best = rewards > np.sort(rewards)[::-1][int(proof.best * len(pairs))]
    lost = may_lose(int(best.sum()), proof)
    if lost is None:
        return None
    below = float(np.sort(early[best])[lost])
    ended = early < below
    if ended.sum() < proof.least:
        return None
    return Rule(below, float(rewards[ended].mean()), len(pairs), int(ended.sum()))


def may_lose(best: int, proof: Proof = Proof()) -> int | None:
    """How many of so many best trials a threshold may lie above; None if none is safe."""
    bounds = betaincinv(1.0 + np.arange(best), best - np.arange(best), proof.confidence)
    safe = int(np.sum(bounds <= proof.risk))  # they rise
    return safe - 1 if safe else None


def rule_of(
    round: int,
    records: Iterable[dict[str, Any]],
    seed: int,
    lag: int = 0,
    proof: Proof = Proof(),
) -> Rule | None:
    """The rule of a round, from what ran to its end in the rounds before.

    A function of the arguments alone, and of no record of `round` or later ones.

    Args:
        records: of a journal, any; those of the phase "search" count.
        seed: the search's.
        lag: how many of the rounds just before do not count: 1 where a round begins before the last
            is over (`algorithm.overlap`).
    """
    rounds: list[list[dict[str, Any]]] = [[] for _ in range(round)]
    for record in records:
        if record["phase"] == "search" and record["round"] < round:
            rounds[record["round"]].append(record)
    evidence: list[list[Pair]] = []
    for number in range(round + 1):
        known = [pair for own in evidence[: max(0, number - lag)] for pair in own]
        rule = learn(known, proof)
        if number < round:
            evidence.append(_evidence(rounds[number], rule, seed, proof))
    return rule


def _evidence(
    records: Iterable[dict[str, Any]], rule: Rule | None, seed: int, proof: Proof
) -> list[Pair]:
    """Of a round's trials those that were to run to their end, whatever their early score."""
    return [
        (record["early"], record["reward"])
        for record in sorted(records, key=lambda record: int(record["slot"]))
        if record["status"] in ("ok", "diverged")
        and record.get("early") is not None
        and (rule is None or is_exempt(seed, record["round"], record["slot"], proof))
    ]


def is_exempt(seed: int, round: int, slot: int, proof: Proof = Proof()) -> bool:
    """Whether the trial of this place runs to its end under any rule; the draw is its own."""
    # A key that neither samples nor training seeds have.
    (word,) = np.random.SeedSequence(seed, spawn_key=(3, round, slot, 0)).generate_state(1)
    return int(word) < proof.exempt * 2**32


def early_stop(
    config: EarlyStopConfig, rule: Rule | None, exempt: bool
) -> dict[str, int | float | None]:
    """What a trial is told of it: when to look, at how many images, and what ends it."""
    applies = rule is not None and not exempt
    return {
        "at": config.at,
        "images": config.images,
        "below": rule.below if rule is not None and applies else None,
        "reward": rule.reward if rule is not None and applies else 0.0,
    }
