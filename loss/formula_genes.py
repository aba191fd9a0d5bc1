"""Formulas as rows of genes: Cartesian genetic programming (Miller and Thomson 2000).

A formula is a row of nodes, each of which applies an operator to inputs, constants or earlier
nodes; the last node is the formula, and nodes that nothing leads to are silent. A node is three
coordinates, and each cuts [0, 1] into as many intervals of one width as there are choices, so that
every point of the unit cube stands for a formula.
"""

from collections.abc import Sequence
from typing import Any

from loss.formula import MAX_NODES, Branch, Expression, count_nodes, text
from loss.formula_operators import OPERATORS

GENE = ("op", "a", "b")
"""A node's coordinates: operator, first and second argument; of one argument, b is left alone."""


def decode(theta: Sequence[float], branch: Branch) -> Expression:
    """The formula of one branch, from three coordinates a node."""
    known: list[Expression] = list(branch.leaves)
    for k in range(0, len(theta), len(GENE)):
        name = _choose(theta[k], branch.operators)
        chosen = [_choose(at, known) for at in theta[k + 1 : k + 1 + OPERATORS[name].arity]]
        known.append((name, *_pruned(chosen, branch)))
    return known[-1]


def _pruned(arguments: list[Expression], branch: Branch) -> list[Expression]:
    """`arguments`, the largest replaced by the prediction while they are too many nodes.

    Without a limit a formula can double with every node.
    """
    while sum(map(count_nodes, arguments)) >= MAX_NODES:
        sizes = [count_nodes(argument) for argument in arguments]
        arguments[sizes.index(max(sizes))] = branch.inputs[0]
    return arguments


def encode(formula: Expression, branch: Branch, nodes: int) -> list[float]:
    """Three coordinates a node, of which `decode` makes `formula`."""
    parts = list(dict.fromkeys(_parts(formula)))
    if not parts:
        raise ValueError(f"{branch.name}: {text(formula)} has no operator, so theta cannot say it.")
    if len(parts) > nodes:
        raise ValueError(
            f"{branch.name}: {text(formula)} takes {len(parts)} nodes; this family has {nodes}."
        )
    silent: tuple[Any, ...] = ("neg", branch.inputs[0])
    known: list[Expression] = list(branch.leaves)
    theta: list[float] = []
    for part in [silent] * (nodes - len(parts)) + parts:
        theta.append(_middle(branch.operators, part[0]))
        # What an operator of one argument leaves out reads the prediction.
        for argument in (*part[1:], branch.inputs[0])[:2]:
            theta.append(_middle(known, argument))
        known.append(part)
    return theta


def _parts(formula: Expression) -> list[tuple[Any, ...]]:
    """Every operator with its arguments, arguments first."""
    if not isinstance(formula, tuple):
        return []
    return [part for argument in formula[1:] for part in _parts(argument)] + [formula]


def _choose(value: float, choices: Sequence[Any]) -> Any:
    return choices[min(int(value * len(choices)), len(choices) - 1)]


def _middle(choices: Sequence[Any], chosen: Any) -> float:
    return (choices.index(chosen) + 0.5) / len(choices)
