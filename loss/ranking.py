"""Sums over all pairs of scores and pivots, without the pairs.

For scores s_j and pivots p_i, `pair_sums` gives sum_j w_j f(s_j - p_i) for every i, where f is
piecewise linear in the difference and constant outside of [-1, 1]. Which piece of f the pair
(i, j) falls on depends only on which of the boundaries p_i + t_k lie below s_j. So the M = P B
boundaries are sorted once, every score gets its bin (the number of boundaries below it), and
all that is needed of the scores is their count and their sum by bin: O((N + M) log M) time and
O(N + M) memory instead of O(N P).

Shape letters: N scores, P pivots, F functions, B boundaries of a function, M = P * sum of B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loss.piecewise_linear import PiecewiseLinear


@dataclass(frozen=True)
class PairFunction:
    """f(d) of a score difference d: constant, then pieces of lines, then constant.

    Piece k covers (offsets[k], offsets[k + 1]]; below the first offset f is `below`, above the
    last `above`. A closed offset belongs to the piece above it instead.

    Attributes:
        offsets: [B] float64, not decreasing.
        closed: [B] bool.
        value: [B - 1] float64, f where a piece begins.
        slope: [B - 1] float64, of a piece, per unit of score.
    """

    offsets: Tensor
    closed: Tensor
    value: Tensor
    slope: Tensor
    below: float
    above: float

    @staticmethod
    def from_curve(curve: PiecewiseLinear) -> "PairFunction":
        """curve(clip(d / 2 + 1/2, 0, 1)), whose slope also holds at both ends of the clip."""
        x0, y0, x1, y1 = curve.segments
        offsets = 2 * torch.cat([x0[:1], x1]) - 1
        closed = torch.zeros_like(offsets, dtype=torch.bool)
        closed[0] = True
        slope = (y1 - y0) / (x1 - x0) / 2
        return PairFunction(offsets, closed, y0, slope, curve.at_zero, curve.at_one)

    @staticmethod
    def step() -> "PairFunction":
        """(sign(d) + 1) / 2: 0, 1/2 for a tie, 1."""
        offsets = torch.zeros(2, dtype=torch.float64)
        half, flat = offsets.new_tensor([0.5]), offsets.new_zeros(1)
        return PairFunction(offsets, torch.tensor([True, False]), half, flat, 0.0, 1.0)

    @property
    def slope_jumps(self) -> Tensor:
        """[B]: what the slope gains at each boundary."""
        flat = self.slope.new_zeros(1)
        return torch.diff(torch.cat([flat, self.slope, flat]))

    @property
    def value_jumps(self) -> Tensor:
        """[B]: what the value gains at each boundary, 0 where f is continuous."""
        end = self.value + self.slope * self.offsets.diff()
        before = torch.cat([end.new_tensor([self.below]), end])
        after = torch.cat([self.value, end.new_tensor([self.above])])
        return after - before


def pair_sums(
    scores: Tensor,
    pivots: Tensor,
    functions: Sequence[PairFunction],
    *,
    weights: Tensor | None = None,
    total: Tensor | None = None,
) -> Tensor:
    """sum_j weights_j f(scores_j - pivots_i), for each function f and pivot i.

    Exact up to the rounding of float64 sums; differentiable in scores, pivots and weights. A
    score of -inf lies below every window, one of +inf above.

    Args:
        scores: [N] float32 or float64.
        pivots: [P] float32 or float64, finite.
        functions: F of them; they share the sort and the bins.
        weights: [N] float64, 1 where None.
        total: the sum of all weights if that is not `weights.sum()` or N: lets a score of -inf
            stand for one that is not there.

    Returns:
        [F, P] float64.
    """
    if total is None:
        total = scores.new_tensor(len(scores)) if weights is None else weights.sum()
    device = scores.device
    stacked = _Stacked(
        offsets=torch.cat([f.offsets for f in functions]).to(device),
        closed=torch.cat([f.closed for f in functions]).to(device),
        functions=tuple(functions),
    )
    out: Tensor = _PairSums.apply(scores, pivots, weights, total.double(), stacked)  # type: ignore[no-untyped-call]
    return out


@dataclass(frozen=True)
class _Stacked:
    """The boundaries of several functions side by side."""

    offsets: Tensor
    closed: Tensor
    functions: tuple[PairFunction, ...]

    def split(self, table: Tensor) -> tuple[Tensor, ...]:
        """[P, sum of B] -> the [P, B] of each function."""
        return torch.split(table, [len(f.offsets) for f in self.functions], dim=-1)

    def boundaries(self, pivots: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """[P, sum of B]: exact in float64, and rounded down to `dtype`, the type of the scores.

        A score of that type is above the exact boundary if and only if it is above the rounded
        one. A boundary that is closed moves just below itself, unless rounding did that already.
        """
        exact = pivots.double()[:, None] + self.offsets
        rounded = exact.to(dtype)
        lower = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
        too_high = rounded.double() > exact
        on_boundary = (rounded.double() == exact) & self.closed
        return exact, torch.where(too_high | on_boundary, lower, rounded)


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        pivots: Tensor,
        weights: Tensor | None,
        total: Tensor,
        stacked: _Stacked,
    ) -> Tensor:
        exact, rounded = stacked.boundaries(pivots, scores.dtype)
        ordered, order = rounded.flatten().sort()
        bins = torch.searchsorted(ordered, scores.contiguous(), out_int32=True)
        values = scores.double()
        count = torch.bincount(bins, weights=weights, minlength=len(ordered) + 1).double()
        score = torch.bincount(
            bins,
            weights=values if weights is None else values * weights,
            minlength=len(ordered) + 1,
        )
        # What lies below or above every boundary is only counted; its scores may be infinite.
        score[0] = score[-1] = 0
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        count_above = _suffix_sums(count)[place].view_as(exact)
        score_above = _suffix_sums(score)[place].view_as(exact)

        sums, slope_sums = [], []
        for f, T, C, S in zip(
            stacked.functions,
            stacked.split(exact),
            stacked.split(count_above),
            stacked.split(score_above),
            strict=True,
        ):
            inside = C[:, :-1] - C[:, 1:]
            beyond = S[:, :-1] - S[:, 1:] - T[:, :-1] * inside
            pieces = inside @ f.value.to(T) + beyond @ f.slope.to(T)
            sums.append(f.below * (total - C[:, 0]) + pieces + f.above * C[:, -1])
            slope_sums.append(inside @ f.slope.to(T))
        ctx.save_for_backward(scores, weights, bins, order, exact, torch.stack(slope_sums))
        ctx.stacked = stacked
        ctx.pivots_dtype = pivots.dtype
        return torch.stack(sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, weights, bins, order, exact, slope_sums = ctx.saved_tensors
        functions = ctx.stacked.functions
        upstream = list(zip(grad, functions, strict=True))
        per_boundary = torch.cat([g[:, None] * f.slope_jumps.to(g) for g, f in upstream], 1)
        slope_at = _prefix_sums(per_boundary.flatten()[order])
        # Above every boundary each f is flat: exactly 0, whatever the sum was rounded to.
        slope_at[-1] = 0

        grad_scores = slope_at.to(scores.dtype)[bins]
        if weights is not None:
            grad_scores = grad_scores * weights.to(scores.dtype)
        grad_pivots = -(grad * slope_sums).sum(0).to(ctx.pivots_dtype)

        grad_weights = None
        if ctx.needs_input_grad[2]:
            # sum_i grad_i f(s - p_i) as a function of s: the integral of the slope, and jumps.
            jumps = torch.cat([g[:, None] * f.value_jumps.to(g) for g, f in upstream], 1)
            level = _prefix_sums((jumps - per_boundary * exact).flatten()[order])
            below = sum(g.sum() * f.below for g, f in upstream)
            # In the outer bins the slope is 0, and a score may be infinite.
            finite = scores.double().nan_to_num(0, 0, 0)
            grad_weights = below + level[bins] + slope_at[bins] * finite
        return grad_scores, grad_pivots, grad_weights, None, None


def _suffix_sums(bins: Tensor) -> Tensor:
    """[M + 1] by bin -> [M] by boundary: the sum over the bins above it."""
    return bins.flip(0).cumsum(0).flip(0)[1:]


def _prefix_sums(boundaries: Tensor) -> Tensor:
    """[M] by boundary -> [M + 1] by bin: the sum over the boundaries below it."""
    return torch.cat([boundaries.new_zeros(1), boundaries.cumsum(0)])
