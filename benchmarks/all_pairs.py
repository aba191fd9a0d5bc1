"""Parameterized AP Loss pair by pair: what its cost is compared with.

The released ranking losses evaluate every pair of a score and a positive. Parameterized AP Loss
does it for all positives at once, and keeps only the 100,000 highest scores so that the pairs fit
into memory; AP Loss and aLRP Loss loop over the positives. Both forms are here, as fast as plain
PyTorch in float32 was seen to be.

Shape letters: N scores, P positives, n scores that are ranked, b positives of a block, K segments.
"""

import torch
from torch import Tensor


class Curve:
    """The piecewise linear curve through points [K + 1, 2] of distinct x in [0, 1]."""

    def __init__(self, points: Tensor) -> None:
        x, y = points.T
        self._inner = x[1:-1].contiguous()
        self._slopes = y.diff() / x.diff()
        self._offsets = y[:-1] - self._slopes * x[:-1]

    def __call__(self, x: Tensor) -> Tensor:
        # One look-up of the segment, and of flat indices: twice as fast as a mask per segment.
        segment = torch.bucketize(x.detach(), self._inner, out_int32=True).flatten()
        slopes = self._slopes.index_select(0, segment).view(x.shape)
        return torch.addcmul(self._offsets.index_select(0, segment).view(x.shape), slopes, x)


def all_pairs(
    logits: Tensor,
    localization: Tensor,
    positive: Tensor,
    valid: Tensor,
    control_points: Tensor,
    *,
    block: int,
    cap: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients d logits [N], d localization [P]; a block's pairs at a time.

    Args:
        logits: [N] float32.
        localization: [P] float32 in [0, 1].
        positive: [P] integer, the indices of the positives.
        valid: [N] bool, False where ignored.
        control_points: [5, K + 1, 2] in the order H2, I2, I3, I1, H1.
        block: how many positives at once: P is the dense form, 1 the loop.
        cap: only so many of the highest scores are ranked; None: all.
    """
    H2, I2, I3, I1, H1 = (Curve(points.to(logits)) for points in control_points)
    logits, u = logits.detach(), localization.detach().requires_grad_()
    if cap is not None and cap < len(logits):
        ranked = logits.masked_fill(~valid, -torch.inf).topk(cap).indices
    else:
        ranked = valid.nonzero().squeeze(1)
    weights = torch.ones_like(logits).index_put((positive,), 1 - I2(u))[ranked]
    scores, fixed = logits[ranked].requires_grad_(), weights.detach().requires_grad_()
    pivots, own = logits[positive], u.detach()

    loss = torch.zeros_like(logits[0])
    d_scores, d_weights = torch.zeros_like(scores), torch.zeros_like(fixed)
    d_pivots, d_own = torch.empty_like(pivots), torch.empty_like(own)
    for begin in range(0, len(positive), block):
        part = slice(begin, begin + block)
        p, v = pivots[part].requires_grad_(), own[part].requires_grad_()
        x = ((scores - p[:, None]) / 2 + 0.5).clamp(0, 1)  # [b, n]
        rank = H1(x.detach()).sum(1)
        terms = 1 - I1(v) + I3(v) * (H2(x) @ fixed) / rank
        value = terms.sum() / len(positive)
        d_s, d_w, d_pivots[part], d_own[part] = torch.autograd.grad(value, [scores, fixed, p, v])
        d_scores, d_weights, loss = d_scores + d_s, d_weights + d_w, loss + value.detach()

    d_logits = torch.zeros_like(logits).index_copy_(0, ranked, d_scores)
    d_logits.index_add_(0, positive, d_pivots)
    return loss, d_logits, d_own + torch.autograd.grad(weights, u, d_weights)[0]
