"""Head adapters: from a head's outputs to one `DetectionBatch` of the whole mini-batch.

One adapter a family of heads, first in the order of inheritance. Shape letters: B images,
A anchors of an image over all levels, C classes, P positives of the mini-batch.
"""

from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from loss import DetectionBatch, build_criterion


@MODELS.register_module()
class StockLoss(nn.Module):
    """Stands where a head keeps a loss of its own, and must never be called.

    A head that still reaches it has a path that the adapter does not cover, and would train on
    something else than the criterion.
    """

    def __init__(self, use_sigmoid: bool = True) -> None:
        super().__init__()
        self.use_sigmoid = use_sigmoid

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError(
            "a stock loss of the head was called beside the criterion: this head has a path that "
            "its adapter does not cover. Use a detector of a supported head family."
        )


class AnchorHeadAdapter:
    """Trains an anchor head with a criterion.

    Args:
        criterion: settings for `loss.build_criterion`.

    Raises:
        ValueError: a head with softmax scores, or one that regresses encoded boxes; a criterion
            for softmax scores.
    """

    def __init__(self, *args: Any, criterion: dict[str, Any], **kwargs: Any) -> None:
        if not kwargs.get("loss_cls", {}).get("use_sigmoid", True):
            raise ValueError(
                "criteria score every class alone: set the head's use_sigmoid to True."
            )
        # Decoded boxes are what an overlap is measured on, so targets must not be encoded.
        if not kwargs.get("reg_decoded_bbox", True):
            raise ValueError("criteria measure decoded boxes: set reg_decoded_bbox to True.")
        kwargs["reg_decoded_bbox"] = True
        # Without use_sigmoid a head makes itself a background class, and detects by softmax.
        stock = {"type": "StockLoss", "use_sigmoid": True}
        super().__init__(*args, **{**kwargs, "loss_cls": stock, "loss_bbox": stock})
        self.criterion = build_criterion(criterion)
        if self.criterion.activation != "sigmoid":
            raise ValueError(
                f"criterion {criterion['type']} trains {self.criterion.activation} scores, but "
                "this head detects by the sigmoid of each class: take a criterion for that."
            )

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: Any,
        batch_img_metas: Any,
        batch_gt_instances_ignore: Any = None,
    ) -> dict[str, Tensor]:
        """The criterion's losses; arguments as in the stock head."""
        batch = self.detection_batch(
            cls_scores, bbox_preds, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )
        return self.criterion(batch)

    def detection_batch(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: Any,
        batch_img_metas: Any,
        batch_gt_instances_ignore: Any = None,
    ) -> DetectionBatch:
        """One batch over every image and level, in float32 also under mixed precision.

        Args:
            cls_scores: by level, [B, anchors * C, H, W].
            bbox_preds: by level, [B, anchors * 4, H, W].
        """
        sizes = [level.shape[-2:] for level in cls_scores]
        anchors, valid = self.get_anchors(sizes, batch_img_metas, device=cls_scores[0].device)
        labels, weights, targets, _, avg_factor = self.get_targets(
            anchors,
            valid,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore=batch_gt_instances_ignore,
        )
        labels = torch.cat(labels, 1)
        images = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
        labels = labels.flatten()
        positive = ((labels >= 0) & (labels < self.num_classes)).nonzero().squeeze(1)
        own_anchors = torch.cat([get_box_tensor(level) for image in anchors for level in image])
        own_anchors = own_anchors[positive]
        deltas = _by_anchor(bbox_preds, self.bbox_coder.encode_size)[positive]
        return DetectionBatch(
            logits=_by_anchor(cls_scores, self.cls_out_channels).float(),
            labels=labels,
            weights=torch.cat(weights, 1).flatten(),
            pos=positive,
            pred_boxes=get_box_tensor(self.bbox_coder.decode(own_anchors, deltas.float())),
            target_boxes=torch.cat(targets, 1).flatten(0, 1)[positive],
            anchor_sizes=own_anchors[:, 2:] - own_anchors[:, :2],
            avg_factor=float(avg_factor),
            images=images.flatten(),
        )


def _by_anchor(levels: list[Tensor], channels: int) -> Tensor:
    """Levels of [B, anchors * channels, H, W] -> [B * A, channels], image by image."""
    flat = [level.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, channels)) for level in levels]
    return torch.cat(flat, 1).flatten(0, 1)


@MODELS.register_module()
class CriterionRetinaHead(AnchorHeadAdapter, RetinaHead):
    """RetinaNet's head under a criterion."""


ADAPTERS = {"RetinaHead": "CriterionRetinaHead"}
"""The stock heads that can be trained with a criterion, and the adapter of each."""
