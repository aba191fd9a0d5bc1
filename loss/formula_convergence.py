"""Convergence property verification: does descending a formula lead where a detector should go?

What CSE-AutoLoss asks of a loss before anything is trained with it (arXiv 2102.04700, section 3.3),
looked at on probe points instead of by algebra.

- Monotonicity: raising the score of what is right must not raise the loss of the classification,
  and raising that of what is wrong must not lower it.
- Convergence: where the score is right its gradient goes to 0; where it is wrong it does not.
- Distance-loss consistency: of two boxes the one nearer its target must not have the higher loss of
  the regression.

Everything is in float64. Shape letters: G points of a path, K columns of logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from loss.formula import Expression, evaluate
from loss.localization import areas

_FAR = 8.0
"""Logits are looked at from -8 to 8: scores from .0003 to .9997."""
_WRONG_FROM, _WRONG_TO = 1.0, 5.0
"""How far on the wrong side of 0 a logit is that has to be pulled. A head starts at -4.6."""
_SLACK = 1e-3
"""Of the steepest slope, or of the whole descent: less is a dent that stops nothing."""
_DEAD = 1e-4
"""Of the steepest slope: a gradient below that teaches nothing beside the others."""
_ROUNDING = 1e-6
"""By logit, where cross-entropy has up to 1: less is left of a constant, such as x / (x + eps)."""
_VANISHED = 0.05
"""Of the steepest slope: what may be left where the score is right."""


@dataclass(frozen=True)
class _Case:
    """A row of logits of which one moves from -8 to 8.

    Attributes:
        what: for the reason.
        x, y, w: [G, K].
        column: which moves.
        rises: whether the loss should rise with it: it is the score of what is wrong.
        whole: whether every point is looked at. A loss may draw a positive to a score near its IoU,
            as CSE-AutoLoss-B does; then only a low one has to be raised.
    """

    what: str
    x: Tensor
    y: Tensor
    w: Tensor
    column: int
    rises: bool
    whole: bool = True


def diverges(classification: Expression, activation: str) -> str | None:
    """Why a classification is not monotonic or does not converge; None: it is and does."""
    for case in _cases(activation):
        fault = _fault(*_slopes(classification, case), case.whole)
        if fault is not None:
            return f"{fault} {case.what}"
    return None


def _slopes(classification: Expression, case: _Case) -> tuple[Tensor, Tensor]:
    """[G]: how wrong the score is, from -8 to 8, and d loss / d that."""
    x = case.x.clone().requires_grad_()
    loss = evaluate(classification, {"x": x, "y": case.y, "w": case.w}).sum()
    # A formula may not read x at all.
    (gradient,) = torch.autograd.grad(loss + 0 * x.sum(), x)
    wrong, slope = case.x[:, case.column], gradient[:, case.column]
    return (wrong, slope) if case.rises else (-wrong, -slope)


def _fault(wrong: Tensor, slope: Tensor, whole: bool) -> str | None:
    steepest = slope.abs().max()
    pulled = slope[(wrong >= _WRONG_FROM) & (wrong <= _WRONG_TO)]
    if not bool(slope.isfinite().all()):
        return "its gradient is not finite"
    if bool(pulled.min() < -_SLACK * steepest):
        return "it falls where it should rise"
    if not bool(pulled.min() > max(_DEAD * float(steepest), _ROUNDING)):
        return "its gradient is dead"
    if whole and bool(slope.min() < -_SLACK * steepest):
        return "it is not monotonic"
    if whole and bool(slope[wrong == -_FAR].abs() > _VANISHED * steepest):
        return "its gradient does not go to 0"
    return None


@cache
def _cases(activation: str) -> tuple[_Case, ...]:
    return tuple(_sigmoid_cases() if activation == "sigmoid" else _softmax_cases())


def _sigmoid_cases() -> Iterator[_Case]:
    """Three classes. w is 0 where y is 0."""
    for fit in (1.0, 0.7, 0.5, 0.3):
        own = f"with the score of a positive of IoU {fit:g}"
        yield _case(own, 3, 0, 0, fit, rises=False, whole=fit == 1)
    yield _case("with the score of a positive's other class", 3, 0, 1, 1.0, rises=True)
    yield _case("with the score of a background", 3, None, 0, 0.0, rises=True)


def _softmax_cases() -> Iterator[_Case]:
    """Three classes and the background, whose w is 1."""
    for fit in (1.0, 0.7, 0.5, 0.3):
        own = f"with the score of a positive of IoU {fit:g}"
        yield _case(own, 4, 0, 0, fit, rises=False, whole=fit == 1)
    yield _case("with the score of a positive's other class", 4, 0, 1, 1.0, rises=True)
    yield _case("with a positive's score of the background", 4, 0, 3, 1.0, rises=True)
    yield _case("with a background's own score", 4, 3, 3, 1.0, rises=False)
    yield _case("with a background's score of a class", 4, 3, 0, 1.0, rises=True)


def _case(
    what: str,
    columns: int,
    label: int | None,
    column: int,
    fit: float,
    rises: bool,
    whole: bool = True,
) -> _Case:
    moved = torch.linspace(-_FAR, _FAR, 65, dtype=torch.float64)
    x = torch.linspace(-2, -1, columns, dtype=torch.float64).repeat(len(moved), 1)
    x[:, column] = moved
    y = torch.zeros_like(x)
    if label is not None:
        y[:, label] = 1
    # Sigmoid scores have an IoU at the class of a positive alone.
    w = fit * (y if columns == 3 else torch.ones_like(y))
    return _Case(what, x, y, w, column, rises, whole)


_SIZES = ((12.0, 10.0), (40.0, 60.0), (250.0, 150.0))
"""Targets, in pixels."""
_AWAY = (
    *((0.3, 0.0, 0.0, 0.0), (0.6, 0.6, 0.0, 0.0), (-0.5, 0.2, 0.0, 0.0)),
    *((0.0, 0.0, 0.8, 0.5), (0.0, 0.0, -0.5, -0.3), (0.2, -0.2, 0.6, -0.4)),
)
"""Where boxes begin: shift of the centre and growth of the size, in sizes of the target."""
_BESIDE = ((1.5, 0.0, 0.0, 0.0), (1.2, 1.2, 0.3, -0.2))
"""Boxes that miss: a loss may be flat there, as that of the IoU is."""


def strays(regression: Expression) -> str | None:
    """Why the loss of a box does not fall as the box nears its target; None: it does."""
    for away, flat in ((_AWAY, False), (_BESIDE, True)):
        loss = _losses_on_the_way(regression, away)
        if not bool(loss.isfinite().all()):
            return "it is not finite on a box's way to its target"
        descent = loss[:, :1] - loss[:, -1:]
        slack = _SLACK * descent.abs()
        if bool((descent < 0).any()) or bool((loss.diff(dim=1) > slack).any()):
            missing = "that misses " if flat else ""
            return f"it rises while a box {missing}nears its target"
        if not flat and bool((loss.diff(dim=1) > -_DEAD * descent).any() | (descent == 0).any()):
            return "it is flat while a box nears its target"
    return None


def _losses_on_the_way(
    regression: Expression, away: tuple[tuple[float, float, float, float], ...]
) -> Tensor:
    """[n, G]: from each beginning straight to each target."""
    ways = [_way(size, each) for size in _SIZES for each in away]
    boxes, targets = (torch.stack(each) for each in zip(*ways, strict=True))
    i, u, e = (area.flatten()[:, None] for area in areas(boxes, targets))
    values = evaluate(regression, {"i": i, "u": u.clamp(min=1), "e": e.clamp(min=1)})
    return values.expand(i.shape).view(boxes.shape[:2])


def _way(
    size: tuple[float, float], away: tuple[float, float, float, float]
) -> tuple[Tensor, Tensor]:
    """[G, 4]: boxes on a straight way, and their target as often."""
    width, height = size
    x, y, wider, higher = away
    centre = torch.tensor([300 + x * width, 200 + y * height], dtype=torch.float64)
    half = torch.tensor([(1 + wider) * width, (1 + higher) * height], dtype=torch.float64) / 2
    begin = torch.cat([centre - half, centre + half])
    target = torch.tensor(
        [300 - width / 2, 200 - height / 2, 300 + width / 2, 200 + height / 2], dtype=torch.float64
    )
    done = torch.linspace(0, 1, 17, dtype=torch.float64)[:, None]
    return begin + done * (target - begin), target.expand(len(done), 4)
