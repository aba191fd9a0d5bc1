"""The box loss beside AP and NDCG Loss."""

from dataclasses import replace

import pytest
import torch

from loss import DetectionBatch
from loss.boxes import BOX_LOSSES, BoxLoss

EMPTY = DetectionBatch(
    logits=torch.zeros(2, 1),
    labels=torch.tensor([1, 1]),
    weights=torch.ones(2),
    pos=torch.tensor([], dtype=torch.long),
    pred_boxes=torch.zeros(0, 4),
    target_boxes=torch.zeros(0, 4),
    anchor_sizes=torch.zeros(0, 2),
)
ONE = replace(
    EMPTY,
    labels=torch.tensor([0, 1]),
    pos=torch.tensor([0]),
    pred_boxes=torch.tensor([[0.0, 0.0, 2.0, 2.0]]),
    target_boxes=torch.tensor([[0.0, 0.0, 1.0, 4.0]]),
    anchor_sizes=torch.tensor([[4.0, 8.0]]),
)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_without_positives_it_is_zero_and_has_a_gradient(name: str):
    boxes = EMPTY.pred_boxes.clone().requires_grad_()
    loss = BoxLoss(name, 1.0)(replace(EMPTY, pred_boxes=boxes))
    loss.backward()
    assert loss.item() == 0
    assert boxes.grad.shape == (0, 4)


def test_values_by_hand():
    # Two of six cells shared, two of the hull's eight in neither.
    assert BoxLoss("giou", 1.0)(ONE).item() == pytest.approx(1 - (2 / 6 - 2 / 8))
    assert BoxLoss("l1", 2.0)(ONE).item() == pytest.approx(2 * (1 / 4 + 2 / 8))


def test_gradients_of_l1_by_hand():
    boxes = ONE.pred_boxes.clone().requires_grad_()
    BoxLoss("l1", 2.0)(replace(ONE, pred_boxes=boxes)).backward()
    assert boxes.grad.tolist() == [[0, 0, 2 / 4, -2 / 8]]


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_halves_are_computed_in_float32(name: str):
    """Areas of boxes of this size overflow float16, where 512 / 3 is 170.625."""
    boxes, target = ([[0.0, 0.0, side, side]] for side in (1024.0, 512.0))
    big = replace(
        ONE,
        pred_boxes=torch.tensor(boxes).half(),
        target_boxes=torch.tensor(target).half(),
        anchor_sizes=torch.tensor([[3.0, 3.0]]).half(),
    )
    # A quarter is shared, the hull is the box; two coordinates are off by 512 pixels.
    expected = {"giou": 1 - 1 / 4, "l1": 2 * 512 / 3}[name]
    assert BoxLoss(name, 1.0)(big).item() == pytest.approx(expected, rel=1e-6)


def test_l1_wants_anchor_sizes():
    with pytest.raises(ValueError, match="no anchor_sizes"):
        BoxLoss("l1", 1.0)(replace(ONE, anchor_sizes=None))
    BoxLoss("giou", 1.0)(replace(ONE, anchor_sizes=None))
