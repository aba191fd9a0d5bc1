"""Who won: baseline, start and the final candidates, over the repeats of the final race.

The winner is chosen by its scores on val and reported by those on test, the third split, which thus
has no say in it. What is left of the flattery is the luck of the winner's own runs, which val and
test share.

Pure functions of the journal's records. A score is the search's reward, on whichever split. A
repeat that diverged scores 0, for that is what the loss did; one that failed is no evidence and is
left out.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.config import FinalConfig
from search.history import History
from search.race import Race, run_race, scores_of

CLEAR = 2.0  # a difference is called clear above so many combined standard errors
_RACES = ("baseline", "start", "final")


@dataclass(frozen=True)
class Standing:
    """One loss in the final race.

    Attributes:
        label: what it is called.
        phase: "baseline", "start" or "final".
        candidate: the index of a final candidate, 0 otherwise.
        theta: its point of the unit cube; None for the baseline.
        control_points: its curves by name; None where it has none.
        n: repeats that count, that is, all but the failed ones.
        mean_test, std_test, stderr_test: mean score (0..1) on the third split over the repeats,
            the sample standard deviation and the standard error of the mean; None where n is too
            small (0; 1 for the two spreads).
        mean_val, stderr_val: the same on the search validation split, where rewards come from.
        statuses: how many repeats ended in each way.
        probability: how likely a final candidate is to have the best mean score on val of them all,
            had each as many repeats as one likes (`search.noise`); None for baseline and start,
            and while too few repeats are known.
        dropped: after how many repeats it left the race; None if it did not.
    """

    label: str
    phase: str
    candidate: int
    theta: tuple[float, ...] | None
    control_points: Mapping[str, Sequence[Sequence[float]]] | None
    n: int
    mean_test: float | None
    std_test: float | None
    stderr_test: float | None
    mean_val: float | None
    stderr_val: float | None
    statuses: Mapping[str, int]
    probability: float | None = None
    dropped: int | None = None


def standings(source: History | Iterable[Mapping[str, Any]]) -> list[Standing]:
    """Baseline, start, then the final candidates in their order; search trials are left out.

    Args:
        source: a history, or journal records.
    """
    records, config = _read(source)
    groups: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for record in records:
        if record["phase"] in _RACES:
            key = _RACES.index(record["phase"]), record["round"]
            groups.setdefault(key, []).append(record)
    race = _race(records, config)
    return [_standing(groups[key], race) for key in sorted(groups)]


def race_of(source: History | Iterable[Mapping[str, Any]]) -> Race | None:
    """The final race as far as it has come; None before its first result.

    Args:
        source: a history, or journal records, which are taken to be of a race as it is by default.
    """
    return _race(*_read(source))


def winner(table: Iterable[Standing]) -> Standing | None:
    """The candidate with the best mean on val of those that did not leave the race.

    The first of equals; None as long as no candidate has a score.
    """
    ranked = [
        one
        for one in table
        if one.phase == "final"
        and one.dropped is None
        and None not in (one.mean_val, one.mean_test)
    ]
    return max(ranked, key=lambda one: one.mean_val or 0.0, default=None)


def confidence(table: Iterable[Standing]) -> float | None:
    """How sure it is that the winner is the best of the candidates, 0..1; None while unknown."""
    table = list(table)
    best = winner(table)
    rivals = [one for one in table if one.phase == "final" and one is not best]
    return best.probability if best is not None and rivals else None


def verdict(table: Sequence[Standing], score: str = "AP") -> str:
    """One plain sentence: how the winner stands to the start and to the baseline.

    Args:
        score: what the standings' scores are called (`reward.reward_name`).
    """
    best = winner(table)
    if best is None:
        return "The final race has no result yet, so nothing can be said about the search."
    rivals = [one for one in table if one.phase in ("start", "baseline")]
    rivals.sort(key=lambda one: one.phase != "start")
    claims = [_compare(best, rival) for rival in rivals] or ["has nothing to be compared with"]
    sure, candidates = confidence(table), sum(one.phase == "final" for one in table)
    if sure is not None:
        claims.insert(0, f"is the best of the {candidates} candidates {likely(sure)}")
    repeats = f"{best.n} repeat{'s' if best.n != 1 else ''}"
    if best.stderr_test is not None:
        repeats += f", standard error {best.stderr_test:.4f}"
    reached = f"The winner, {best.label}, reaches {score} {best.mean_test:.4f} on the third split"
    *claims, last = claims
    listed = "; it ".join(claims) + "; and it " * bool(claims) + last
    return f"{reached} (mean of {repeats}): it {listed}."


def likely(probability: float) -> str:
    """In words; nothing is certain."""
    if probability > 0.99:
        return "with a probability above 99 %"
    return f"with a probability of {100 * probability:.0f} %"


def difference(one: Standing, other: Standing) -> tuple[float, float | None]:
    """Difference of the means on the third split, and its standard error (Welch).

    The standard error is None where either side has fewer than two repeats.
    """
    if one.mean_test is None or other.mean_test is None:
        raise ValueError("a standing without a single counted repeat cannot be compared")
    gap = one.mean_test - other.mean_test
    if one.stderr_test is None or other.stderr_test is None:
        return gap, None
    return gap, math.hypot(one.stderr_test, other.stderr_test)


def _compare(best: Standing, rival: Standing) -> str:
    name = "the start of the search" if rival.phase == "start" else f"the baseline {rival.label}"
    if rival.mean_test is None:
        return f"cannot be compared with {name}, which has no counted repeat"
    gap, error = difference(best, rival)
    numbers = f"{rival.mean_test:.4f}, difference {gap:+.4f}"
    if error is None:
        claim = "is ahead of" if gap > 0 else "did not beat"
        return f"{claim} {name} ({numbers}; too few repeats to say whether that is clear)"
    numbers += f", standard error {error:.4f}"
    clear = abs(gap) > CLEAR * error
    if gap > 0:
        verb, remark = ("clearly beats", "") if clear else ("is ahead of", "; not clearly")
    else:
        verb, remark = "did not beat", "; clearly below it" if clear else "; no clear difference"
    return f"{verb} {name} ({numbers}{remark})"


def _standing(records: Sequence[Mapping[str, Any]], race: Race | None) -> Standing:
    first = records[0]
    candidate = int(first["round"]) if first["phase"] == "final" else 0
    raced = race if first["phase"] == "final" else None
    test = [score for score in map(_test_score, records) if score is not None]
    val = [record["reward"] for record in records if record.get("reward") is not None]
    return Standing(
        label=first["label"],
        phase=first["phase"],
        candidate=candidate,
        theta=None if first["theta"] is None else tuple(first["theta"]),
        control_points=first.get("control_points"),
        n=len(test),
        mean_test=statistics.fmean(test) if test else None,
        std_test=statistics.stdev(test) if len(test) > 1 else None,
        stderr_test=_stderr(test),
        mean_val=statistics.fmean(val) if val else None,
        stderr_val=_stderr(val),
        statuses=dict(Counter(record["status"] for record in records)),
        probability=raced.chance(candidate) if raced else None,
        dropped=raced.dropped.get(candidate) if raced else None,
    )


def _stderr(scores: Sequence[float]) -> float | None:
    """Of their mean."""
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None


def _read(source: History | Iterable[Mapping[str, Any]]) -> tuple[list[Any], FinalConfig]:
    if isinstance(source, History):
        return list(source.records), _final_config(source.config)
    return list(source), FinalConfig()


def _race(records: Sequence[Mapping[str, Any]], config: FinalConfig) -> Race | None:
    results, others = scores_of(records)
    if not results:
        return None
    return run_race(results, 1 + max(candidate for candidate, _ in results), config, others)


def _final_config(config: Mapping[str, Any]) -> FinalConfig:
    """Of a config.yaml; the defaults where it says nothing that can be read."""
    try:
        return FinalConfig.model_validate(config.get("final", {}))
    except ValueError:
        return FinalConfig()


def _test_score(record: Mapping[str, Any]) -> float | None:
    if record["status"] == "diverged":
        return 0.0
    if record["status"] == "failed":
        return None
    if record.get("test_reward") is not None:
        return float(record["test_reward"])
    # Of a record from before rewards could be chosen: they were AP.
    value = (record["test"] or {}).get("AP")
    return None if value is None or math.isnan(value) else float(value)
