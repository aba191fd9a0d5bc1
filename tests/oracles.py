"""The losses once more: dense, in float64, written from the formulas and slow.

Tests compare `loss/` with these; nothing here is imported from there. Gradients come from autograd.
Shape letters: N scores, P positives, K segments of a curve.
"""

import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

CURVES = ("H2", "I2", "I3", "I1", "H1")


def curve(points: Tensor, x: Tensor) -> Tensor:
    """The piecewise linear curve through `points` [K + 1, 2] at `x`, any shape, clipped to [0, 1].

    Segment k covers (x_k, x_{k+1}]. 0 belongs to the first segment that has a width, those that
    have none are never used, and the clip passes gradient at its ends.
    """
    x = x.double().clamp(0, 1)
    y, first = torch.zeros_like(x), True
    for (x0, y0), (x1, y1) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        if x1 > x0:
            inside = (x <= x1) & ((x >= x0) if first else (x > x0))
            y = y + torch.where(inside, y0 + (y1 - y0) / (x1 - x0) * (x - x0), 0.0)
            first = False
    return y + 0 * x.detach()  # NaN lies in no segment, and stays NaN


def pair_curve(points: Tensor | None, scores: Tensor, pivots: Tensor) -> Tensor:
    """[P, N]: the curve at d / 2 + 1/2 of every d = s_j - p_i; the step of d without points."""
    d = scores.double()[None, :] - pivots.double()[:, None]
    return (d.sign() + 1) / 2 if points is None else curve(points, d / 2 + 0.5)


def pap_loss(
    logits: Tensor,
    localization: Tensor,
    targets: Tensor,
    control_points: Tensor,
    *,
    num_topk: int | None = None,
    detach_denominator: bool = True,
) -> Tensor:
    """Parameterized AP Loss of [N] logits, [N] localisation scores and [N] targets in {1, 0, -1}.

    1/P sum_i [1 - I1(u_i) + I3(u_i) sum_j H2(x_ij) (1 - I2(u_j)) / sum_j H1(x_ij)], with the rows
    of `control_points` [5 or 4, K + 1, 2] in the order of `CURVES`; H1 is the step if left out.
    """
    H2, I2, I3, I1, *rest = control_points.double()
    H1 = rest[0] if rest else None
    i = (targets == 1).nonzero()[:, 0]
    j = (targets >= 0).nonzero()[:, 0]
    if num_topk is not None:
        j = j[logits[j].argsort(descending=True)[:num_topk]]
    if len(i) == 0:
        return 0 * (logits.sum() + localization.sum()).double()
    denominator = pair_curve(H1, logits[j], logits[i]).sum(1).clamp(min=1e-6)
    if detach_denominator:
        denominator = denominator.detach()
    missed = 1 - curve(I2, localization[j])
    error = (pair_curve(H2, logits[j], logits[i]) * missed).sum(1) / denominator
    u = localization[i]
    return (1 - curve(I1, u) + curve(I3, u) * error).mean()


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> float:
    """The sum over all elements of -alpha_t (1 - p_t)^gamma log p_t, one at a time."""
    total = 0.0
    for logit, target in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        p_t, alpha_t = (p, alpha) if target == 1 else (1 - p, 1 - alpha)
        total -= alpha_t * (1 - p_t) ** gamma * math.log(p_t)
    return total


def iou_and_giou(box: list[int], target: list[int]) -> tuple[float, float]:
    """IoU and GIoU of two boxes with integer corners, by counting the unit cells they cover."""

    def cells(x1: int, y1: int, x2: int, y2: int) -> set[tuple[int, int]]:
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    lows = [min(a, b) for a, b in zip(box[:2], target[:2], strict=True)]
    highs = [max(a, b) for a, b in zip(box[2:], target[2:], strict=True)]
    a, b, hull = cells(*box), cells(*target), cells(*lows, *highs)
    iou = len(a & b) / len(a | b) if a | b else 0.0
    return iou, iou - (len(hull - a - b) / len(hull) if hull else 0.0)


def eighths(low: int, high: int, size: int) -> st.SearchStrategy[list[float]]:
    """Lists of `size` multiples of 1/8 in [low, high]: many ties, and sums without rounding."""
    return st.lists(
        st.integers(8 * low, 8 * high).map(lambda n: n / 8), min_size=size, max_size=size
    )


@st.composite
def control_points(draw: st.DrawFn, curves: int, segments: int) -> Tensor:
    """[curves, K + 1, 2] rising curves on a grid, on which points coincide anywhere."""
    rows = []
    for _ in range(curves):
        x = [0.0, *sorted(draw(eighths(0, 1, segments - 1))), 1.0]
        y = sorted(draw(eighths(0, 1, segments + 1)))
        rows.append(list(zip(x, y, strict=True)))
    return torch.tensor(rows, dtype=torch.float64)


def value_and_grads(
    function: Callable[..., Tensor], *inputs: Tensor, upstream: Tensor | None = None
) -> tuple[Tensor, ...]:
    """function(*inputs), then its gradient at every input (0 at an input that it does not use)."""
    leaves = [x.detach().clone(memory_format=torch.preserve_format) for x in inputs]
    value = function(*(x.requires_grad_() for x in leaves))
    value.backward(upstream)
    grads = (torch.zeros_like(x) if x.grad is None else x.grad for x in leaves)
    return value.detach(), *grads


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within `tolerance`, relative to the largest entry expected (or to 1e-6 where smaller)."""
    assert actual.shape == expected.shape
    assert torch.equal(actual.isnan(), expected.isnan())
    if expected.numel():
        error = float((actual.double() - expected.double()).nan_to_num().abs().max())
        scale = max(float(expected.double().nan_to_num().abs().max()), 1e-6)
        assert error <= tolerance * scale, f"off by {error / scale:.1e} of the largest entry"
