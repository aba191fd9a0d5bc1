"""Localisation scores, against areas counted cell by cell."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loss.localization import LOCALIZATION, giou_score, iou_and_giou, iou_score, l1_score
from tests import oracles

corners = st.tuples(*[st.integers(0, 5)] * 4)
boxes = corners.map(lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(box=boxes, target=boxes)
def test_equals_counting_cells(box: list[int], target: list[int]):
    """Boxes without area too: a box that covers no cell is the empty set."""
    iou, giou = iou_and_giou(torch.tensor(box).double(), torch.tensor(target).double())
    assert (iou.item(), giou.item()) == pytest.approx(oracles.iou_and_giou(box, target), abs=1e-12)


def test_scores_by_hand():
    # Two 2 x 2 boxes that share one of seven cells, in a hull of 3 x 3.
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 1.0, 3.0, 3.0]], dtype=torch.float64)
    assert iou_score(box, target).item() == pytest.approx(1 / 7)
    assert giou_score(box, target).item() == pytest.approx((1 + 1 / 7 - 2 / 9) / 2)
    # L1 in units of a 16 x 8 anchor: 1/16 + 1/8 for each of the two corners.
    size = torch.tensor([[16.0, 8.0]], dtype=torch.float64)
    assert l1_score(box, target, size).item() == pytest.approx(1 - 2 * (1 / 16 + 1 / 8))


@pytest.mark.parametrize("name", LOCALIZATION)
def test_a_perfect_box_scores_one_and_a_far_one_least(name: str):
    target = torch.tensor([[10.0, 10.0, 30.0, 50.0]])
    size = torch.tensor([[16.0, 16.0]])
    score = LOCALIZATION[name]
    assert score(target, target, size).item() == 1
    assert score(target + 1000, target, size).item() == pytest.approx(0, abs=1e-3)


def test_l1_is_clipped_and_passes_gradient_inside():
    size = torch.tensor([[4.0, 8.0]])
    target = torch.tensor([[0.0, 0.0, 4.0, 8.0]])
    box = torch.tensor([[1.0, -1.0, 4.0, 8.0]], requires_grad=True)
    l1_score(box, target, size).sum().backward()
    # d/dbox of -|box - target| / size; nothing where they agree.
    assert box.grad.tolist() == [[-1 / 4, 1 / 8, 0, 0]]
    far = (box.detach() + 10).requires_grad_()
    score = l1_score(far, target, size)
    score.sum().backward()
    assert score.item() == 0
    assert not far.grad.any()


def test_l1_needs_the_sizes_of_anchors():
    box = torch.zeros(1, 4)
    with pytest.raises(ValueError, match="anchor_sizes"):
        l1_score(box, box)


@pytest.mark.parametrize("name", ["giou", "iou"])
def test_gradients_are_those_of_finite_differences(name: str):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    high = low + 0.5 + torch.rand(8, 2, generator=generator, dtype=torch.float64)
    targets = torch.cat([low, high], 1)
    moved = targets + 0.3 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    moved.requires_grad_()
    assert torch.autograd.gradcheck(lambda b: LOCALIZATION[name](b, targets, None), moved)


@pytest.mark.parametrize("name", LOCALIZATION)
def test_boxes_without_area_have_finite_scores_and_gradients(name: str):
    target = torch.tensor([10.0, 10.0, 20.0, 20.0])
    point, line = [15.0, 15.0, 15.0, 15.0], [10.0, 10.0, 10.0, 20.0]
    outside, inverted = [40.0, 40.0, 40.0, 40.0], [18.0, 18.0, 12.0, 12.0]
    predictions = torch.tensor([point, line, outside, inverted], requires_grad=True)
    sizes = torch.tensor([[0.0, 8.0]]).expand(4, 2)
    targets = torch.stack([target, target, target, torch.zeros(4)])
    score = LOCALIZATION[name](predictions, targets, sizes)
    score.sum().backward()
    assert ((score >= 0) & (score <= 1)).all()
    assert predictions.grad.isfinite().all()


@pytest.mark.parametrize("name", LOCALIZATION)
def test_no_boxes_have_no_scores(name: str):
    assert LOCALIZATION[name](torch.zeros(0, 4), torch.zeros(0, 4), torch.ones(0, 2)).shape == (0,)


def test_half_precision_boxes_do_not_overflow():
    # 300 x 300 is 90,000, and float16 ends at 65,504.
    box = torch.tensor([[0.0, 0.0, 300.0, 300.0]], dtype=torch.float16)
    iou, giou = iou_and_giou(box, box)
    assert iou.item() == pytest.approx(1)
    assert giou.item() == pytest.approx(1)
