"""Formulas as data: what they may be, how they read, and what they are worth.

A formula is a nested list: an input, a constant, or an operator with its arguments, such as
["neg", ["dot", "y", ["log", ["softmax", "x"]]]]. It is checked when it is read and computed by
walking over it; nothing of it is ever run as code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from loss.formula_operators import OPERATORS

Expression: TypeAlias = str | int | tuple[Any, ...]
"""An input, a constant, or (operator, argument, ...): what nested lists are read into."""

CONSTANTS = (1, 2, 3)
MAX_NODES = 100
MAX_DEPTH = 50


@dataclass(frozen=True)
class Branch:
    """One of the two formulas of a loss.

    Attributes:
        name: of the criterion's argument.
        prefix: of theta's coordinates.
        inputs: what the formula may read, the prediction first.
        meaning: the inputs in words, for errors.
        operators: what it may be made of.
    """

    name: str
    prefix: str
    inputs: tuple[str, ...]
    meaning: str
    operators: tuple[str, ...]

    @property
    def leaves(self) -> tuple[str | int, ...]:
        return (*self.inputs, *CONSTANTS)


CLASSIFICATION = Branch(
    "classification",
    "cls",
    ("x", "y", "w"),
    "x (logits), y (label), w (IoU)",
    tuple(OPERATORS),
)
REGRESSION = Branch(
    "regression",
    "reg",
    ("i", "u", "e"),
    "i, u, e (areas of intersection, union and enclosing box)",
    # A box has no classes to look at together.
    tuple(name for name, operator in OPERATORS.items() if not operator.over_classes),
)
BRANCHES = (CLASSIFICATION, REGRESSION)


def parse(data: object, branch: Branch) -> Expression:
    """`data`, nested lists or tuples, as a formula of `branch`.

    Raises:
        ValueError: an unknown operator or input, a wrong number of arguments, more than
            `MAX_NODES` operators, inputs and constants, or more than `MAX_DEPTH` one in another.
            The message says where.
    """
    return _parse(data, branch, branch.name, 1, iter(range(MAX_NODES)))


def _parse(data: object, branch: Branch, where: str, depth: int, left: Iterator[int]) -> Expression:
    """Args: left: as many items as there may be nodes from here on."""
    # Counted on the way: a few lines of YAML with anchors can stand for more than fits in memory.
    if next(left, None) is None:
        raise ValueError(f"{branch.name}: the formula has more than {MAX_NODES} nodes.")
    if depth > MAX_DEPTH:
        raise ValueError(f"{branch.name}: the formula is more than {MAX_DEPTH} nodes deep.")
    if isinstance(data, list | tuple):
        return _parse_operator(data, branch, where, depth, left)
    if isinstance(data, str) and data in branch.inputs:
        return data
    if isinstance(data, int) and not isinstance(data, bool) and data in CONSTANTS:
        return data
    constants = ", ".join(map(str, CONSTANTS))
    raise ValueError(
        f"{where}: {data!r} is neither an input nor a constant; expected {branch.meaning}, one of "
        f"{constants}, or a list such as [neg, {branch.inputs[0]}]."
    )


def _parse_operator(
    data: Sequence[object], branch: Branch, where: str, depth: int, left: Iterator[int]
) -> Expression:
    name, *arguments = data or [None]
    if not isinstance(name, str) or name not in OPERATORS:
        raise ValueError(
            f"{where}: {name!r} is no operator; a list begins with one of "
            f"{', '.join(branch.operators)}."
        )
    if name not in branch.operators:
        raise ValueError(
            f"{where}: {name} is over classes, which a {branch.name} has none of; expected one of "
            f"{', '.join(branch.operators)}."
        )
    arity = OPERATORS[name].arity
    if len(arguments) != arity:
        raise ValueError(f"{where}: {name} takes {arity}, got {len(arguments)} arguments.")
    places = [f"{where} > {name}" + (f"[{k}]" if arity > 1 else "") for k in range(1, arity + 1)]
    parsed = [
        _parse(argument, branch, place, depth + 1, left)
        for argument, place in zip(arguments, places, strict=True)
    ]
    return (name, *parsed)


def count_nodes(expression: Expression) -> int:
    """The operators, inputs and constants in a formula, each as often as it is there."""
    if not isinstance(expression, tuple):
        return 1
    return 1 + sum(map(count_nodes, expression[1:]))


def as_data(expression: Expression | None) -> Any:
    """A formula as nested lists, for YAML and JSON; None for none."""
    if not isinstance(expression, tuple):
        return expression
    return [expression[0], *map(as_data, expression[1:])]


_INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}


def text(expression: Expression) -> str:
    """A formula as people write it, such as "-dot(y, log(softmax(x)))"."""
    return _text(expression, 0)


def _text(expression: Expression, binding: int) -> str:
    """Args: binding: how tightly what stands around it binds; looser formulas get parentheses."""
    if not isinstance(expression, tuple):
        return str(expression)
    name, *arguments = expression
    if name == "neg":
        inside, own = f"-{_text(arguments[0], 3)}", 1
    elif name in _INFIX:
        sign, own = _INFIX[name]
        # As Python reads it: from the left, so only the right side needs more.
        inside = f"{_text(arguments[0], own)} {sign} {_text(arguments[1], own + 1)}"
    else:
        return f"{name}({', '.join(_text(argument, 0) for argument in arguments)})"
    return f"({inside})" if own < binding else inside


def evaluate(expression: Expression, inputs: Mapping[str, Tensor]) -> Tensor:
    """The value [n, k] or [n, 1] of a formula that was parsed.

    Finite for finite inputs; see `loss.formula_operators`. Logarithms of a sigmoid, of one less a
    sigmoid and of a softmax are computed as one function each: by two, they and their gradients
    would be those of a constant where the score is rounded to 0.

    Args:
        inputs: [n, k] each, float32 or float64.
    """
    return _evaluate(expression, inputs, {})


def _evaluate(
    expression: Expression, inputs: Mapping[str, Tensor], known: dict[Expression, Tensor]
) -> Tensor:
    """Args: known: what was computed before; the same part of a formula is computed once."""
    if isinstance(expression, str):
        return inputs[expression]
    if expression not in known:
        if isinstance(expression, int):
            like = next(iter(inputs.values()))
            known[expression] = torch.full_like(like[:, :1], expression, requires_grad=False)
        else:
            function, arguments = _fused(expression)
            values = [_evaluate(argument, inputs, known) for argument in arguments]
            known[expression] = function(*values)
    return known[expression]


def _fused(expression: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The function that an operator stands for, and what it is computed of."""
    match expression:
        case ("log", ("softmax", z)):
            return _log_softmax, (z,)
        case ("log", ("sigmoid", z)):
            return F.logsigmoid, (z,)
        case (
            ("log", ("sub", 1, ("sigmoid", z)))
            | ("log", ("add", 1, ("neg", ("sigmoid", z))))
            | ("log", ("add", ("neg", ("sigmoid", z)), 1))
        ):
            return _log_of_the_rest, (z,)
        case (name, *arguments):
            return OPERATORS[name].function, tuple(arguments)
    raise AssertionError(expression)


def _log_softmax(z: Tensor) -> Tensor:
    return z.log_softmax(1)


def _log_of_the_rest(z: Tensor) -> Tensor:
    """log(1 - sigmoid(z))."""
    return F.logsigmoid(-z)
