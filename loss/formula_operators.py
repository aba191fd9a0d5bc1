"""The operators that formulas are made of, with what keeps them finite.

They are those of CSE-AutoLoss (arXiv 2102.04700, section 3.1), computed as in its released code
(PerdonLiu/CSE-Autoloss, tools/search_space.py) but for the bounds below.

- gd, alf and erf are scaled to the range and the slope of the sigmoid, as the authors searched
  them (their notes call them scaled); erfc is 1 - erf. Read literally they are below 0 for half of
  all inputs; see `loss.cse_autoloss.cse_autoloss_b_classification` for what that does to a loss.
- Products, quotients and powers are held within +-1e18, whose square is finite in float32. So no
  formula of finite inputs is infinite or NaN. What is held has no gradient.
- log and sqrt of less than 1e-8 are those of 1e-8, without gradient; div adds 1e-8 to what it
  divides by. The released code adds 1e-20, with which gradients overflow, and has NaN below 0.

Values are [n, k]: k columns for a classification, of which softmax and dot make use; a constant, a
dot and everything about boxes have 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8
LIMIT = 1e18
_LOG_LIMIT = math.log(LIMIT)
_SATURATED = 40.0
"""exp(-40) is below the rounding error of 1 in float64, and exp(40) is finite in float32."""


@dataclass(frozen=True)
class Operator:
    """What a formula may do to one or two values.

    Attributes:
        arity: 1 or 2.
        function: of so many tensors [n, k] or [n, 1], which broadcast.
        over_classes: whether it looks at all the columns of a row together.
    """

    arity: int
    function: Callable[..., Tensor]
    over_classes: bool = False


def _held(x: Tensor) -> Tensor:
    return x.clamp(-LIMIT, LIMIT)


def _div(a: Tensor, b: Tensor) -> Tensor:
    return _held(a / (b + EPS))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return _held((a * b).sum(1, keepdim=True))


def _exp(x: Tensor) -> Tensor:
    return x.clamp(max=_LOG_LIMIT).exp()


def _gd(x: Tensor) -> Tensor:
    """(1 + 2/pi gd(pi x / 4)) / 2 for the Gudermannian gd(x) = 2 atan(e^x) - pi/2."""
    return 2 / math.pi * (math.pi / 4 * x).clamp(max=_SATURATED).exp().atan()


def _alf(x: Tensor) -> Tensor:
    """(1 + z / sqrt(1 + z^2)) / 2 for z = x / 2; the root as the length of (1, z), since z^2 may
    overflow."""
    return (1 + x / 2 / torch.hypot(torch.ones_like(x), x / 2)) / 2


def _erf(x: Tensor) -> Tensor:
    """(1 + erf(sqrt(pi) x / 4)) / 2, by erfc: nothing cancels where it is near 0."""
    return torch.erfc(-math.sqrt(math.pi) / 4 * x) / 2


OPERATORS: dict[str, Operator] = {
    "add": Operator(2, torch.add),
    "sub": Operator(2, torch.sub),
    "mul": Operator(2, lambda a, b: _held(a * b)),
    "div": Operator(2, _div),
    "dot": Operator(2, _dot, over_classes=True),
    "neg": Operator(1, torch.neg),
    "abs": Operator(1, torch.abs),
    "relu": Operator(1, torch.relu),
    "sqrt": Operator(1, lambda x: x.clamp(min=EPS).sqrt()),
    "exp": Operator(1, _exp),
    "log": Operator(1, lambda x: x.clamp(min=EPS).log()),
    "softplus": Operator(1, F.softplus),
    "softmax": Operator(1, lambda x: x.softmax(1), over_classes=True),
    "sigmoid": Operator(1, torch.sigmoid),
    "tanh": Operator(1, torch.tanh),
    "gd": Operator(1, _gd),
    "alf": Operator(1, _alf),
    "erf": Operator(1, _erf),
    "erfc": Operator(1, lambda x: torch.erfc(math.sqrt(math.pi) / 4 * x) / 2),
    "sin": Operator(1, torch.sin),
    "cos": Operator(1, torch.cos),
}
"""By name. A theta counts operators in this order: another order gives old thetas other formulas.
Neighbours are alike, so that a search of a continuous cube has something to follow."""
