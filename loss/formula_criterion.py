"""A loss of two formulas, for scores and for boxes, as a criterion.

Shape letters: A anchors, C columns of logits, P positives.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.classification import usable_logits
from loss.criterion import Criterion, check_options, register_criterion
from loss.formula import CLASSIFICATION, REGRESSION, evaluate
from loss.formula_family import FormulaFamily, check_numbers
from loss.formula_known import formula_or_default
from loss.localization import areas, iou_score


@register_criterion("formula")
class FormulaLoss(Criterion):
    """Formulas of the score and of the box, as CSE-AutoLoss searches them (arXiv 2102.04700).

    The classification reads, of each anchor and class, x: the logit; y: 1 for the class of a
    positive, else 0; w: the IoU of a positive's box with its target, without gradient. Its value is
    summed over the classes, unless a dot has done that, and over the anchors.

    - sigmoid: w is 0 wherever y is 0, so that w is w y.
    - softmax: the last column is the background, whose y is 1 where an anchor is no positive. A
      positive's w counts in all its columns; a background's w is 1. Both as in the released code.

    The regression reads, of each positive, i, u and e: the areas, in square pixels, of
    intersection, union and enclosing box, u and e being at least 1. Its value is summed over the
    positives, weighted with the batch's `quality` if it has one.

    What is divided by: as in `StandardLoss`. An ignored anchor's value is left out.

    Args:
        classification, regression: nested lists, see `loss.formula.parse`; None: cross-entropy of
            `activation`, and 1 - GIoU.
        cls_weight, box_weight: of the two, at least 0.
        activation: "sigmoid" or "softmax".
        alpha: weight of the values where y = 1, in [0, 1], the others having 1 - alpha, as in the
            released code of one-stage detectors (0.25); None: all count 1. For sigmoid scores, and
            what no dot has summed.

    Raises:
        ValueError: a formula that is none, or a number out of range. In `forward`, on a CPU:
            softmax, and a positive whose label is the last column.
    """

    def __init__(
        self,
        classification: Any = None,
        regression: Any = None,
        cls_weight: float = 1.0,
        box_weight: float = 2.0,
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        check_numbers(activation, cls_weight, box_weight, alpha)
        self.activation = activation
        self.cls_weight, self.box_weight, self.alpha = cls_weight, box_weight, alpha
        self.classification = formula_or_default(classification, CLASSIFICATION, activation)
        self.regression = formula_or_default(regression, REGRESSION, activation)

    @classmethod
    def title(cls, **options: Any) -> str:
        return "Formula"

    @classmethod
    def searchable(cls, settings: Mapping[str, Any]) -> bool:
        return settings.get("classification") is None or settings.get("regression") is None

    @classmethod
    def parameterization(cls, **options: Any) -> FormulaFamily:
        check_options("a search of formula", FormulaFamily, options)
        return FormulaFamily(**options)

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """{"loss_cls", "loss_bbox"}; without positives the box loss is 0."""
        cls, box = self._classify(batch), self._regress(batch)
        return {
            "loss_cls": self.cls_weight * cls.to(batch.logits.dtype) / batch.divisor,
            "loss_bbox": self.box_weight * box.to(batch.logits.dtype) / batch.box_divisor,
        }

    def _classify(self, batch: DetectionBatch) -> Tensor:
        x = usable_logits(batch)
        y, w = (_labels_and_overlaps if self.activation == "sigmoid" else _of_softmax)(batch, x)
        values = evaluate(self.classification, {"x": x, "y": y, "w": w})
        if self.alpha is not None and values.shape == y.shape:
            values = values * torch.where(y == 1, self.alpha, 1 - self.alpha)
        return _sum(values * batch.weights[:, None], x)

    def _regress(self, batch: DetectionBatch) -> Tensor:
        i, u, e = (area[:, None] for area in areas(batch.pred_boxes, batch.target_boxes))
        values = evaluate(self.regression, {"i": i, "u": u.clamp(min=1), "e": e.clamp(min=1)})
        if batch.quality is not None:
            values = values * batch.quality.detach()[:, None]
        return _sum(values, batch.pred_boxes)


def _labels_and_overlaps(batch: DetectionBatch, x: Tensor) -> tuple[Tensor, Tensor]:
    """y and w [A, C] of sigmoid scores."""
    where = (batch.pos, batch.labels[batch.pos])
    return (batch.targets() == 1).to(x), torch.zeros_like(x).index_put(where, _overlap(batch, x))


def _of_softmax(batch: DetectionBatch, x: Tensor) -> tuple[Tensor, Tensor]:
    """y and w [A, C] of softmax scores."""
    y = torch.zeros_like(x).scatter(1, batch.softmax_labels()[:, None], 1)
    w = torch.ones_like(x[:, 0]).index_put((batch.pos,), _overlap(batch, x))
    return y, w[:, None].expand(x.shape)


def _overlap(batch: DetectionBatch, x: Tensor) -> Tensor:
    return iou_score(batch.pred_boxes, batch.target_boxes).detach().to(x)


def _sum(values: Tensor, prediction: Tensor) -> Tensor:
    """The sum, added up in float64. A formula need not read its prediction; training in parallel
    needs a gradient all the same, if only of zeros."""
    return values.sum(dtype=torch.float64) + 0 * prediction.sum(dtype=torch.float64)
