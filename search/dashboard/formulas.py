"""The formulas of a search, for the page."""

from typing import Any

from search.dashboard.values import number, short
from search.formulas import formula_rows
from search.history import History


def formulas_data(history: History) -> dict[str, Any] | None:
    """The start, the candidates and the best other samples; None without any formula."""
    rows = formula_rows(history)
    names = list(dict.fromkeys(name for row in rows for name in row.formulas))
    if not names:
        return None
    return {
        "names": [short(name) for name in names],
        "rows": [
            {
                "label": short(row.label),
                "winner": row.best,
                "val": number(row.val),
                "test": number(row.test),
                "formulas": [short(row.formulas.get(name, "")) for name in names],
            }
            for row in rows
        ],
    }
