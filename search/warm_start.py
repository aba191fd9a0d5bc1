"""What an experiment knows of good thetas: the best one, and how far good ones lie about it.

Shape letters: N samples, D coordinates of theta, K segments of a curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from paploss.errors import BadExperiment
from search.history import History
from search.journal import TrialKey
from search.reward import reward_name
from search.space import Array
from search.standings import standings, winner

FLOOR, CEILING = 0.05, 0.2
"""A narrower search hardly moves, and a wider one is as good as a cold start."""
ENOUGH, SHARE = 16, 4
"""Of so many samples the spread is told, by the best one in `SHARE`."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Best:
    """A theta to start from.

    Attributes:
        theta: None for the baseline, whose criterion the configuration has.
        label: its place in the experiment.
        details: its reward, in words.
    """

    theta: tuple[float, ...] | None
    label: str
    details: str


def best_of(history: History, trial: str | None = None) -> Best:
    """The winner of the final race, which is by val; before the race, the best sample.

    The third split has no say: its scores are for the comparison at the end. A mean of several good
    thetas is not taken: it need not be good itself, and nobody has tried it; the algorithm's best
    guess often is one, and has been tried as a candidate of the race. A sample's reward has the
    luck of its seed in it, but that is small beside what samples differ by before the race.

    Args:
        trial: a key such as "search-003-05-0": the theta of that one.

    Raises:
        BadExperiment: no such trial, or none that could be started from.
    """
    if trial is not None:
        return _of_trial(history, trial)
    score = reward_name(history.config)
    best = winner(standings(history))
    if best is not None and best.mean_val is not None:
        found = f"{score} {best.mean_val:.4f} on val, the winner of its final race"
        return Best(best.theta, best.label, found)
    samples = sorted(_samples(history), key=lambda record: -record["reward"])
    if not samples:
        raise BadExperiment(
            f"{history.path} has no finished sample, so there is nothing to start from. Give "
            "another experiment, or take `warm_start` out."
        )
    return _of_record(samples[0], score, f"the best of {len(samples)} samples so far")


def spread_about(mean: ArrayLike, samples: ArrayLike) -> Array:
    """Standard deviation of good samples about `mean`, by coordinate: [D] in [FLOOR, CEILING].

    CEILING where there are too few samples to tell.

    Args:
        mean: [D].
        samples: [N, D], the best first; of N, N / SHARE are called good.
    """
    center, thetas = np.asarray(mean, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if len(thetas) < ENOUGH:
        return np.full(center.shape, CEILING)
    good = thetas[: len(thetas) // SHARE]
    spread: Array = np.sqrt(((good - center) ** 2).mean(axis=0)).clip(FLOOR, CEILING)
    return spread


def samples_of(history: History) -> list[tuple[float, ...]]:
    """Thetas of the samples that were trained in full and ended well, the best first."""
    ranked = sorted(_samples(history), key=lambda record: -record["reward"])
    return [tuple(record["theta"]) for record in ranked]


# --- curves of other numbers of segments ------------------------------------------------------


def places_of(points: ArrayLike, segments: int) -> Array:
    """Where `segments` segments have their points on a curve: [segments + 1] in units of its own.

    More are had by halving the longest ones, which leaves the curve as it is; fewer by leaving out
    the points that change it the least (the smallest triangle with its neighbours; Visvalingam and
    Whyatt, 1993).

    Args:
        points: [K + 1, 2].
    """
    places: Array = np.arange(len(np.asarray(points)), dtype=np.float64)
    while len(places) <= segments:
        steps = np.diff(at_places(points, places), axis=0)
        longest = int(np.argmax(np.hypot(*steps.T)))
        places = np.insert(places, longest + 1, places[longest : longest + 2].mean())
    while len(places) > segments + 1:
        steps = np.diff(at_places(points, places), axis=0)
        before, after = steps[:-1], steps[1:]
        areas = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
        places = np.delete(places, 1 + int(np.argmin(areas)))
    return places


def at_places(points: ArrayLike, places: Array) -> Array:
    """The points [len(places), 2] of a curve [K + 1, 2] at `places`, 0 to K."""
    corners = np.asarray(points, dtype=np.float64)
    numbers = np.arange(len(corners))
    return np.stack([np.interp(places, numbers, axis) for axis in corners.T], axis=1)


# --- inside -------------------------------------------------------------------------------------


def _samples(history: History) -> Sequence[Record]:
    """Search trials that ended well; not those of rungs or stopped early: theirs are estimates."""
    search = [r for r in history.records if r["phase"] == "search" and r["status"] == "ok"]
    return [record for record in search if record["theta"] and record["reward"] is not None]


def _of_trial(history: History, trial: str) -> Best:
    records = {str(TrialKey.of(dict(record))): record for record in history.records}
    if trial not in records:
        raise BadExperiment(
            f"{history.path} has no trial {trial!r}; the names of its trials are those of the "
            f"files in {history.path / 'journal'}, such as search-000-00-0."
        )
    return _of_record(records[trial], reward_name(history.config), "as its one trial has it")


def _of_record(record: Record, score: str, said: str) -> Best:
    theta = None if record["theta"] is None else tuple(record["theta"])
    reward = "no reward" if record["reward"] is None else f"{score} {record['reward']:.4f} on val"
    return Best(theta, record["label"], f"{reward}, {said}")
