"""Losses that people know, as formulas: where searches start, and what their filters have to pass.

CSE-AutoLoss is written as it was released (PerdonLiu/CSE-Autoloss, README.md), in fewer nodes.
"""

from typing import Any

from loss.formula import REGRESSION, Branch, Expression, parse

_P = ("sigmoid", "x")
_LOG_P, _LOG_REST = ("log", _P), ("log", ("sub", 1, _P))
_A_QUARTER = ("div", 1, ("add", 1, 3))

CROSS_ENTROPY: Expression = ("sub", ("softplus", "x"), ("mul", "x", "y"))
"""Of sigmoid scores: -log p where y is 1, -log(1 - p) elsewhere."""

WRITTEN_CROSS_ENTROPY: Expression = (
    *("neg", ("add", ("mul", "y", _LOG_P), ("mul", ("sub", 1, "y"), _LOG_REST))),
)
"""The same in 9 nodes instead of 3."""

SOFTMAX_CROSS_ENTROPY: Expression = ("neg", ("dot", "y", ("log", ("softmax", "x"))))

_FOUND = ("mul", _A_QUARTER, ("mul", "y", ("mul", ("mul", ("sub", 1, _P), ("sub", 1, _P)), _LOG_P)))
_WRONG = (
    "mul",
    ("sub", 1, _A_QUARTER),
    ("mul", ("sub", 1, "y"), ("mul", ("mul", _P, _P), _LOG_REST)),
)
FOCAL: Expression = ("neg", ("add", _FOUND, _WRONG))
"""gamma 2, alpha 1/4."""

IOU: Expression = ("sub", 1, ("div", "i", "u"))

GIOU: Expression = ("sub", 2, ("add", ("div", "i", "u"), ("div", "u", "e")))
"""1 - (i/u - (e - u)/e)."""

CSE_A_CLASSIFICATION: Expression = (
    "neg",
    ("dot", ("mul", "y", ("add", 1, ("sin", "w"))), ("log", ("softmax", "x"))),
)
"""-(1 + sin w) y log softmax(x)."""

CSE_A_REGRESSION: Expression = (
    "add",
    ("sub", 1, ("div", "i", "u")),
    ("sub", 1, ("div", ("add", "i", 2), "e")),
)
"""(1 - i/u) + (1 - (i + 2)/e)."""

CSE_B_CLASSIFICATION: Expression = (
    "neg",
    (
        "add",
        ("mul", "w", ("mul", ("add", 1, ("erf", ("sigmoid", ("sub", 1, "y")))), _LOG_P)),
        ("mul", ("sub", ("gd", "x"), "w"), ("mul", ("sub", _P, "w"), _LOG_REST)),
    ),
)
"""-[w (1 + erf(s(1 - y))) log s(x) + (gd(x) - w) (s(x) - w) log(1 - s(x))]; w is 0 where y is."""

CSE_B_REGRESSION: Expression = (
    "neg",
    (
        "div",
        (
            "add",
            ("div", ("sub", ("add", 1, "i"), "e"), ("add", ("add", 2, 3), "u")),
            ("add", 1, "e"),
        ),
        ("sub", "e", ("div", ("add", "i", "u"), 3)),
    ),
)
"""-((1 + i - e)/(u + 5) + 1 + e) / (e - (i + u)/3)."""


def formula_or_default(data: Any, branch: Branch, activation: str) -> Expression:
    """`data` parsed; None is cross-entropy of `activation` scores, or 1 - GIoU."""
    if data is not None:
        return parse(data, branch)
    if branch is REGRESSION:
        return GIOU
    return SOFTMAX_CROSS_ENTROPY if activation == "softmax" else CROSS_ENTROPY
