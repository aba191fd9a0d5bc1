"""Balance of gradients against sums in sight and Theorem 2; rank correlation against scipy."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from loss import Criterion, DetectionBatch, build_criterion
from loss.diagnostics import (
    GradientBalance,
    gradient_balance,
    gradient_magnitudes,
    rank_correlation,
    score_iou_correlation,
)
from tests.oracles import eighths

EVERY_CASE = settings(max_examples=200, derandomize=True, deadline=None)
EVERY_BATCH = settings(max_examples=60, derandomize=True, deadline=None)
RANKING = ("alrp", "ndcg", "ap")


def random_batch(seed: int, anchors: int = 40, classes: int = 3, positives: int = 8):
    """Float64, so that equality can be asked for; every fifth of the other anchors is ignored."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels, weights = torch.full((anchors,), classes), torch.ones(anchors)
    labels[:positives] = torch.arange(positives) % classes
    weights[positives::5] = 0
    low = 50 * torch.rand(positives, 2, generator=generator, dtype=torch.float64)
    target = torch.cat([low, low + 20], 1)
    return DetectionBatch(
        logits=2 * normal(anchors, classes),
        labels=labels,
        weights=weights,
        pos=torch.arange(positives),
        pred_boxes=target + normal(positives, 4),
        target_boxes=target,
    )


class Linear(Criterion):
    """Its gradient at the logits is what it is told, twice that in training; counts its calls."""

    calls: Tensor

    def __init__(self, gradient: Tensor) -> None:
        super().__init__()
        self.gradient = gradient
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        self.calls += 1
        self.history = torch.ones(2)
        factor = self.scale * (2 if self.training else 1)
        logits = factor * (self.gradient * batch.logits).sum()
        return {"loss_cls": logits, "loss_bbox": batch.pred_boxes.sum()}


# --- balance ------------------------------------------------------------------------------------


def test_magnitudes_are_summed_by_kind_and_the_ignored_left_out():
    gradient = torch.tensor([[-0.5, 0.25], [1.0, -8.0], [0.125, 2.0]])
    targets = torch.tensor([[1, 0], [0, -1], [0, 1]], dtype=torch.int8)
    found = gradient_magnitudes(gradient, targets)
    assert found == GradientBalance(positives=0.5 + 2.0, negatives=0.25 + 1.0 + 0.125)
    assert found.ratio == 1.375 / 2.5


def test_sums_are_in_float64():
    gradient = torch.full((4098,), 2.0**-11, dtype=torch.float16)
    gradient[0] = 1.0
    found = gradient_magnitudes(gradient, torch.zeros(4098))
    # 3 + 2^-11, which half precision cannot hold.
    assert found == GradientBalance(positives=0.0, negatives=1 + 4097 / 2048)


@pytest.mark.parametrize(
    ("positives", "negatives", "ratio"),
    [(2.0, 3.0, 1.5), (2.0, 0.0, 0.0), (0.0, 3.0, math.inf), (0.0, 0.0, math.nan)],
)
def test_the_ratio_is_that_of_negatives_to_positives(positives, negatives, ratio):
    assert GradientBalance(positives, negatives).ratio == pytest.approx(ratio, nan_ok=True)


def test_a_gradient_needs_the_targets_of_its_elements():
    with pytest.raises(ValueError, match=r"one shape; got \(2, 3\) and \(6,\)"):
        gradient_magnitudes(torch.zeros(2, 3), torch.zeros(6))


@pytest.mark.parametrize(("training", "factor"), [(True, 2), (False, 1)])
def test_the_balance_of_a_criterion_is_that_of_its_gradient(training, factor):
    batch = random_batch(0)
    gradient = torch.arange(-60.0, 60).view(40, 3).double()
    targets = batch.targets().flatten().tolist()
    pairs = list(zip(gradient.flatten().tolist(), targets, strict=True))
    expected = [factor * sum(abs(g) for g, t in pairs if t == kind) for kind in (1, 0)]
    assert sum(expected) < factor * gradient.abs().sum()  # some are ignored
    criterion = Linear(gradient).train(training)
    assert gradient_balance(criterion, batch) == GradientBalance(*expected)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(training):
    batch = random_batch(1)
    batch = replace(batch, logits=batch.logits.requires_grad_())
    criterion = Linear(torch.ones(40, 3)).train(training)
    gradient_balance(criterion, batch)
    assert criterion.calls == 0
    assert not hasattr(criterion, "history")
    assert criterion.scale.grad is None and batch.logits.grad is None
    assert criterion.training == training


def test_alrp_counts_no_batch_that_was_only_looked_at():
    criterion = build_criterion({"type": "alrp"}).train()
    before = copy.deepcopy(criterion.state_dict())
    batch = random_batch(2)
    gradient_balance(criterion, batch)
    assert before and all(torch.equal(before[k], v) for k, v in criterion.state_dict().items())
    criterion(batch)  # it does count those that are trained on
    assert any(not torch.equal(before[k], v) for k, v in criterion.state_dict().items())


def test_gradients_may_be_switched_off():
    criterion, batch = build_criterion({"type": "alrp"}), random_batch(3)
    expected = gradient_balance(criterion, batch)
    with torch.no_grad():
        assert gradient_balance(criterion, batch) == expected
    assert expected.positives > 0


