"""Which thetas run in the final race."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from search.algorithm import SearchAlgorithm

Finalist = tuple[list[float], str]
"""A theta and what tables call it."""


def finalists(
    algorithm: SearchAlgorithm, records: Iterable[Mapping[str, Any]], count: int
) -> list[Finalist]:
    """The best guess, then the best samples, by the algorithm's model if it has one.

    Args:
        algorithm: at the end of its search.
        records: of all trials.
        count: how many, >= 1; fewer come back where fewer thetas were tried.
    """
    name = "policy mean" if algorithm.config.type == "ppo2" else "best guess"
    found = [(algorithm.best_guess().tolist(), name)]
    done = [r for r in records if r["phase"] == "search" and r["status"] == "ok"]
    predicted = algorithm.predict(np.array([r["theta"] for r in done])) if done else None
    values = [r["reward"] for r in done] if predicted is None else predicted.tolist()
    ranked = sorted(
        zip(values, done, strict=True),
        key=lambda pair: (-pair[0], pair[1]["round"], pair[1]["slot"]),
    )
    for _, record in ranked:
        if len(found) >= count:
            break
        if not any(np.array_equal(record["theta"], theta) for theta, _ in found):
            found.append((record["theta"], record["label"]))
    return found
