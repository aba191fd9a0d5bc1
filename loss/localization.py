"""How well a predicted box fits its target, as a score in [0, 1].

Boxes are [..., 4] as x1, y1, x2, y2 in pixels, and are computed in float32 at least. A box without
area counts as an empty set: its IoU with anything is 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_TINY = 1e-7


def iou_and_giou(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU in [0, 1] and generalised IoU in [-1, 1] of boxes [..., 4] with targets [..., 4].

    Source: Generalized Intersection over Union, Rezatofighi et al. 2019, algorithm 1.
    """
    intersection, union, enclosing = areas(boxes, targets)
    iou = intersection / union.clamp(min=_TINY)
    return iou, iou - (enclosing - union) / enclosing.clamp(min=_TINY)


def areas(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[...] areas of intersection, union and enclosing box, in float32 at least."""
    # Areas overflow float16.
    boxes, targets = at_least_float32(boxes), at_least_float32(targets)
    highest, lowest = torch.max(boxes, targets), torch.min(boxes, targets)
    intersection = (lowest[..., 2:] - highest[..., :2]).clamp(min=0).prod(-1)
    enclosing = (highest[..., 2:] - lowest[..., :2]).clamp(min=0).prod(-1)
    return intersection, _area(boxes) + _area(targets) - intersection, enclosing


def at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.element_size() < 4 else x


def giou_score(boxes: Tensor, targets: Tensor, anchor_sizes: Tensor | None = None) -> Tensor:
    """(1 + GIoU) / 2."""
    return (1 + iou_and_giou(boxes, targets)[1]) / 2


def iou_score(boxes: Tensor, targets: Tensor, anchor_sizes: Tensor | None = None) -> Tensor:
    """IoU."""
    return iou_and_giou(boxes, targets)[0]


def l1_score(boxes: Tensor, targets: Tensor, anchor_sizes: Tensor | None = None) -> Tensor:
    """clip(1 - sum |boxes - targets|, 0, 1), in units of the anchors' width and height.

    Args:
        anchor_sizes: [..., 2], width and height of each box's anchor or proposal.

    Raises:
        ValueError: without anchor sizes; in pixels every score would be 0.
    """
    if anchor_sizes is None:
        raise ValueError(
            "the L1 localisation score is in units of the anchors, but the batch has no "
            "anchor_sizes; let the head adapter give them, or take 'giou' or 'iou'."
        )
    distance = (boxes - targets).abs() / torch.cat([anchor_sizes, anchor_sizes], -1).clamp(
        min=_TINY
    )
    return (1 - distance.sum(-1)).clamp(0, 1)


LOCALIZATION: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "giou": giou_score,
    "iou": iou_score,
    "l1": l1_score,
}


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
