"""CSE-AutoLoss-A and -B (Liu et al., "Loss Function Discovery for Object Detection via
Convergence-Simulation Driven Search", ICLR 2021, arXiv 2102.04700).

Two pairs of losses, classification and box regression, that an evolutionary search put together
from arithmetic: A for two-stage detectors with softmax scores, B for one-stage detectors with
sigmoid scores. What is "released" below is the authors' code, PerdonLiu/CSE-Autoloss on GitHub.

Boxes are x1, y1, x2, y2 in pixels of the network's input, and their areas are in square pixels:
the formulas add constants to areas, so in another unit they are other losses.

Shape letters: A anchors, C classes, P positives.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from loss.localization import areas, at_least_float32

_SATURATED = 40.0
"""exp(-40) is below the rounding error of 1 in float64, and exp(80) is finite in float32."""


def cse_autoloss_a_classification(logits: Tensor, labels: Tensor, overlaps: Tensor) -> Tensor:
    """-(1 + sin(w)) log softmax(x) at the label: cross-entropy that well-fitting boxes raise.

    Args:
        logits: [A, C + 1] float, the background last; float16 and bfloat16 are computed in float32.
        labels: [A] int64 in 0..C, C for background.
        overlaps: [A] float, w: IoU of prediction and target, clipped to [0, 1]. The background
            has no target; the released code gives it w = 1.

    Returns:
        [A], at least 0. The factor goes from 1 (w = 0) to 1.84 (w = 1). A logit of -inf is a
        class of probability 0: it costs nothing and gets no gradient, except at the label, where
        the loss is infinite. A row with +inf or NaN is NaN.

    Raises:
        ValueError: shapes that do not fit each other.

    Source: the classification branch of CSE-AutoLoss-A.
    """
    if logits.ndim != 2 or not labels.shape == overlaps.shape == logits.shape[:1]:
        raise ValueError(
            "expected logits [A, C + 1] with labels and overlaps [A]; got "
            f"{tuple(logits.shape)}, {tuple(labels.shape)}, {tuple(overlaps.shape)}."
        )
    log_p = F.log_softmax(at_least_float32(logits), 1).gather(1, labels[:, None]).squeeze(1)
    return -(1 + at_least_float32(overlaps).clamp(0, 1).sin()) * log_p


def cse_autoloss_b_classification(
    logits: Tensor, targets: Tensor, overlaps: Tensor, *, scaled: bool = True
) -> Tensor:
    """The sigmoid loss of CSE-AutoLoss-B, element by element.

    -[w y (1 + erf(s(1 - y))) log s(x) + (gd(x) - w y) (s(x) - w y) log(1 - s(x))], s the sigmoid.

    A positive is drawn to a score near its IoU w: its loss is least at s(x) = 0.39, 0.77 and 0.99
    for w = 0.1, 0.5 and 0.9. A positive with w = 0 is trained as a negative.

    `scaled` says what erf and gd are. In the authors' notes and released code they are scaled to
    the range and the slope of the sigmoid: erf(x) stands for (1 + erf(sqrt(pi) x / 4)) / 2, and
    gd(x) for (1 + 2/pi gd(pi x / 4)) / 2. A negative then costs gd(x) s(x) log(1 + e^x): it is
    above 0, rises everywhere, and goes to 0 for x -> -inf and as x for x -> inf.

    Read literally (`scaled=False`), gd(x) = 2 atan(tanh(x / 2)) is below 0 where x is, and so is
    what a negative costs. That is least, -0.0879, at x = -0.610, a score of 0.352: negatives at
    lower scores are pulled up to there, and none is driven to 0.

    Args:
        logits: [A, C] float, or any shape; float16 and bfloat16 are computed in float32.
        targets: of the same shape, y: 1 at positives; anything else is a negative.
        overlaps: of the same shape, w: IoU of prediction and target, clipped to [0, 1]; read at
            positives only.

    Returns:
        Of the same shape. 0 with zero gradient at negatives of -inf; +inf at negatives of +inf,
        and not finite at positives that are not finite, with gradients that may be NaN; NaN at NaN.

    Raises:
        ValueError: shapes that differ.

    Source: the classification branch of CSE-AutoLoss-B.
    """
    if not logits.shape == targets.shape == overlaps.shape:
        raise ValueError(
            "expected logits, targets and overlaps of one shape; got "
            f"{tuple(logits.shape)}, {tuple(targets.shape)}, {tuple(overlaps.shape)}."
        )
    x = at_least_float32(logits)
    negative = targets != 1
    wy = at_least_float32(overlaps).clamp(0, 1).masked_fill(negative, 0)
    # y is 1 wherever w y is not 0, so that erf is only ever taken of the sigmoid of 0.
    erf = (1 + math.erf(math.sqrt(math.pi) / 8)) / 2 if scaled else math.erf(0.5)
    gd = _scaled_gudermannian(x) if scaled else 2 * torch.atan(torch.tanh(x / 2))
    # Without a mask, a negative of -inf would multiply 0 by infinity.
    found = wy * (1 + erf) * F.logsigmoid(x.masked_fill(negative, 0))
    return -(found + (gd - wy) * (x.sigmoid() - wy) * F.logsigmoid(-x))


def cse_autoloss_a_regression(pred_boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """(1 - i/u) + (1 - (i + 2)/e), with the areas of intersection, union and enclosing box.

    u and e count as at least 1 square pixel, so boxes without area are no special case. The value
    is in [-2, 2]: 2 - 2/e without overlap, -2/e for a perfect fit. Without the floor it would go
    to -inf as the boxes shrink; with it, it rises again to 0 below a square pixel. The constant
    matters for small boxes, 2/e being 0.02 at 10 x 10 pixels, and for boxes that miss: of their
    loss, 2 - 2/e, it is the only part with a gradient, and a small one.

    Args:
        pred_boxes: [P, 4], in pixels; float16 and bfloat16 are computed in float32.
        target_boxes: [P, 4].

    Returns:
        [P]; NaN where a corner is NaN or a box is infinitely large.

    Raises:
        ValueError: other shapes.

    Source: the regression branch of CSE-AutoLoss-A.
    """
    i, u, e = _areas(pred_boxes, target_boxes)
    u, e = u.clamp(min=1), e.clamp(min=1)
    return (u - i) / u + (e - i - 2) / e


def cse_autoloss_b_regression(pred_boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """(3eu + 12e + 3i + 3u + 18) / (-3eu + iu + u^2 - 15e + 5i + 5u), areas as in A.

    The denominator is -(u + 5)(3e - i - u), and e >= u >= i >= 0: it is negative unless e = 0, and
    the loss with it. e counts as at least 1 square pixel, without which the loss of boxes without
    area would be -inf. The value is in [-6.5, -0.8]: about -1 for large boxes without overlap,
    which are drawn to grow until they meet; about -3 for a perfect fit of large boxes, and lower
    for one of small boxes: -6.5 at one square pixel.

    The released FCOS regresses distances in strides of the level, so areas there are in square
    strides; the other released detectors have pixels.

    Args:
        pred_boxes: [P, 4], in pixels; float16 and bfloat16 are computed in float32.
        target_boxes: [P, 4].

    Returns:
        [P]; NaN where a corner is NaN or a box is infinitely large.

    Raises:
        ValueError: other shapes.

    Source: the regression branch of CSE-AutoLoss-B.
    """
    i, u, e = _areas(pred_boxes, target_boxes)
    e = e.clamp(min=1)
    # The fraction divided through by u + 5: no product of two areas, which could overflow.
    return -3 * (1 + e + (1 + i - e) / (u + 5)) / (3 * e - i - u)


def _scaled_gudermannian(x: Tensor) -> Tensor:
    """(1 + 2/pi gd(pi x / 4)) / 2, from 0 to 1, by gd(x) = 2 atan(e^x) - pi/2.

    Nothing cancels where it is near 0, which is where most negatives are.
    """
    return 2 / math.pi * torch.atan(torch.exp((math.pi / 4 * x).clamp(max=_SATURATED)))


def _areas(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing box of [P, 4] and [P, 4], each [P], in square pixels."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.shape != targets.shape:
        raise ValueError(
            f"expected pred_boxes and target_boxes of one shape [P, 4]; got {tuple(boxes.shape)}, "
            f"{tuple(targets.shape)}."
        )
    return areas(boxes, targets)
