"""Functions of score differences twice: as the engine has them, and dense for comparison.

Shape letters: N scores, P pivots, F functions.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from loss.pair_function import PairFunction
from loss.piecewise_linear import PiecewiseLinear
from tests import oracles


class Pair(NamedTuple):
    """`dense` is elementwise, on float64, and autograd differentiates it as the engine does."""

    function: PairFunction
    dense: Callable[[Tensor], Tensor]


def of_curve(points: Tensor) -> Pair:
    """The curve through `points` [K + 1, 2] at clip(d / 2 + 1/2, 0, 1)."""
    function = PairFunction.from_curve(PiecewiseLinear(points))
    return Pair(function, lambda d: oracles.curve(points, d / 2 + 0.5))


def of_ramp(delta: float) -> Pair:
    dense = oracles.step if delta == 0 else partial(_ramp, delta=delta)
    return Pair(PairFunction.ramp(delta), dense)


def _ramp(d: Tensor, delta: float) -> Tensor:
    return (d / (2 * delta) + 0.5).clamp(0, 1)


STEP = Pair(PairFunction.step(), oracles.step)
SQUARE = Pair(PairFunction.square(), lambda d: oracles.clip(d) ** 2)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Any function: curves on a grid with coincident points, steps, ramps, the square."""
    kind = draw(st.sampled_from(["curve", "curve", "step", "ramp", "square"]))
    if kind == "curve":
        return of_curve(draw(oracles.control_points(1, draw(st.integers(1, 5))))[0])
    if kind == "ramp":
        return of_ramp(draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])))
    return STEP if kind == "step" else SQUARE


def differences(scores: Tensor, pivots: Tensor) -> Tensor:
    """[P, N] s_j - p_i, in float64."""
    return scores.double()[None, :] - pivots.double()[:, None]


def dense_sums(
    pairs: list[Pair],
    scores: Tensor,
    pivots: Tensor,
    weights: Tensor | None = None,
    include: Tensor | None = None,
) -> Tensor:
    """[F, P]: sum_j w_j f(s_j - p_i)."""
    if include is not None:
        scores = scores[include]
        weights = None if weights is None else weights[include]
    d = differences(scores, pivots)
    sums = [pair.dense(d) if weights is None else pair.dense(d) * weights for pair in pairs]
    return torch.stack(sums).sum(2)


def slope(pair: Pair, d: Tensor) -> Tensor:
    """f'(d), jumps left out."""
    leaf = d.detach().clone().requires_grad_()
    value = pair.dense(leaf).sum()
    if not value.requires_grad:
        return torch.zeros_like(d)
    return torch.autograd.grad(value, leaf)[0]
