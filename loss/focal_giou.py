"""Focal + GIoU: the loss that detectors are trained with today, and the search's baseline.

Shape letters: A anchors, C classes, P positives.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from loss.batch import DetectionBatch
from loss.criterion import Criterion, register_criterion
from loss.localization import iou_and_giou


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """[A, C]: -alpha_t (1 - p_t)^gamma log(p_t), for logits [A, C] and targets [A, C] in {0, 1}.

    Source: Focal Loss for Dense Object Detection, Lin et al. 2017, equation (5).
    """
    p = logits.sigmoid()
    wrong = torch.where(targets == 1, 1 - p, p)
    balance = torch.where(targets == 1, alpha, 1 - alpha)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return balance * wrong**gamma * cross_entropy


@register_criterion("focal_giou")
class FocalGIoU(Criterion):
    """Focal loss and giou_weight * (1 - GIoU) on decoded boxes, both summed and divided by P
    (or the batch's own `avg_factor`).

    Args:
        alpha, gamma: of the focal loss.
        giou_weight: of the box loss; 2.0 in the baseline of the paper.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, giou_weight: float = 2.0) -> None:
        super().__init__()
        self.alpha, self.gamma, self.giou_weight = alpha, gamma, giou_weight

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """{"loss_cls", "loss_bbox"}; without positives, the box loss is 0 and P counts as 1."""
        onehot = (batch.targets() == 1).to(batch.logits)
        count = batch.divisor
        weights = batch.weights[:, None]
        # Ignored logits may be anything, also what is not a number.
        logits = batch.logits.masked_fill(weights == 0, 0)
        focal = sigmoid_focal_loss(logits, onehot, self.alpha, self.gamma)
        _, giou = iou_and_giou(batch.pred_boxes, batch.target_boxes)
        return {
            "loss_cls": (focal * weights).sum() / count,
            "loss_bbox": self.giou_weight * (1 - giou).sum() / count,
        }
