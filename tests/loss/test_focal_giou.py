"""Focal + GIoU, by hand and against sums over single elements."""

import math
from dataclasses import replace

import pytest
import torch

from loss import DetectionBatch, FocalGIoU
from tests import oracles

# Two anchors, two classes: the first is of class 1, the second background.
BATCH = DetectionBatch(
    logits=torch.zeros(2, 2, dtype=torch.float64),
    labels=torch.tensor([1, 2]),
    weights=torch.ones(2),
    pos=torch.tensor([0]),
    pred_boxes=torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=torch.float64),
    target_boxes=torch.tensor([[1.0, 1.0, 3.0, 3.0]], dtype=torch.float64),
)


def test_values_by_hand():
    losses = FocalGIoU()(BATCH)
    # p = 1/2 everywhere: (1 - p)^2 log 2, balanced by 1/4 once and by 3/4 thrice.
    assert losses["loss_cls"].item() == pytest.approx((1 / 4 + 3 * 3 / 4) / 4 * math.log(2))
    # One of seven cells shared, two of the hull's nine in neither; weight 2.
    assert losses["loss_bbox"].item() == pytest.approx(2 * (1 - (1 / 7 - 2 / 9)))


def test_arguments_by_hand():
    losses = FocalGIoU(alpha=0.5, gamma=1.0, giou_weight=1.0)(BATCH)
    assert losses["loss_cls"].item() == pytest.approx(4 * 0.5 * 0.5 * math.log(2))
    assert losses["loss_bbox"].item() == pytest.approx(1 - (1 / 7 - 2 / 9))


def test_a_framework_may_divide_by_its_own_count():
    own = FocalGIoU()(replace(BATCH, avg_factor=4.0))
    for name, loss in FocalGIoU()(BATCH).items():  # P = 1
        assert own[name].item() == pytest.approx(loss.item() / 4)


def random_batch(positives: int) -> DetectionBatch:
    generator = torch.Generator().manual_seed(positives)
    labels = torch.full((9,), 4)
    labels[:positives] = torch.arange(positives) % 4
    boxes = torch.randint(0, 5, (2, positives, 4), generator=generator)
    boxes[..., 2:] += boxes[..., :2] + 1
    return DetectionBatch(
        logits=3 * torch.randn(9, 4, generator=generator, dtype=torch.float64),
        labels=labels,
        weights=torch.tensor([1.0] * 7 + [0.0] * 2),
        pos=torch.arange(positives),
        pred_boxes=boxes[0].double(),
        target_boxes=boxes[1].double(),
    )


@pytest.mark.parametrize("positives", [0, 1, 5])
def test_equals_sums_over_single_elements(positives: int):
    """The last two anchors are ignored; both sums are divided by P, or by 1 without positives."""
    batch = random_batch(positives)
    losses = FocalGIoU()(batch)
    divisor = max(positives, 1)
    focal = oracles.focal_loss(batch.logits[:7], batch.targets()[:7], alpha=0.25, gamma=2.0)
    assert losses["loss_cls"].item() == pytest.approx(focal / divisor)
    pairs = zip(batch.pred_boxes.long().tolist(), batch.target_boxes.long().tolist(), strict=True)
    giou = sum(1 - oracles.iou_and_giou(*pair)[1] for pair in pairs)
    assert losses["loss_bbox"].item() == pytest.approx(2 * giou / divisor)


def test_weights_scale_the_focal_loss_of_their_anchor():
    batch = random_batch(5)
    weights = torch.linspace(0.5, 2, 9, dtype=torch.float64)

    def focal(weights: torch.Tensor) -> float:
        return FocalGIoU()(replace(batch, weights=weights))["loss_cls"].item()

    # The loss is linear in the weights, so one more of an anchor's weight is that anchor alone.
    ones = torch.ones(9, dtype=torch.float64)
    alone = [focal(ones + torch.eye(9)[a]) - focal(ones) for a in range(9)]
    expected = sum(w * loss for w, loss in zip(weights.tolist(), alone, strict=True))
    assert focal(weights) == pytest.approx(expected)


def test_gradients_are_those_of_finite_differences():
    batch = random_batch(5)

    def total(logits: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return sum(FocalGIoU()(replace(batch, logits=logits, pred_boxes=boxes)).values())

    # Off the grid, where corners coincide and the hull has kinks.
    boxes = batch.pred_boxes + torch.linspace(0.1, 0.3, 20).view(5, 4)
    assert torch.autograd.gradcheck(
        total, (batch.logits.clone().requires_grad_(), boxes.requires_grad_())
    )


def test_saturated_logits_have_finite_gradients():
    logits = torch.tensor([[-1e4, 1e4], [1e4, -1e4]], requires_grad=True)
    loss = FocalGIoU()(replace(BATCH, logits=logits))["loss_cls"]
    loss.backward()
    # Only the background's 1e4 is wrong: -(3/4) log(1 - p) = 3/4 * 1e4, and its slope.
    assert loss.item() == pytest.approx(0.75e4)
    assert logits.grad.tolist() == [[0, 0], [pytest.approx(0.75), 0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_ignored_logit_may_be_anything(value):
    batch = random_batch(5)
    ignored = next(a for a in range(9) if a not in batch.pos.tolist())
    weights = torch.ones(9, dtype=torch.float64)
    weights[ignored] = 0
    logits = batch.logits.clone()
    logits[ignored] = value
    clean = FocalGIoU()(replace(batch, weights=weights))["loss_cls"]
    assert FocalGIoU()(replace(batch, weights=weights, logits=logits))["loss_cls"] == clean
