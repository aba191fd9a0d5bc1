"""Configurations of experiments that were made before a setting existed."""

from collections.abc import Mapping
from typing import Any

_AS_BEFORE: dict[str, Any] = {
    "algorithm": {"type": "ppo2", "sigma": 0.2, "overlap": 0, "attempts": 1},
    "paired_seeds": False,
    "preflight": {"enabled": False},
    "rungs": None,
    "early_stop": None,
}
"""What every search did before it could be chosen; today's defaults may be others."""


def as_it_was(values: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment's config.yaml with what it does not say, as it was when that was written.

    So a search that is resumed with a later paploss goes on as it began.
    """
    found = dict(values)
    final = found.get("final")
    if isinstance(final, Mapping) and "repeats" in final:
        # Every candidate ran all repeats, whatever the first ones said.
        found["final"] = {"first": final["repeats"], **final}
    for key, before in _AS_BEFORE.items():
        given = found.get(key, before)
        both = isinstance(before, Mapping) and isinstance(given, Mapping)
        found[key] = {**before, **given} if both else given
    return found
