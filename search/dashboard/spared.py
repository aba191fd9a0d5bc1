"""What a search did not have to run, and how its final race went, for the page."""

from collections.abc import Mapping
from typing import Any

from search.dashboard.values import number, short
from search.history import History
from search.noise import spread
from search.rejections import RoundOfSamples, rejections
from search.result import notes_of
from search.standings import race_of, standings, winner

EXAMPLES = 200
"""How many rejected samples the page lists; it says how many there are."""


def spared_data(history: History) -> dict[str, Any] | None:
    """Rejected, cheap and stopped trials by round; None in a search without any of that."""
    screened = rejections(history)
    lines = [line for title, line in notes_of(history) if title not in ("noise", "race")]
    if not lines:
        return None
    stages = list(screened.stages) if screened else []
    ended = _ended(history)
    rejected = [
        [own.round, one.slot, one.attempt, short(one.stage), short(one.reason), one.waived]
        for own in history.samples
        for one in own.rejected
    ]
    drawn = {own.round: own for own in history.samples}
    return {
        "lines": [short(line) for line in lines],
        "stages": [short(stage) for stage in stages],
        "rungs": any(counts.get("rung") for counts in ended.values()),
        "stopped": any(counts.get("stopped") for counts in ended.values()),
        "rounds": [
            _round(which, drawn.get(which), stages, ended.get(which, {}))
            for which in sorted(drawn.keys() | ended.keys())
        ],
        "rejected": rejected[:EXAMPLES],
        "in_all": len(rejected),
    }


def race_data(history: History) -> dict[str, Any] | None:
    """The candidates, the likeliest first; None before the first of them has a score."""
    race, table = race_of(history), standings(history)
    if race is None:
        return None
    best = winner(table)
    candidates = [one for one in table if one.phase == "final"]
    candidates.sort(key=lambda one: (-(one.probability or 0.0), one.candidate))
    return {
        "over": race.over,
        "saved": race.saved,
        "rows": [
            {
                "label": short(one.label),
                "winner": one is best,
                "n": one.n,
                "val": number(one.mean_val),
                "stderr": number(one.stderr_val),
                "probability": number(one.probability, 3),
                "dropped": one.dropped,
            }
            for one in candidates
        ],
    }


def noise_data(history: History) -> dict[str, Any] | None:
    """How far rewards of one loss lie apart when only the seed changes."""
    luck = spread(history.records)
    # With more digits than `number` leaves: the page rounds it as the terminal does.
    return None if luck is None else {"sd": round(luck.sd, 8), "n": luck.n}


def _round(
    which: int, own: RoundOfSamples | None, stages: list[str], ended: Mapping[str, int]
) -> list[Any]:
    """[round, drawn, one count a stage, cheap trials, whole ones, stopped ones]."""
    counts = [sum(one.stage == stage for one in own.rejected) if own else 0 for stage in stages]
    drawn = own.drawn if own else None
    return [which, drawn, counts, *(ended.get(name, 0) for name in ("rung", "search", "stopped"))]


def _ended(history: History) -> dict[int, dict[str, int]]:
    """How many trials of a round were of its rung, whole ones, and stopped ones."""
    rounds: dict[int, dict[str, int]] = {}
    for record in history.records:
        if record["phase"] in ("rung", "search"):
            stopped = record["status"] == "stopped"
            counts = rounds.setdefault(record["round"], {})
            for name in (record["phase"], *(["stopped"] if stopped else [])):
                counts[name] = counts.get(name, 0) + 1
    return rounds
