"""How many formulas the filters of a formula search leave to train.

    PYTHONPATH=. python benchmarks/formula_filters.py [--formulas 3000] [--mutants 500] [--genes 1]

Formulas are drawn uniformly from the unit cube, or are the start (cross-entropy and GIoU) with some
of its genes drawn anew. What passes is accepted, so that its like is a duplicate from then on.
Prints Markdown.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Meter, head, row
from loss import FormulaFamily
from loss.formula import BRANCHES, Branch, parse, text
from loss.formula_filters import STAGES, FormulaScreen

PASSED = "passed"
SEARCHED: dict[str, dict[str, Any]] = {
    "classification, sigmoid": {"regression": "start"},
    "classification, softmax": {"regression": "start", "activation": "softmax"},
    "regression": {"classification": "start"},
    "both, sigmoid": {},
}
"""What is searched: the options of the family; "start" stays what the start has."""
GENES = (None, 1, 4, 16)
"""How many genes of the start are drawn anew; None: all, of formulas drawn from the whole cube."""


@dataclass
class Count:
    """What became of the formulas of one row.

    Attributes:
        stages: how many were rejected by stage, and how many passed.
        reasons: how often each was given, without its numbers.
        passed: the settings of those that passed.
        seconds: of the process, all formulas together.
    """

    stages: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    passed: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def family_of(options: dict[str, Any]) -> FormulaFamily:
    both = FormulaFamily(activation=options.get("activation", "sigmoid"))
    start = both.settings(both.start)
    fixed = {branch.name: start[branch.name] for branch in BRANCHES if branch.name in options}
    return FormulaFamily(**{**options, **fixed})


def thetas(
    family: FormulaFamily, genes: int | None, formulas: int, chance: np.random.Generator
) -> Iterator[list[float]]:
    names = [name.rpartition(".")[0] for name in family.names]
    unique = list(dict.fromkeys(names))
    for _ in range(formulas):
        drawn = chance.random(len(names))
        if genes is not None:
            own = set(chance.choice(unique, size=genes, replace=False))
            drawn = np.where([name in own for name in names], drawn, family.start)
        yield drawn.tolist()


def count(
    family: FormulaFamily, genes: int | None, formulas: int, chance: np.random.Generator
) -> Count:
    found, screen, begin = Count(), FormulaScreen(family), time.process_time()
    if genes is not None:
        screen.accepted(family.start)
    for theta in thetas(family, genes, formulas, chance):
        verdict = screen(theta)
        stage, _, reason = (verdict or PASSED).partition(": ")
        found.stages[stage] += 1
        found.reasons[f"{stage}: {_without_numbers(reason)}"] += verdict is not None
        if verdict is None:
            screen.accepted(theta)
            found.passed.append(family.settings(theta))
    found.seconds = time.process_time() - begin
    return found


def _without_numbers(reason: str) -> str:
    return re.split(r" with | of \d|, | \d\.", reason)[0]


def formulas_of(settings: dict[str, Any], family: FormulaFamily) -> str:
    def written(branch: Branch) -> str:
        return f"`{text(parse(settings[branch.name], branch))}`"

    searched = [branch for branch in BRANCHES if getattr(family, branch.name) is None]
    return " and ".join(map(written, searched))


def main() -> None:
    parser = argparse.ArgumentParser(description="Formulas rejected by stage.")
    parser.add_argument("--formulas", type=int, default=3000, help="from the whole cube, a row")
    parser.add_argument("--mutants", type=int, default=500, help="of the start, a row")
    rows = [str(genes or "all") for genes in GENES]
    parser.add_argument("--genes", nargs="+", choices=rows, default=rows, help="which rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=5, help="formulas that passed, to show")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{Meter('cpu', 1).header()}\n", flush=True)
    columns = [
        "searched",
        "genes drawn",
        "formulas",
        *STAGES,
        PASSED,
        "share that passed",
        "ms a formula",
    ]
    print(head(columns), flush=True)
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for name, options in SEARCHED.items():
        family = family_of(options)
        for genes in (each for each in GENES if str(each or "all") in arguments.genes):
            chance = np.random.default_rng([arguments.seed, genes or 0])
            formulas = arguments.formulas if genes is None else arguments.mutants
            found = count(family, genes, formulas, chance)
            reasons += found.reasons if genes is None else Counter()
            some = found.passed[: arguments.examples]
            examples[f"{name}, {genes or 'all'}"] = [formulas_of(each, family) for each in some]
            counts = [formulas, *(found.stages[stage] for stage in (*STAGES, PASSED))]
            numbers = [f"{each:,}" for each in counts]
            share = f"{found.stages[PASSED] / formulas:.2%}"
            cost = f"{1e3 * found.seconds / formulas:.1f}"
            print(row([name, str(genes or "all"), *numbers, share, cost]), flush=True)
    if reasons:
        print("\n## Why, of the formulas from the whole cube\n")
        print(head(["stage: reason", "formulas"]))
    for reason, times in reasons.most_common():
        print(row([reason, f"{times:,}"]))
    print("\n## The first that passed\n")
    for name, shown in examples.items():
        print("\n".join([f"- {name}:", *(f"  - {each}" for each in shown or ["none"])]))


if __name__ == "__main__":
    main()
