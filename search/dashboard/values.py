"""From whatever a file held to plain values that JSON can hold."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

TEXT = 500
"""Characters of an error, or of any other text from a file; a trial's log has the rest."""


def section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a configuration; an empty one where there is none, or something else."""
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def count(value: Any) -> int | None:
    """A whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any, digits: int = 5) -> float | None:
    """A finite number, rounded, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    try:
        return round(float(value), digits) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def short(value: Any) -> str:
    """A text, or anything else as JSON has it, cut to `TEXT` characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= TEXT else f"{text[:TEXT]} … ({len(text) - TEXT} more characters)"
