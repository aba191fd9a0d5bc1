"""The formulas that a search has tried, as text: the winner's, and a table of the best.

Empty for searches of anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.history import History
from search.standings import Standing, standings, winner

ROWS = 20
"""The most rows of the table."""


@dataclass(frozen=True)
class FormulaRow:
    """One loss that formulas make.

    Attributes:
        label: what tables call it.
        val, test: its mean score on either split; None where it has none.
        formulas: as people write them, by branch: "classification", or "rcnn.classification".
        best: whether it is the winner.
    """

    label: str
    val: float | None
    test: float | None
    formulas: Mapping[str, str]
    best: bool = False


def formula_rows(history: History) -> list[FormulaRow]:
    """The start, the final candidates, then the other samples, the best first: `ROWS` at most."""
    table = standings(history)
    best = winner(table)
    raced = [
        FormulaRow(one.label, one.mean_val, one.mean_test, formulas, one is best)
        for one in table
        if (formulas := _formulas_of(history, one))
    ]
    known = [row.formulas for row in raced]
    others = [
        FormulaRow(record["label"], record["reward"], None, record["formulas"])
        for record in history.records
        if record["phase"] == "search"
        and record["reward"] is not None
        and record["formulas"]
        and record["formulas"] not in known
    ]
    others.sort(key=lambda row: -(row.val or 0.0))
    return [*raced, *others][:ROWS]


def best_formulas(history: History) -> tuple[Mapping[str, str], str]:
    """The winner's formulas, or those of the best sample so far, and whose they are."""
    rows = formula_rows(history)
    won = next((row for row in rows if row.best), None)
    if won is not None:
        return won.formulas, f"the winner, {won.label}"
    done: list[dict[str, Any]] = [
        r for r in history.records if r["phase"] == "search" and r["reward"] is not None
    ]
    top = max(done, key=lambda record: float(record["reward"]), default=None)
    if top is None or not top["formulas"]:
        return {}, ""
    return top["formulas"], f"the best so far, {top['label']}"


def _formulas_of(history: History, one: Standing) -> Mapping[str, str]:
    """Of a standing's first record; none for what is no formula."""
    records = (
        record
        for record in history.records
        if record["phase"] == one.phase
        and (one.phase != "final" or record["round"] == one.candidate)
    )
    return next((record["formulas"] or {} for record in records), {})
