"""Sums over all pairs of scores and pivots, without the pairs, with gradients.

For scores s_j and pivots p_i, `pair_sums` gives sum_j w_j f(s_j - p_i) for every i, where f is
made of polynomials of the difference and constant outside of a window: exactly, and in near-linear
time (`loss.pair_index`). Neither forward nor backward makes a GPU wait for the host.

Shape letters: N scores, P pivots, F functions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from loss.pair_function import PairFunction
from loss.pair_index import PairIndex

__all__ = ["PairFunction", "PairIndex", "assign_gradient", "element_sums", "pair_sums"]


def pair_sums(
    scores: Tensor,
    pivots: Tensor,
    functions: Sequence[PairFunction],
    *,
    weights: Tensor | None = None,
    include: Tensor | None = None,
) -> Tensor:
    """sum_j weights_j f(scores_j - pivots_i), for each function f and pivot i.

    Exact up to the rounding of float64 sums; differentiable in scores, pivots and weights.

    Args:
        scores, pivots, functions, include: see `PairIndex`.
        weights: [N] float, 1 where None.

    Returns:
        [F, P] float64; NaN if a score that is included is NaN, or a pivot is not finite.
    """
    out: Tensor = _PairSums.apply(scores, pivots, weights, functions, include)  # type: ignore[no-untyped-call]
    return out


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        pivots: Tensor,
        weights: Tensor | None,
        functions: Sequence[PairFunction],
        include: Tensor | None,
    ) -> Tensor:
        index = PairIndex(scores, pivots, functions, include=include)
        # Saved as autograd wants it, so that a change in place is noticed.
        ctx.save_for_backward(scores, weights, include)
        ctx.index = index
        ctx.pivots_dtype = pivots.dtype
        # NaN has no place among the boundaries: say it here, or a diverged head would go unseen.
        return index.sums(weights) + torch.where(index.nan, torch.nan, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, weights, include = ctx.saved_tensors
        index: PairIndex = ctx.index
        at_scores = at_pivots = at_weights = None
        if ctx.needs_input_grad[0]:
            at_scores = index.spread(grad, derivative=True)
            if weights is not None:
                # What is not included may weigh NaN.
                own = weights if include is None else weights.masked_fill(~include, 0)
                at_scores = at_scores * own.to(at_scores)
        if ctx.needs_input_grad[1]:
            slopes = index.sums(weights, derivative=True)
            at_pivots = -(grad * slopes).sum(0).to(ctx.pivots_dtype)
        if ctx.needs_input_grad[2]:
            at_weights = index.spread(grad).to(weights)
        return at_scores, at_pivots, at_weights, None, None


def element_sums(
    scores: Tensor,
    elements: Tensor,
    functions: Sequence[PairFunction],
    *,
    include: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`pair_sums` around pivots that are scores themselves, and those pivots.

    As `pair_sums(scores, scores[elements].double(), ...)`, with one gradient of N scores instead
    of two, which is what it saves.

    Args:
        elements: [P] integer.

    Returns:
        [F, P] float64, and the pivots [P] float64.
    """
    sums, pivots = _ElementSums.apply(scores, elements, functions, include)  # type: ignore[no-untyped-call]
    return sums, pivots


class _ElementSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        elements: Tensor,
        functions: Sequence[PairFunction],
        include: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        pivots = scores.index_select(0, elements).double()
        index = PairIndex(scores, pivots, functions, include=include)
        ctx.save_for_backward(scores, elements)
        ctx.index = index
        return index.sums() + torch.where(index.nan, torch.nan, 0.0), pivots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_pivots: Tensor) -> tuple[Tensor | None, ...]:
        _, elements = ctx.saved_tensors
        index: PairIndex = ctx.index
        at_scores = index.spread(grad, derivative=True)
        own = grad_pivots - (grad * index.sums(derivative=True)).sum(0)
        at_scores.index_add_(0, elements, own.to(at_scores.dtype))
        return at_scores, None, None, None


def assign_gradient(value: Tensor, logits: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    """`value` [], whose gradient at `logits` is by definition what `gradient` makes of the
    upstream gradient [] of the value: of the shape and type of `logits`.

    For losses that are trained by an error-driven update instead of a derivative. A function, so
    that N numbers are made only where they are wanted, and once.
    """
    out: Tensor = _AssignGradient.apply(logits, value, gradient)  # type: ignore[no-untyped-call]
    return out


class _AssignGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, value: Tensor, gradient: Callable[[Tensor], Tensor]
    ) -> Tensor:
        # Saved as autograd wants it, so that a change in place is noticed.
        ctx.save_for_backward(logits)
        ctx.gradient = gradient
        return value.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        _ = ctx.saved_tensors
        return ctx.gradient(grad), None, None
