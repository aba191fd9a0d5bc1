"""At the same cost: fewer samples in full, or more of them cheaply first and the best in full?

One round of successive halving, made up from thetas that were trained at all fidelities: samples
are drawn from them with replacement, so it holds for searches that draw samples as good and as bad
as these.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import head, row

Array = NDArray[np.float64]
BUDGETS = (8, 16, 32)
FACTORS = (2, 4)
_RESAMPLES = 4000


def halving_table(
    full: Array, again: Array, cheap: Mapping[str, Array], costs: Mapping[str, float]
) -> str:
    """What the best sample is worth, by cost in full trials, as Markdown.

    Args:
        full: [N] rewards by which the best is chosen in the end.
        again: [N] rewards with another seed, which chose nothing: what the chosen one is worth.
        cheap: [N] rewards at each fidelity.
        costs: of one trial at each, in full trials.
    """
    lines = [head(["samples", *(f"cost of {budget} full trials" for budget in BUDGETS)])]
    lines.append(row(["all in full", *_cells(full, again, full, 0.0, 1)]))
    for name, rewards in cheap.items():
        for factor in FACTORS:
            told = f"{name} first, one in {factor} in full"
            lines.append(row([told, *_cells(full, again, rewards, costs[name], factor)]))
    return "\n".join(lines)


def samples_of(budget: float, cost: float, factor: int) -> int:
    """How many samples have a cheap trial each, and one in `factor` of them a full one."""
    return int(budget / (cost + 1 / factor) + 1e-9)


def _cells(full: Array, again: Array, cheap: Array, cost: float, factor: int) -> Sequence[str]:
    cells = []
    for budget in BUDGETS:
        count = samples_of(budget, cost, factor)
        cells.append(f"{best_of(full, again, cheap, count, factor):.3f} ({count})")
    return cells


def best_of(full: Array, again: Array, cheap: Array, count: int, factor: int) -> float:
    """The mean of `again` at the best of `count` samples: by `full`, among the best by `cheap`."""
    drawn = np.random.default_rng(0).integers(len(full), size=(_RESAMPLES, count))
    promoted = np.argsort(-cheap[drawn], axis=1, kind="stable")[:, : max(1, round(count / factor))]
    left = np.take_along_axis(drawn, promoted, axis=1)
    winners = left[np.arange(_RESAMPLES), np.argmax(full[left], axis=1)]
    return float(again[winners].mean())
