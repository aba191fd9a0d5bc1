"""What a training with a criterion looks like: balance of its gradients, and whether scores rank
positives as their boxes do (aLRP Loss, Oksuz et al., NeurIPS 2020, arXiv 2009.13592).

Numbers for people to look at, so they come as floats: a GPU makes the host wait for them.
Shape letters: N scores, P positives.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.criterion import Criterion, value_and_gradients
from loss.localization import iou_and_giou


@dataclass(frozen=True)
class GradientBalance:
    """How hard a loss pulls at the logits.

    Attributes:
        positives, negatives: sum of |d loss / d logit| over the elements of either kind.
    """

    positives: float
    negatives: float

    @property
    def ratio(self) -> float:
        """negatives / positives: 1 is balance, inf if only negatives are pulled at, NaN if none."""
        if self.positives == 0:
            return math.inf if self.negatives > 0 else math.nan
        return self.negatives / self.positives


def gradient_magnitudes(gradient: Tensor, targets: Tensor) -> GradientBalance:
    """The balance of a gradient that is known.

    Args:
        gradient: d loss / d logits, of any shape.
        targets: of the same shape: 1 positive, 0 negative, everything else is ignored.

    Raises:
        ValueError: shapes that differ.
    """
    if gradient.shape != targets.shape:
        raise ValueError(
            "expected gradient and targets of one shape; got "
            f"{tuple(gradient.shape)} and {tuple(targets.shape)}."
        )
    size = gradient.detach().abs()
    positives, negatives = (size[targets == kind].double().sum().item() for kind in (1, 0))
    return GradientBalance(positives, negatives)


def gradient_balance(criterion: Criterion, batch: DetectionBatch) -> GradientBalance:
    """Summed magnitudes of a criterion's gradients at the logits of positives and of negatives.

    Losses with the error-driven update (AP, aLRP, NDCG) give both the same, whatever the batch
    (paper, Theorem 2); under losses of single scores the many negatives may drown the positives.

    Nothing is left behind: a copy of the criterion is asked, in the mode that the criterion is in,
    and no gradient is accumulated. Works where gradients are switched off, too.
    """
    with torch.enable_grad():
        _, gradient, _ = value_and_gradients(copy.deepcopy(criterion), batch)
    return gradient_magnitudes(gradient, batch.targets())


def rank_correlation(logits: Tensor, localization: Tensor) -> float:
    """Pearson correlation, in [-1, 1], of the positives' ranks by score and by localisation.

    1 if the higher score always has the better box. Equal values share the mean of their ranks, so
    this is Spearman's rho. It takes values as they are, infinite ones too.

    Args:
        logits: [P].
        localization: [P], such as the IoU of each positive with its target.

    Returns:
        NaN where a correlation is not defined: for fewer than two positives, if either side is
        constant, or if a value is NaN.

    Raises:
        ValueError: shapes that differ, or are not [P].
    """
    if logits.shape != localization.shape or logits.ndim != 1:
        raise ValueError(
            "expected logits and localization of one shape [P]; got "
            f"{tuple(logits.shape)} and {tuple(localization.shape)}."
        )
    if bool(logits.isnan().any() | localization.isnan().any()):
        return math.nan
    a, b = (ranks - ranks.mean() for ranks in (_ranks(logits), _ranks(localization)))
    # Constant, or not there at all: 0 / 0.
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())


def score_iou_correlation(batch: DetectionBatch) -> float:
    """`rank_correlation` of the positives' logits, of their own class, and their boxes' IoU."""
    iou, _ = iou_and_giou(batch.pred_boxes, batch.target_boxes)
    return rank_correlation(batch.logits[batch.pos, batch.labels[batch.pos]], iou)


def _ranks(values: Tensor) -> Tensor:
    """[P] float64: 1 for the lowest, the mean of their places for equals."""
    _, place, count = values.detach().unique(return_inverse=True, return_counts=True)
    last = count.double().cumsum(0)
    mean: Tensor = last - (count - 1) / 2
    return mean[place]
