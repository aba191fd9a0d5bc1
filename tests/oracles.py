"""The losses once more: dense, in float64, written from the formulas and slow.

Tests compare `loss/` with these; nothing here is imported from there. Gradients come from autograd.
Shape letters: N scores, P positives, K segments of a curve.
"""

import math
from collections.abc import Callable
from functools import partial

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


def step(d: Tensor) -> Tensor:
    """0, 1/2 for a tie, 1."""
    return (d.sign() + 1) / 2


def root(x: Tensor) -> Tensor:
    """x^(1/2), whose slope at arguments up to 1e-4 is that at 1e-4."""
    steepest = x.detach().sqrt() + 0.5 / math.sqrt(1e-4) * (x - x.detach())
    return torch.where(x > 1e-4, x.clamp(min=1e-4).sqrt(), steepest)


def clip(d: Tensor) -> Tensor:
    return (d / 2 + 0.5).clamp(0, 1)


Function = Callable[[Tensor], Tensor]
FORMS: dict[str, tuple[Function, Function]] = {
    "linear": (clip, lambda u: u),
    "square": (lambda d: clip(d) ** 2, lambda u: u**2),
    "sqrt": (lambda d: root(clip(d)), root),
    "sigmoid": (torch.sigmoid, lambda u: torch.sigmoid(2 * u - 1)),
}
"""H of the difference d = s_j - s_i and I of the localisation score u, of the named forms."""


def pap_functions(control_points: Tensor | list[Tensor] | str) -> list[Function]:
    """H2, I2, I3, I1 and H1, the functions of d and u that control points stand for."""
    if isinstance(control_points, str):
        h, i = FORMS[control_points]
        return [h, i, i, i, h]
    rows: list[Function] = [partial(curve, points) for points in control_points]
    H2, I2, I3, I1, *H1 = rows * 5 if len(rows) == 1 else rows
    above = (lambda d: H1[0](d / 2 + 0.5)) if H1 else step
    return [lambda d: H2(d / 2 + 0.5), I2, I3, I1, above]


def pap_loss(
    logits: Tensor,
    localization: Tensor,
    targets: Tensor,
    control_points: Tensor | list[Tensor] | str,
    *,
    num_topk: int | None = None,
    detach_denominator: bool = True,
) -> Tensor:
    """Parameterized AP Loss of [N] logits, [N] localisation scores and [N] targets in {1, 0, -1}.

    1/P sum_i [1 - I1(u_i) + I3(u_i) sum_j H2(x_ij) (1 - I2(u_j)) / sum_j H1(x_ij)], with the rows
    of `control_points` [5 or 4, K + 1, 2] in the order of `CURVES`; H1 is the step if left out,
    one row is all five curves, a string names a form.
    """
    H2, I2, I3, I1, H1 = pap_functions(control_points)
    i = (targets == 1).nonzero()[:, 0]
    j = (targets >= 0).nonzero()[:, 0]
    if num_topk is not None:
        j = j[logits[j].argsort(descending=True)[:num_topk]]
    if len(i) == 0:
        return 0 * (logits[:0].sum() + localization[:0].sum()).double()
    d = logits[j].double()[None, :] - logits[i].double()[:, None]
    u = localization.double().clamp(0, 1)
    denominator = H1(d).sum(1).clamp(min=1e-6)
    if detach_denominator:
        denominator = denominator.detach()
    error = (H2(d) * (1 - I2(u[j]))).sum(1) / denominator
    return (1 - I1(u[i]) + I3(u[i]) * error).mean()


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
    numbers = st.lists(st.integers(8 * low, 8 * high), min_size=size, max_size=size)
    return numbers.map(lambda drawn: [n / 8 for n in drawn])


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
