"""The hand-crafted forms of the paper's Table 2, beside the curves that are searched.

A form gives H, a function of the score difference d = s_j - s_i, and I, a function of the
localisation score u in [0, 1]. With x = clip(d / 2 + 1/2, 0, 1):

| form | H(d) | I(u) |
| --- | --- | --- |
| linear | x | u |
| square | x^2 | u^2 |
| sqrt | x^(1/2) | u^(1/2) |
| sigmoid | sigmoid(d), without a clip | sigmoid(2 u - 1) |

Source: Searching Parameterized AP Loss for Object Detection, Table 2; sqrt is not in its released
code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from loss.dense_pairs import SmoothPairFunction
from loss.pair_function import PairFunction
from loss.piecewise_linear import PiecewiseLinear

STEEPEST = 1e-4
"""The slope of a square root at arguments below this is the one there, 50: at 0 it has none."""


class Curve(Protocol):
    """A function of localisation scores."""

    @property
    def at_zero(self) -> float:
        """Its value at 0, where negatives are."""

    def __call__(self, u: Tensor, /) -> Tensor:
        """Its values at `u` (any shape, clipped to [0, 1]); differentiable."""


Form = tuple[PairFunction | SmoothPairFunction, Curve]


@dataclass(frozen=True)
class Square:
    """u^2."""

    at_zero: float = 0.0

    def __call__(self, u: Tensor) -> Tensor:
        return u.clamp(0, 1) ** 2


@dataclass(frozen=True)
class SquareRoot:
    """u^(1/2), whose slope is bounded by that at `STEEPEST`."""

    at_zero: float = 0.0

    def __call__(self, u: Tensor) -> Tensor:
        u = u.clamp(0, 1)
        fixed = u.detach()
        slope = 0.5 / fixed.clamp(min=STEEPEST).sqrt()
        return fixed.sqrt() + slope * (u - fixed)


@dataclass(frozen=True)
class Sigmoid:
    """sigmoid(2 u - 1): from .27 to .73, so negatives weigh 1 - I2(0) = .73."""

    at_zero: float = float(torch.sigmoid(torch.tensor(-1.0, dtype=torch.float64)))

    def __call__(self, u: Tensor) -> Tensor:
        return torch.sigmoid(2 * u.clamp(0, 1) - 1)


def _root(d: Tensor) -> Tensor:
    return (d / 2 + 0.5).clamp(0, 1).sqrt()


def _root_slope(d: Tensor) -> Tensor:
    x = (d / 2 + 0.5).clamp(min=STEEPEST)
    return torch.where(d.abs() <= 1, 0.25 / x.sqrt(), 0)


def _sigmoid_slope(d: Tensor) -> Tensor:
    return torch.sigmoid(d) * torch.sigmoid(-d)


def _linear() -> Form:
    identity = PiecewiseLinear(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    return PairFunction.from_curve(identity), identity


FORMS: dict[str, Callable[[], Form]] = {
    "linear": _linear,
    "square": lambda: (PairFunction.square(), Square()),
    "sqrt": lambda: (SmoothPairFunction(_root, _root_slope), SquareRoot()),
    "sigmoid": lambda: (SmoothPairFunction(torch.sigmoid, _sigmoid_slope), Sigmoid()),
}
"""H and I by the name of the form: H1 and H2 are alike, and so are I1, I2 and I3."""
