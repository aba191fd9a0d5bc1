"""Box losses for criteria that rank scores alone. Shape letters: P positives."""

from dataclasses import dataclass

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.localization import at_least_float32, iou_and_giou

_TINY = 1e-7


def giou_distance(batch: DetectionBatch) -> Tensor:
    """[P]: 1 - GIoU, in [0, 2]."""
    return 1 - iou_and_giou(batch.pred_boxes, batch.target_boxes)[1]


def l1_distance(batch: DetectionBatch) -> Tensor:
    """[P]: the sum of |difference| over the four corner coordinates, at least 0, in units of the
    anchor's width and height: in pixels a large object would count for many small ones.

    Raises:
        ValueError: a batch without anchor sizes.
    """
    if batch.anchor_sizes is None:
        raise ValueError(
            "the L1 box loss is in units of the anchors, but the batch has no anchor_sizes; let "
            "the head adapter give them, or take 'giou'."
        )
    # Computed in float32 at least, as the overlaps are: differences of large corners are small.
    boxes, targets, sizes = (
        at_least_float32(x) for x in (batch.pred_boxes, batch.target_boxes, batch.anchor_sizes)
    )
    units = torch.cat([sizes, sizes], dim=1).clamp(min=_TINY)
    return ((boxes - targets).abs() / units).sum(1)


BOX_LOSSES = {"giou": giou_distance, "l1": l1_distance}


@dataclass(frozen=True)
class BoxLoss:
    """weight * sum of a box loss over the positives / P, or / the batch's own `avg_factor`.

    Without positives it is 0, with a gradient of zeros, and P counts as 1.

    Attributes:
        name: "giou" or "l1", see `giou_distance` and `l1_distance`.
        weight: at least 0.

    Raises:
        ValueError: an unknown name; a weight that is negative or not finite.
    """

    name: str
    weight: float

    def __post_init__(self) -> None:
        if self.name not in BOX_LOSSES:
            raise ValueError(f"box_loss is {self.name!r}; expected one of {list(BOX_LOSSES)}.")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"box_weight is {self.weight}; expected a number of at least 0.")

    def __call__(self, batch: DetectionBatch) -> Tensor:
        """A scalar in the type of the boxes, float32 at least."""
        count = batch.divisor
        return self.weight * BOX_LOSSES[self.name](batch).sum() / count
