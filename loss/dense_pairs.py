"""Sums over all pairs for functions that are not made of polynomials: pair by pair, in chunks.

Exact, in O(N P) time and bounded memory: hundreds of times slower than `loss.ranking` on a
detector's mini-batch. It is there so that the paper's hand-crafted forms can be compared with.

Shape letters: N scores, P pivots.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PAIRS = 1 << 21
"""Pairs that are held in memory at once (16 MB each of the few intermediates)."""


@dataclass(frozen=True)
class SmoothPairFunction:
    """f(d) of a score difference d, and its slope f'(d): elementwise, on float64."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def dense_pair_sums(
    scores: Tensor,
    pivots: Tensor,
    function: SmoothPairFunction,
    *,
    weights: Tensor | None = None,
    include: Tensor | None = None,
) -> Tensor:
    """[P] float64: sum_j weights_j f(scores_j - pivots_i), differentiable in all three.

    Args:
        scores: [N] float.
        pivots: [P] float.
        weights: [N] float64, 1 where None.
        include: [N] bool: a score where it is False is not there. None: all are.
    """
    out: Tensor = _DensePairSums.apply(scores, pivots, function, weights, include)  # type: ignore[no-untyped-call]
    return out


class _DensePairSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        pivots: Tensor,
        function: SmoothPairFunction,
        weights: Tensor | None,
        include: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(scores, pivots, weights, include)
        ctx.function = function
        sums = torch.zeros(len(pivots), dtype=torch.float64, device=scores.device)
        for part in _chunks(scores, pivots):
            pairs, keep = _differences(scores, pivots, include, part)
            values = torch.where(keep, function.value(pairs), 0)
            sums += values.sum(1) if weights is None else values @ _weights(weights, keep, part)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scores, pivots, weights, include = ctx.saved_tensors
        at_scores = torch.zeros_like(scores, memory_format=torch.contiguous_format)
        at_pivots = torch.zeros(len(pivots), dtype=torch.float64, device=scores.device)
        at_weights = None if weights is None else torch.zeros_like(weights)
        for part in _chunks(scores, pivots):
            pairs, keep = _differences(scores, pivots, include, part)
            slopes = torch.where(keep, ctx.function.slope(pairs), 0)
            if weights is not None and at_weights is not None:
                slopes = slopes * _weights(weights, keep, part)
                values = torch.where(keep, ctx.function.value(pairs), 0)
                at_weights[part] = (grad @ values).to(weights.dtype)
            at_scores[part] = (grad @ slopes).to(scores.dtype)
            at_pivots -= grad * slopes.sum(1)
        return at_scores, at_pivots.to(pivots.dtype), None, at_weights, None


def _chunks(scores: Tensor, pivots: Tensor) -> Iterator[slice]:
    size = max(_PAIRS // max(len(pivots), 1), 1)
    return (slice(begin, begin + size) for begin in range(0, len(scores), size))


def _differences(
    scores: Tensor, pivots: Tensor, include: Tensor | None, part: slice
) -> tuple[Tensor, Tensor]:
    """[P, n] s_j - p_i in float64, and [n] bool which of these scores are there."""
    own = scores[part].double()
    keep = torch.ones_like(own, dtype=torch.bool) if include is None else include[part]
    return own[None] - pivots.double()[:, None], keep


def _weights(weights: Tensor, keep: Tensor, part: slice) -> Tensor:
    return weights[part].double().masked_fill(~keep, 0)