@pytest.mark.parametrize("name", RANKING)
@EVERY_BATCH
@given(
    seed=st.integers(0, 2**16),
    positives=st.integers(1, 12),
    shift=st.sampled_from([-6.0, -1.0, 0.0, 3.0]),
)
def test_ranking_losses_are_balanced(name, seed, positives, shift):
    """Theorem 2, for positives far below the negatives up to well above them."""
    batch = random_batch(seed, positives=positives)
    batch.logits[batch.pos, batch.labels[batch.pos]] += shift
    found = gradient_balance(build_criterion({"type": name}), batch)
    assert found.positives == pytest.approx(found.negatives, rel=1e-12, abs=1e-15)
    if shift < 0:
        assert found.positives > 0.01


@pytest.mark.parametrize("shift", [-9.0, 9.0])
def test_focal_loss_is_not(shift):
    """Low scores everywhere leave the positives to be pulled at, high ones the negatives."""
    batch = random_batch(4)
    batch = replace(batch, logits=batch.logits + shift)
    ratio = gradient_balance(build_criterion({"type": "focal_giou"}), batch).ratio
    assert (ratio < 0.1) if shift < 0 else (ratio > 10)
    ranked = gradient_balance(build_criterion({"type": "alrp"}), batch).ratio
    assert ranked == pytest.approx(1, rel=1e-12)  # a common shift changes no rank


def test_without_positives_there_is_nothing_to_balance():
    found = gradient_balance(build_criterion({"type": "alrp"}), random_batch(5, positives=0))
    assert found == GradientBalance(0.0, 0.0)
    assert math.isnan(found.ratio)


# --- correlation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "ious", "expected"),
    [
        ([-3.0, 0.0, 9.0, 9.5], [0.1, 0.5, 0.6, 0.9], 1.0),
        ([-3.0, 0.0, 9.0, 9.5], [0.9, 0.6, 0.5, 0.1], -1.0),
        # Ranks 1 2 3 against 1 3 2: deviations (-1, 0, 1) and (-1, 1, 0); (1 + 0 + 0) / 2.
        ([1.0, 2.0, 3.0], [0.2, 0.8, 0.4], 0.5),
        # Ranks 1 2 3 against 1.5 1.5 3: deviations (-1, 0, 1) and (-.5, -.5, 1);
        # (.5 + 0 + 1) / sqrt(2 * 1.5).
        ([1.0, 2.0, 3.0], [0.4, 0.4, 0.8], 1.5 / 3**0.5),
        ([-math.inf, 2.0, math.inf], [0.1, 0.2, 0.3], 1.0),
    ],
)
def test_correlation_by_hand(logits, ious, expected):
    assert rank_correlation(torch.tensor(logits), torch.tensor(ious)) == pytest.approx(expected)


@EVERY_CASE
@given(
    pair=st.integers(2, 30).flatmap(
        lambda size: st.tuples(eighths(-1, 1, size), eighths(0, 1, size))
    )
)
def test_correlation_is_scipys(pair):
    logits, ious = map(np.array, pair)
    found = rank_correlation(torch.tensor(logits, dtype=torch.float32), torch.tensor(ious))
    if np.ptp(logits) == 0 or np.ptp(ious) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(logits, ious).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "ious"),
    [
        ([], []),
        ([1.0], [0.5]),
        ([1.0, 1.0, 1.0], [0.1, 0.2, 0.3]),
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]),
        ([1.0, math.nan, 3.0], [0.1, 0.2, 0.3]),
        ([1.0, 2.0, 3.0], [0.1, math.nan, 0.3]),
    ],
)
def test_where_no_correlation_is_defined_it_is_nan(logits, ious):
    assert math.isnan(rank_correlation(torch.tensor(logits), torch.tensor(ious)))


def test_logits_in_half_precision():
    logits = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float16)
    assert rank_correlation(logits, torch.tensor([0.1, 0.9, 0.5])) == 1.0


@pytest.mark.parametrize(("p", "q"), [((3,), (2,)), ((2, 2), (2, 2))])
def test_correlation_needs_one_value_of_each_kind(p, q):
    with pytest.raises(ValueError, match=r"one shape \[P\]"):
        rank_correlation(torch.zeros(p), torch.zeros(q))


def test_the_batch_form_takes_the_positives_own_class_and_their_iou():
    # IoUs 1, 20 x 10 / 400 = 1/2, 20 x 15 / 400 = 3/4 of boxes of 20 x 20 pixels.
    target = torch.tensor([0.0, 0.0, 20.0, 20.0]).repeat(3, 1)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.0, 15.0]])
    logits = torch.tensor([[9.0, 9.0], [9.0, 2.0], [3.0, 9.0], [1.0, 9.0]])
    batch = DetectionBatch(
        logits=logits.requires_grad_(),
        labels=torch.tensor([2, 1, 0, 0]),
        weights=torch.ones(4),
        pos=torch.tensor([1, 2, 3]),
        pred_boxes=boxes,
        target_boxes=target,
    )
    # Logits 2 3 1 rank 2 3 1, IoUs rank 3 1 2: deviations (0, 1, -1), (1, -1, 0): -1 / 2.
    assert score_iou_correlation(batch) == -0.5
