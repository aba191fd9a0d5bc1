"""Average precision of a few images, by brute force: a yardstick for simulations, not for papers.

Shape letters: I images, A anchors, C classes, G objects, K detections, T thresholds.
"""

import torch
from torch import Tensor

from loss.localization import iou_and_giou

THRESHOLDS = tuple(0.5 + 0.05 * k for k in range(10))
"""The overlaps of COCO's AP."""


def average_precision(
    scores: Tensor,
    boxes: Tensor,
    objects: Tensor,
    classes: Tensor,
    *,
    detections: int = 60,
    nms: float = 0.5,
) -> float:
    """AP in [0, 1] of a dense detector: the mean over overlaps .5 to .95 and over the classes.

    An image's highest scores go through greedy non-maximum suppression in each class. Then, as
    COCO has it, detections take the free object that they overlap most, in the order of their
    scores. Precision is interpolated at every recall, where COCO does so at 101 of them.

    Args:
        scores: [I, A, C] float, finite, of any scale: only their order counts.
        boxes: [I, A, 4] float, (x1, y1, x2, y2), one for all classes of an anchor.
        objects: [I, G, 4] float.
        classes: [I, G] integer, C where an image has fewer objects.
        detections: how many scores of an image go through, all of them if there are fewer.
        nms: a detection is suppressed by a better one of its class that overlaps it more.

    Returns:
        0 without objects; classes without objects do not count.
    """
    num_classes = scores.shape[2]
    best, index = scores.flatten(1).topk(min(detections, scores[0].numel()))
    kinds = index % num_classes
    found = boxes.gather(1, (index // num_classes)[..., None].expand(-1, -1, 4))
    kept = _survivors(found, kinds, nms)
    overlaps = _overlaps(found, objects) * (kinds[..., None] == classes[:, None])
    hits = _hits(overlaps, kept)
    values = []
    for kind in range(num_classes):
        there = int((classes == kind).sum())
        if there:
            own = kept & (kinds == kind)
            order = best[own].argsort(descending=True, stable=True)
            values.append(_area(hits[own][order], there))
    return sum(values) / len(values) if values else 0.0


def _overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """[I, K, G] IoU of [I, K, 4] with [I, G, 4]."""
    return iou_and_giou(boxes[:, :, None], others[:, None])[0]


def _survivors(boxes: Tensor, kinds: Tensor, nms: float) -> Tensor:
    """[I, K] bool: what greedy suppression leaves of detections that are sorted by score."""
    beaten = (_overlaps(boxes, boxes) > nms) & (kinds[:, :, None] == kinds[:, None])
    beaten = beaten.triu(1)
    kept = torch.ones_like(kinds, dtype=torch.bool)
    for k in range(kinds.shape[1]):
        kept &= ~(beaten[:, k] & kept[:, k, None])
    return kept


def _hits(overlaps: Tensor, kept: Tensor) -> Tensor:
    """[I, K, T] bool: whether a detection finds an object of its own.

    Args:
        overlaps: [I, K, G], 0 with objects of another class.
        kept: [I, K] bool.
    """
    images, count, _ = overlaps.shape
    thresholds = overlaps.new_tensor(THRESHOLDS)
    # Whatever is below every threshold never asks again.
    enough = overlaps[:, :, None] >= thresholds[:, None]
    free = torch.ones_like(enough[:, 0])
    hits = torch.zeros((images, count, len(THRESHOLDS)), dtype=torch.bool)
    asking = (enough.any(-1).any(-1) & kept).any(0).nonzero().squeeze(1)
    for k in asking.tolist():
        fit = overlaps[:, k, None].masked_fill(~(free & enough[:, k]), -1.0)
        most, which = fit.max(-1)
        hits[:, k] = (most > 0) & kept[:, k, None]
        free.scatter_(2, which[..., None], free.gather(2, which[..., None]) & ~hits[:, k, :, None])
    return hits


def _area(hits: Tensor, there: int) -> float:
    """Area under interpolated precision, the mean over thresholds.

    Args:
        hits: [K, T] bool, best score first.
        there: number of objects.
    """
    if len(hits) == 0:
        return 0.0
    found = hits.double().cumsum(0)
    precision = found / torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]
    best_from_here = precision.flip(0).cummax(0).values.flip(0)
    return float((best_from_here * hits).sum(0).mean() / there)
