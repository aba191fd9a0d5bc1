"""NDCG Loss: by hand and against the dense oracle; test_error_driven.py has its derivation."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from loss import DetectionBatch, NDCGLoss, ndcg_loss
from tests import oracles
from tests import ranking_oracles as ro


def value_and_grad(logits: Tensor, targets: Tensor, delta: float = 1.0) -> tuple[Tensor, ...]:
    return oracles.value_and_grads(lambda s: ndcg_loss(s, targets, delta), logits)


def test_two_positives_by_hand():
    """From the top: +, -, -, +, with steps: ranks 1 and 4, where 1 and 2 are the best."""
    logits = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    value, gradient = value_and_grad(logits, torch.tensor([1, 0, 0, 1]), delta=0.0)
    best = 1 / math.log2(2) + 1 / math.log2(3)
    assert value.item() == pytest.approx(1 - (1 / math.log2(2) + 1 / math.log2(5)) / best)
    lost = (1 / math.log2(3) - 1 / math.log2(5)) / best
    assert gradient.tolist() == pytest.approx([0, lost / 2, lost / 2, -lost])


def test_a_ramp_by_hand():
    """One positive: the negatives count 1/2, 3/4 and 0, its rank is 2 1/4."""
    logits = torch.tensor([0.0, 0.0, 0.5, -1.0])
    value, gradient = value_and_grad(logits, torch.tensor([1, 0, 0, 0]))
    lost = 1 - 1 / math.log2(1 + 2.25)
    assert value.item() == pytest.approx(lost)
    expected = [-lost, lost * 0.5 / 1.25, lost * 0.75 / 1.25, 0]
    assert gradient.tolist() == pytest.approx(expected)


def test_tied_positives_share_their_ranks():
    """Both have 1 1/2, without a negative: a little less than the best, and no gradient."""
    value, gradient = value_and_grad(torch.zeros(2), torch.ones(2))
    best = 1 + 1 / math.log2(3)
    assert value.item() == pytest.approx(1 - 2 / math.log2(2.5) / best)
    assert value.item() > 0.07
    assert not gradient.any()


def test_less_than_a_hundred_thousandth_of_a_false_positive_moves_nothing():
    """x is 5e-6 at d = -1 + 1e-5, and 2e-5 at -1 + 4e-5."""
    targets = torch.tensor([1, 0])
    for d, moved in ((1e-5, False), (4e-5, True)):
        logits = torch.tensor([0.0, d - 1], dtype=torch.float64)
        value, gradient = value_and_grad(logits, targets)
        assert value > 0
        assert gradient.any() == moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=600, deadline=None, derandomize=True)
@given(scene=ro.scenes(), delta=ro.DELTAS)
def test_equals_the_oracle(dtype: torch.dtype, scene: tuple[Tensor, Tensor], delta: float):
    logits, targets = scene
    value, gradient = value_and_grad(logits.to(dtype), targets, delta)
    expected, expected_gradient = ro.ndcg_loss(logits, targets, delta)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-9
    oracles.assert_close(value, expected, tolerance)
    oracles.assert_close(gradient, expected_gradient, tolerance)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_oracle_on_larger_batches(seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3000, generator=generator)
    targets = torch.randint(-1, 1, (3000,), generator=generator)
    targets[: 1 + 40 * seed] = 1
    value, gradient = value_and_grad(logits, targets, delta=0.3 + seed / 2)
    expected, expected_gradient = ro.ndcg_loss(logits, targets, 0.3 + seed / 2)
    oracles.assert_close(value, expected, 2e-6)
    oracles.assert_close(gradient, expected_gradient, 2e-6)


def test_the_criterion_is_the_function_and_a_box_loss():
    batch = DetectionBatch(
        logits=torch.tensor([[0.5, 0.0], [0.25, -1.0], [9.0, 9.0]]),
        labels=torch.tensor([1, 2, 2]),
        weights=torch.tensor([1.0, 1.0, 0.0]),
        pos=torch.tensor([0]),
        pred_boxes=torch.tensor([[0.0, 0.0, 2.0, 2.0]]),
        target_boxes=torch.tensor([[1.0, 1.0, 3.0, 3.0]]),
        anchor_sizes=torch.tensor([[2.0, 4.0]]),
    )
    losses = NDCGLoss(delta=0.5, box_loss="l1", box_weight=2.0)(batch)
    assert set(losses) == {"loss_cls", "loss_bbox"}
    assert losses["loss_cls"] == ndcg_loss(batch.logits.flatten(), batch.targets().flatten(), 0.5)
    assert losses["loss_bbox"].item() == pytest.approx(2 * 4 * (1 / 2 + 1 / 4) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": -1.0}, "delta is -1.0"),
        ({"box_loss": "iou"}, "box_loss is 'iou'"),
        ({"box_weight": -1.0}, "box_weight is -1.0"),
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        NDCGLoss(**arguments)
