"""Successive halving within a round: all samples at a cheap fidelity, the best of them in full.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
(arXiv 1502.07943), with two rungs. The samples that are not trained in full still count in the
update of the algorithm: if it only saw those that were chosen, it would take the choice for luck.
Each of them counts for the reward that a line through all trials with both rewards expects. That
the pairs on the line were chosen by their cheap rewards does not bend it: what a regression
expects, given the cheap reward, is the same for all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from search.space import Array

LEAST_PAIRS = 8
"""With fewer, a line of its own says little: it goes through the origin then."""


@dataclass(frozen=True)
class Line:
    """The full reward that a cheap one lets expect.

    Attributes:
        slope: at least 0.
        pairs: how many it is drawn through.
    """

    slope: float
    intercept: float
    pairs: int

    def __call__(self, cheap: ArrayLike) -> Array:
        """Full rewards in [0, 1], in the shape of `cheap`; NaN stays NaN."""
        expected = self.intercept + self.slope * np.asarray(cheap, dtype=np.float64)
        return np.clip(expected, 0.0, 1.0)


def promoted(cheap: ArrayLike, count: int) -> list[int]:
    """The slots to train in full: the `count` highest of `cheap`, in ascending order.

    Equal ones by slot. Failed trials, NaN, come last: of those nothing is known.

    Raises:
        ValueError: there are fewer than `count` of them.
    """
    values = np.asarray(cheap, dtype=np.float64)
    if not 1 <= count <= len(values):
        raise ValueError(f"{count} of {len(values)} trials of a rung; expected 1 to {len(values)}.")
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return sorted(int(slot) for slot in order[:count])


def pairs_of(records: Iterable[dict[str, Any]], rounds: int) -> list[tuple[float, float]]:
    """(cheap, full) rewards of all places that have both, in the rounds 0 to `rounds` - 1.

    A trial that failed has no reward, and one that was stopped has none of its own.
    """
    cheap: dict[tuple[int, int], float] = {}
    full: dict[tuple[int, int], float] = {}
    for record in records:
        if record["round"] < rounds and record["status"] in ("ok", "diverged"):
            place = (record["round"], record["slot"])
            if record["phase"] == "rung":
                cheap[place] = record["reward"]
            elif record["phase"] == "search":
                full[place] = record["reward"]
    return [(cheap[place], full[place]) for place in sorted(cheap.keys() & full.keys())]


def fit(pairs: Sequence[tuple[float, float]], least: int = LEAST_PAIRS) -> Line | None:
    """The line of least squares of full on cheap rewards.

    Where it would fall it is flat: more cheap reward is no reason to expect less. With fewer than
    `least` pairs it is the one from the origin through their middle: what learns nothing cheaply
    learns nothing in full. None if that is nowhere: no pairs, or no cheap reward above 0.
    """
    if not pairs:
        return None
    cheap, full = np.array(pairs, dtype=np.float64).T
    if len(pairs) < least:
        if not cheap.any():
            return None
        return Line(float(full.mean() / cheap.mean()), 0.0, len(pairs))
    apart = cheap - cheap.mean()
    spread = float(apart @ apart)
    slope = max(0.0, float(apart @ full) / spread) if spread > 0 else 0.0
    return Line(slope, float(full.mean() - slope * cheap.mean()), len(pairs))


def rewards_of_round(cheap: ArrayLike, full: dict[int, float], line: Line | None) -> Array:
    """What a round's samples count for, [n] by slot; NaN is no evidence.

    Args:
        cheap: [n] rewards of the rung by slot, NaN where the trial failed.
        full: rewards of the slots that were trained in full, NaN where that failed.
        line: of all rounds up to this one.
    """
    values = np.asarray(cheap, dtype=np.float64)
    counted = np.full(len(values), np.nan) if line is None else line(values)
    for slot, reward in full.items():
        counted[slot] = reward
    return counted
