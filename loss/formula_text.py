"""The formulas of a loss as people write them, for tables and pages."""

from collections.abc import Mapping
from typing import Any

from loss.formula import BRANCHES, text
from loss.formula_known import formula_or_default


def formulas_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """{"classification": "softplus(x) - x * y", "regression": ...} of one criterion's settings.

    Empty for a criterion that is no formula.

    Raises:
        ValueError: a formula that is none.
    """
    if settings.get("type") != "formula":
        return {}
    activation = settings.get("activation", "sigmoid")
    return {
        branch.name: text(formula_or_default(settings.get(branch.name), branch, activation))
        for branch in BRANCHES
    }
