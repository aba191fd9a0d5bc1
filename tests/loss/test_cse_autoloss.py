"""CSE-AutoLoss-A and -B, by hand and against the formulas one element at a time."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss import (
    CSEAutoLossA,
    CSEAutoLossB,
    DetectionBatch,
    cse_autoloss_a_classification,
    cse_autoloss_a_regression,
    cse_autoloss_b_classification,
    cse_autoloss_b_regression,
)

REGRESSIONS = [cse_autoloss_a_regression, cse_autoloss_b_regression]
LOG2 = math.log(2)
HALVES = [torch.float16, torch.bfloat16]


def doubles(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def boxes(*rows, dtype=torch.float64) -> Tensor:
    return torch.tensor(rows, dtype=dtype).view(-1, 4)


# The formulas once more, with Python's floats.


def softmax_loss(row: list[float], label: int, w: float) -> float:
    total = math.fsum(math.exp(x - max(row)) for x in row)
    return -(1 + math.sin(w)) * (row[label] - max(row) - math.log(total))


def sigmoid_loss(x: float, y: int, w: float, scaled: bool) -> float:
    def erf(x: float) -> float:
        return (1 + math.erf(math.sqrt(math.pi) / 2 * x / 2)) / 2 if scaled else math.erf(x)

    def gd(x: float) -> float:
        if not scaled:
            return 2 * math.atan(math.tanh(x / 2))
        return (1 + 2 / math.pi * 2 * math.atan(math.tanh(math.pi / 4 * x / 2))) / 2

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    return -(
        w * y * (1 + erf(sigmoid(1 - y))) * math.log(sigmoid(x))
        + (gd(x) - w * y) * (sigmoid(x) - w * y) * math.log(sigmoid(-x))
    )


def areas(box: list[float], target: list[float]) -> tuple[float, float, float]:
    """Intersection, union and enclosing box."""

    def side(low: float, high: float) -> float:
        return max(high - low, 0.0)

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return side(x1, x2) * side(y1, y2)

    highest = [max(a, b) for a, b in zip(box, target, strict=True)]
    lowest = [min(a, b) for a, b in zip(box, target, strict=True)]
    i = area(*highest[:2], *lowest[2:])
    return i, area(*box) + area(*target) - i, area(*lowest[:2], *highest[2:])


def regression_a(i: float, u: float, e: float) -> float:
    u, e = max(u, 1.0), max(e, 1.0)
    return (1 - i / u) + (1 - (i + 2) / e)


def regression_b(i: float, u: float, e: float) -> float:
    e = max(e, 1.0)
    return (3 * e * u + 12 * e + 3 * i + 3 * u + 18) / (
        -3 * e * u + i * u + u**2 - 15 * e + 5 * i + 5 * u
    )


REGRESSION_ORACLES = dict(zip(REGRESSIONS, [regression_a, regression_b], strict=True))


# Classification A.


def test_a_classification_by_hand():
    """Three equal logits: each class has probability 1/3."""
    loss = cse_autoloss_a_classification(
        torch.zeros(3, 3, dtype=torch.float64), torch.tensor([0, 1, 2]), doubles(0, 0.5, 1)
    )
    log3 = math.log(3)
    assert loss.tolist() == pytest.approx(
        [log3, (1 + 0.479425538604203) * log3, (1 + 0.841470984807897) * log3]
    )


ROWS = st.lists(st.floats(-60, 60), min_size=4, max_size=4)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(ROWS, st.integers(0, 3), st.floats(0, 1))
def test_a_classification_is_its_formula(row, label, w):
    logits = doubles(*row)[None]
    loss = cse_autoloss_a_classification(logits, torch.tensor([label]), doubles(w))
    expected = softmax_loss(row, label, w)
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-13)


def test_a_classification_at_infinite_logits():
    inf = math.inf
    logits = doubles([0, 0, -inf], [0, -inf, 0], [0, 1, inf], [0, 1, math.nan]).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0])
    loss = cse_autoloss_a_classification(logits, labels, torch.zeros(4))
    # A class of probability 0: as if it were not there, unless it is the label.
    assert loss[:2].tolist() == [pytest.approx(LOG2), inf]
    assert loss[2:].isnan().all()
    loss[0].backward()
    assert logits.grad[0].tolist() == [-0.5, 0.5, 0]


# Classification B.


@pytest.mark.parametrize("scaled", [True, False])
def test_b_classification_by_hand(scaled):
    """At a logit of 0 the sigmoid is 1/2, and both of its logarithms are -log 2."""
    logits, targets = torch.zeros(4, dtype=torch.float64), torch.tensor([0, 1, 1, 1])
    loss = cse_autoloss_b_classification(logits, targets, doubles(1, 0, 0.5, 1), scaled=scaled)
    if scaled:  # gd(0) = 1/2, erf(1/2) = (1 + 0.2459691) / 2
        rise, gd = 1 + (1 + math.erf(0.221556731363189)) / 2, 1 / 2
    else:  # gd(0) = 0, erf(1/2) = 0.5204999
        rise, gd = 1 + 0.520499877813047, 0
    expected = [
        gd * 1 / 2 * LOG2,  # the IoU of a negative is not read
        gd * 1 / 2 * LOG2,
        1 / 2 * rise * LOG2,  # the sigmoid is the IoU
        rise * LOG2 + (gd - 1) * (1 / 2 - 1) * LOG2,
    ]
    assert loss.tolist() == pytest.approx(expected)


def test_the_published_form_is_the_scaled_one():
    assert CSEAutoLossB().scaled
    given = doubles(0.3), torch.tensor([1]), doubles(0.4)
    assert torch.equal(
        cse_autoloss_b_classification(*given), cse_autoloss_b_classification(*given, scaled=True)
    )


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.floats(-60, 35), st.booleans(), st.floats(0, 1), st.booleans())
def test_b_classification_is_its_formula(x, positive, w, scaled):
    """Up to 35: from there on 1 - sigmoid(x), and so the oracle, loses all its digits."""
    loss = cse_autoloss_b_classification(
        doubles(x), torch.tensor([int(positive)]), doubles(w), scaled=scaled
    )
    expected = sigmoid_loss(x, int(positive), w, scaled)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-13)


LIMITS = [  # x, y, w, scaled and unscaled loss, their slopes
    (-50, 0, 0, (0, 0), (0, 0)),
    (50, 0, 0, (50, 50 * math.pi / 2), (1, math.pi / 2)),
    (
        -1e4,
        1,
        0.5,
        (0.5e4 * 1.62298446, 0.5e4 * 1.52049988),
        (-0.5 * 1.62298446, -0.5 * 1.52049988),
    ),
    (1e4, 1, 0.5, (0.25e4, 0.5e4 * (math.pi / 2 - 0.5)), (0.25, 0.5 * (math.pi / 2 - 0.5))),
    (1e4, 1, 1, (0, 0), (0, 0)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("x", "y", "w", "values", "slopes"), LIMITS)
def test_b_classification_where_the_sigmoid_is_saturated(x, y, w, values, slopes, scaled, dtype):
    logit = torch.tensor([x], dtype=dtype, requires_grad=True)
    loss = cse_autoloss_b_classification(
        logit, torch.tensor([y]), torch.tensor([w], dtype=dtype), scaled=scaled
    )
    loss.backward()
    which = 0 if scaled else 1
    assert loss.item() == pytest.approx(values[which], rel=1e-6, abs=1e-15)
    assert logit.grad.item() == pytest.approx(slopes[which], rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("scaled", [True, False])
def test_b_classification_at_infinite_logits(scaled):
    logits = doubles(-math.inf, math.inf, math.inf, -math.inf, math.nan).requires_grad_()
    targets = torch.tensor([0, 0, 1, 1, 0])
    loss = cse_autoloss_b_classification(
        logits, targets, torch.full_like(logits, 0.5), scaled=scaled
    )
    assert loss[:4].tolist() == [0, math.inf, math.inf, math.inf]
    assert loss[4].isnan()
    # The one that is finite has a gradient, and the others do not spoil it.
    (slope,) = torch.autograd.grad(loss[0], logits)
    assert slope[0] == 0


def grid_minimum(target: int, w: float, scaled: bool) -> tuple[float, float]:
    """Where, in steps of 1/1000, the loss is least, and how much it is there."""
    x = torch.arange(-8000, 8001, dtype=torch.float64) / 1000
    loss = cse_autoloss_b_classification(
        x, torch.full_like(x, target), torch.full_like(x, w), scaled=scaled
    )
    return x[loss.argmin()].item(), loss.min().item()


@pytest.mark.parametrize(("w", "score"), [(0.1, 0.39), (0.5, 0.77), (0.9, 0.99)])
def test_a_positive_is_drawn_to_a_score_near_its_overlap(w, score):
    x, _ = grid_minimum(1, w, scaled=True)
    assert 1 / (1 + math.exp(-x)) == pytest.approx(score, abs=0.005)


def test_negatives_are_driven_to_0_by_the_scaled_form_alone():
    x = torch.linspace(-60, 60, 2401, dtype=torch.float64)
    zeros = torch.zeros_like(x)
    assert (cse_autoloss_b_classification(x, zeros, zeros).diff() > 0).all()
    x, least = grid_minimum(0, 0, scaled=False)
    assert x == pytest.approx(-0.610, abs=0.001)
    assert least == pytest.approx(-0.0879, abs=0.0001)


# Regression.


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_regression_by_hand(loss):
    pred = boxes([0, 0, 4, 3], [0, 0, 2, 2], [0, 0, 10, 10], [0, 0, 2, 1])
    target = boxes([2, 1, 6, 5], [3, 0, 5, 2], [0, 0, 10, 10], [0, 0, 1, 1])
    # i = 2 x 2, u = 12 + 16 - 4, e = 6 x 5; i = 0, u = 4 + 4, e = 5 x 2; all 100; 1, 2, 2.
    expected = {
        cse_autoloss_a_regression: [
            (1 - 4 / 24) + (1 - 6 / 30),
            (1 - 0 / 8) + (1 - 2 / 10),
            -2 / 100,
            (1 - 1 / 2) + (1 - 3 / 2),
        ],
        cse_autoloss_b_regression: [
            (2160 + 360 + 12 + 72 + 18) / (-2160 + 96 + 576 - 450 + 20 + 120),
            (240 + 120 + 0 + 24 + 18) / (-240 + 0 + 64 - 150 + 0 + 40),
            (30000 + 1200 + 300 + 300 + 18) / (-30000 + 10000 + 10000 - 1500 + 500 + 500),
            (12 + 24 + 3 + 6 + 18) / (-12 + 2 + 4 - 30 + 5 + 10),
        ],
    }[loss]
    assert loss(pred, target).tolist() == pytest.approx(expected)


CORNERS = st.lists(
    st.one_of(st.integers(-4, 12).map(lambda n: n / 4), st.floats(-700, 700)),
    min_size=4,
    max_size=4,
)


@pytest.mark.parametrize("loss", REGRESSIONS)
@settings(derandomize=True, deadline=None, max_examples=300)
@given(box=CORNERS, target=CORNERS)
def test_regression_is_its_formula_and_finite_for_any_box(loss, box, target):
    """Also for boxes without area and those whose corners are in the wrong order."""
    pred = boxes(box).requires_grad_()
    value = loss(pred, boxes(target))
    value.sum().backward()
    assert value.item() == pytest.approx(REGRESSION_ORACLES[loss](*areas(box, target)), rel=1e-9)
    low, high = {cse_autoloss_a_regression: (-2, 2), cse_autoloss_b_regression: (-6.5, -0.8)}[loss]
    assert low <= value.item() <= high
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("side", [1, 3, 30, 300])
def test_regression_of_a_perfect_fit(side):
    """-2/e, and -3 (e^2 + 6e + 6) / (e (e + 5)), which is -6.5 at 1 and goes to -3."""
    box = boxes([5, 7, 5 + side, 7 + side])
    e = side**2
    assert cse_autoloss_a_regression(box, box).item() == pytest.approx(-2 / e)
    perfect = -3 * (e**2 + 6 * e + 6) / (e * (e + 5))
    assert cse_autoloss_b_regression(box, box).item() == pytest.approx(perfect)
    assert (perfect == -6.5) == (side == 1)


def test_regression_of_boxes_that_miss_each_other():
    """2 - 2/e, and about -1: i = 0, u = 200, e = 110 x 10."""
    pred, target = boxes([0, 0, 10, 10]), boxes([100, 0, 110, 10])
    assert cse_autoloss_a_regression(pred, target).item() == pytest.approx(2 - 2 / 1100)
    expected = -3 * (1100 * 200 + 4 * 1100 + 200 + 6) / ((200 + 5) * (3 * 1100 - 200))
    assert cse_autoloss_b_regression(pred, target).item() == pytest.approx(expected)
    assert expected == pytest.approx(-1, abs=0.1)


def test_what_draws_boxes_that_miss_each_other():
    """A: the far corner alone, to shrink the enclosing box. B: to grow, until they meet."""
    gradients = []
    for loss in REGRESSIONS:
        pred = boxes([50, 50, 60, 60]).requires_grad_()
        loss(pred, boxes([0, 0, 10, 10])).sum().backward()
        gradients.append(pred.grad.sign().tolist())
    assert gradients == [[[0, 0, 1, 1]], [[1, 1, -1, -1]]]
    # 2 - 2/e, e = 60 x 60: de/dx2 = 60.
    pred = boxes([50, 50, 60, 60]).requires_grad_()
    cse_autoloss_a_regression(pred, boxes([0, 0, 10, 10])).sum().backward()
    assert pred.grad[0, 2].item() == pytest.approx(2 / 3600**2 * 60)


@pytest.mark.parametrize(
    ("pred", "target", "a", "b"),
    [
        # Both are the same point: (1 - 0) + (1 - 2/1), and 30 / -15.
        ([3, 3, 3, 3], [3, 3, 3, 3], 0, -2),
        # A line in the middle of a box of 4 x 4: (1 - 0) + (1 - 2/16), and i = 0, u = e = 16.
        ([2, 0, 2, 4], [0, 0, 4, 4], 2 - 2 / 16, -(768 + 192 + 48 + 18) / (768 - 256 + 240 - 80)),
        # A quarter of a square pixel counts as a whole one in u and e.
        ([0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], 1 - 0.25 + 1 - 2.25, -3 * (2 + 0.25 / 5.25) / 2.5),
    ],
)
def test_regression_of_boxes_without_area_and_below_a_pixel(pred, target, a, b):
    assert cse_autoloss_a_regression(boxes(pred), boxes(target)).item() == pytest.approx(a)
    assert cse_autoloss_b_regression(boxes(pred), boxes(target)).item() == pytest.approx(b)


@pytest.mark.parametrize("loss", REGRESSIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_regression_of_boxes_with_nan_or_without_bounds(loss, value):
    assert loss(boxes([0, 0, value, 3]), boxes([0, 0, 3, 3])).isnan().all()


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_regression_prefers_the_better_fit(loss):
    """A box of 20 x 20 pixels, moved away from its target, grown and shrunk around it."""
    target = boxes([40, 40, 60, 60])
    moved = torch.cat([target + doubles(d, 0, d, 0) for d in range(0, 40, 2)])
    grown = torch.cat([target + doubles(-d, -d, d, d) for d in range(0, 40, 2)])
    shrunk = torch.cat([target + doubles(d, d, -d, -d) for d in range(0, 10)])
    for worse_and_worse in (moved, grown, shrunk):
        assert (loss(worse_and_worse, target.expand_as(worse_and_worse)).diff() > 0).all()


# Gradients and types.


@pytest.mark.parametrize("w", [0, 0.3, 1])
def test_classification_gradients_are_those_of_finite_differences(w):
    logits = doubles(-7, -2, -0.3, 0.1, 0.8, 3, 6, 40).requires_grad_()
    overlaps = torch.full_like(logits, w, requires_grad=False)
    for scaled in (True, False):
        for target in (0, 1):
            targets = torch.full((8,), target)
            assert torch.autograd.gradcheck(
                lambda x, targets=targets, scaled=scaled: cse_autoloss_b_classification(
                    x, targets, overlaps, scaled=scaled
                ),
                logits,
            )
    assert torch.autograd.gradcheck(
        lambda x: cse_autoloss_a_classification(x, torch.tensor([0, 3]), overlaps[:2]),
        logits.view(2, 4),
    )


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_regression_gradients_are_those_of_finite_differences(loss):
    pred = boxes([0, 0, 4, 3], [0, 0, 2, 2], [7.5, 8, 21, 30], [0.1, 0.1, 0.4, 0.3])
    target = boxes([2, 1, 6, 5], [3, 0.1, 5, 2.1], [8, 8.5, 20, 33], [0, 0, 0.5, 0.5])
    assert torch.autograd.gradcheck(lambda x: loss(x, target), pred.requires_grad_())


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_computed_in_float32(dtype):
    logits = torch.linspace(-9, 9, 12, dtype=dtype).view(3, 4)
    labels, overlaps = torch.tensor([0, 3, 1]), torch.tensor([0.5, 1.0, 0.25], dtype=dtype)
    # Areas of such boxes are beyond the range of float16.
    pred, target = boxes([0, 0, 500, 400], dtype=dtype), boxes([8, 4, 504, 380], dtype=dtype)
    for function, arguments in (
        (cse_autoloss_a_classification, (logits, labels, overlaps)),
        (cse_autoloss_b_classification, (logits[:, 0], labels == 0, overlaps)),
        (cse_autoloss_a_regression, (pred, target)),
        (cse_autoloss_b_regression, (pred, target)),
    ):
        leaf = arguments[0].clone().requires_grad_()
        result = function(leaf, *arguments[1:])
        wide = [x.float() if x.is_floating_point() else x for x in arguments]
        assert result.dtype == torch.float32
        assert torch.equal(result, function(*wide))
        result.sum().backward()
        assert leaf.grad.dtype == dtype
        assert leaf.grad.isfinite().all()


def test_overlaps_outside_their_range_are_clipped():
    logits, beyond, ends = doubles(0.3, -0.4), doubles(-2, 3), doubles(0, 1)
    ones = torch.ones(2)
    assert torch.equal(
        cse_autoloss_b_classification(logits, ones, beyond),
        cse_autoloss_b_classification(logits, ones, ends),
    )
    rows, labels = logits.expand(2, 2), torch.tensor([0, 1])
    assert torch.equal(
        cse_autoloss_a_classification(rows, labels, beyond),
        cse_autoloss_a_classification(rows, labels, ends),
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: cse_autoloss_a_classification(x(3, 4), x(3), x(4)), r"\(3, 4\), \(3,\), \(4,\)"),
        (lambda x: cse_autoloss_a_classification(x(3), x(3), x(3)), r"\[A, C \+ 1\]"),
        (lambda x: cse_autoloss_b_classification(x(3, 4), x(3, 4), x(3)), r"\(3, 4\), \(3,\)"),
        (lambda x: cse_autoloss_a_regression(x(3, 4), x(2, 4)), r"\(3, 4\), \(2, 4\)"),
        (lambda x: cse_autoloss_b_regression(x(4), x(4)), r"\[P, 4\]; got \(4,\)"),
        (lambda x: cse_autoloss_b_regression(x(3, 5), x(3, 5)), r"\(3, 5\)"),
    ],
)
def test_shapes_that_do_not_fit(call, said):
    with pytest.raises(ValueError, match=said):
        call(torch.zeros)


# Criteria.


def batch(columns: int, positives: int = 3, seed: int = 0, **changes) -> DetectionBatch:
    """Six anchors, of which the last is ignored; C = 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((6,), 4)
    labels[:positives] = torch.tensor([2, 0, 3, 1, 1])[:positives]
    low = 90 * torch.rand(positives, 2, generator=generator, dtype=torch.float64)
    target = torch.cat([low, low + 40], 1)
    shift = 8 * torch.randn(positives, 4, generator=generator, dtype=torch.float64)
    return DetectionBatch(
        **{
            "logits": 3 * torch.randn(6, columns, generator=generator, dtype=torch.float64),
            "labels": labels,
            "weights": doubles(1, 1, 2, 1, 0.5, 0),
            "pos": torch.arange(positives),
            "pred_boxes": target + shift,
            "target_boxes": target,
        }
        | changes
    )


def overlaps_of(batch: DetectionBatch) -> list[float]:
    pairs = zip(batch.pred_boxes.tolist(), batch.target_boxes.tolist(), strict=True)
    return [i / u for i, u, _ in (areas(*pair) for pair in pairs)]


def regression_of(batch: DetectionBatch, oracle) -> list[float]:
    pairs = zip(batch.pred_boxes.tolist(), batch.target_boxes.tolist(), strict=True)
    return [oracle(*areas(*pair)) for pair in pairs]


@pytest.mark.parametrize("avg_factor", [None, 7.0])
@pytest.mark.parametrize("positives", [0, 1, 5])
def test_criterion_a_equals_sums_over_single_elements(positives, avg_factor):
    given = batch(5, positives, avg_factor=avg_factor)
    losses = CSEAutoLossA(cls_weight=3, box_weight=2, background_overlap=0.25)(given)
    w = overlaps_of(given) + [0.25] * (5 - positives)
    rows, labels, weights = given.logits.tolist(), given.labels.tolist(), given.weights.tolist()
    total = sum(weights[a] * softmax_loss(rows[a], labels[a], w[a]) for a in range(5))
    count = avg_factor or 5  # six anchors, one ignored
    assert losses["loss_cls"].item() == pytest.approx(3 * total / count)
    box = sum(regression_of(given, regression_a))
    assert losses["loss_bbox"].item() == pytest.approx(2 * box / count)


@pytest.mark.parametrize("avg_factor", [None, 7.0])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("alpha", [0.3, None])
@pytest.mark.parametrize("positives", [0, 1, 5])
def test_criterion_b_equals_sums_over_single_elements(positives, alpha, scaled, avg_factor):
    given = batch(4, positives, avg_factor=avg_factor)
    losses = CSEAutoLossB(cls_weight=3, box_weight=2, alpha=alpha, scaled=scaled)(given)
    w, total = overlaps_of(given), 0.0
    for a in range(5):
        for c in range(4):
            y = int(given.labels[a] == c)
            balance = 1 if alpha is None else alpha if y else 1 - alpha
            loss = sigmoid_loss(given.logits[a, c].item(), y, w[a] if y else 0.0, scaled)
            total += given.weights[a].item() * balance * loss
    assert losses["loss_cls"].item() == pytest.approx(3 * total / (avg_factor or max(positives, 1)))
    values = regression_of(given, regression_b)
    mean = sum(map(math.prod, zip(w, values, strict=True))) / sum(w) if w else 0
    assert losses["loss_bbox"].item() == pytest.approx(2 * mean)


def test_the_defaults_are_the_released_settings():
    a, b = CSEAutoLossA(), CSEAutoLossB()
    assert (a.cls_weight, a.box_weight, a.background_overlap) == (1, 10, 1)
    assert (b.cls_weight, b.box_weight, b.alpha) == (1, 1, 0.25)
    assert (a.activation, b.activation) == ("softmax", "sigmoid")


CRITERIA = [(CSEAutoLossA(), 5), (CSEAutoLossB(), 4), (CSEAutoLossB(scaled=False), 4)]


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
def test_the_overlap_sends_no_gradient_into_the_boxes(criterion, columns):
    given = batch(columns)
    leaf = given.pred_boxes.clone().requires_grad_()
    given = replace(given, pred_boxes=leaf, logits=given.logits.requires_grad_())
    (gradient,) = torch.autograd.grad(criterion(given)["loss_cls"], leaf, allow_unused=True)
    assert gradient is None


def test_the_box_gradient_of_b_is_that_of_fixed_weights():
    given = batch(4)
    leaf = given.pred_boxes.clone().requires_grad_()
    CSEAutoLossB()(replace(given, pred_boxes=leaf))["loss_bbox"].backward()
    w = doubles(*overlaps_of(given))
    other = given.pred_boxes.clone().requires_grad_()
    (w / w.sum() @ cse_autoloss_b_regression(other, given.target_boxes)).backward()
    torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
@pytest.mark.parametrize("changes", [{}, {"weights": torch.zeros(6)}], ids=["some", "all ignored"])
def test_without_positives_the_loss_can_be_trained_on(criterion, columns, changes):
    given = batch(columns, 0, **changes)
    logits, pred = given.logits.requires_grad_(), given.pred_boxes.requires_grad_()
    losses = criterion(given)
    assert losses["loss_bbox"].item() == 0
    assert (losses["loss_cls"].item() == 0) == bool(changes)
    gradients = torch.autograd.grad(sum(losses.values()), [logits, pred])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].any() != bool(changes)


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
def test_an_empty_batch(criterion, columns):
    empty = torch.zeros(0, dtype=torch.int64)
    given = DetectionBatch(
        logits=torch.zeros(0, columns, requires_grad=True),
        labels=empty,
        weights=torch.zeros(0),
        pos=empty,
        pred_boxes=torch.zeros(0, 4, requires_grad=True),
        target_boxes=torch.zeros(0, 4),
    )
    total = sum(criterion(given).values())
    total.backward()
    assert total.item() == 0
    assert given.logits.grad.shape == (0, columns)
    assert given.pred_boxes.grad.shape == (0, 4)


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
def test_without_negatives_and_with_boxes_that_miss_or_have_no_area(criterion, columns):
    pred = boxes([0, 0, 0, 0], [50, 50, 60, 60])
    target = boxes([3, 3, 9, 9], [0, 0, 10, 10])
    given = batch(
        columns,
        2,
        weights=doubles(1, 1, 0, 0, 0, 0),
        pred_boxes=pred.requires_grad_(),
        target_boxes=target,
    )
    logits = given.logits.requires_grad_()
    losses = criterion(given)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert logits.grad.isfinite().all()
    assert logits.grad[:2].any(dim=1).all()
    assert pred.grad.isfinite().all()
    # Without any overlap B's weights are all alike, so that the boxes still learn.
    assert pred.grad.any(dim=1).all()


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_ignored_anchor_may_hold_anything(criterion, columns, value):
    given = batch(columns)
    logits = given.logits.clone()
    logits[5] = value
    labels = given.labels.clone()
    labels[5] = -1
    expected = criterion(given)
    logits.requires_grad_()
    losses = criterion(replace(given, logits=logits, labels=labels))
    assert losses == expected
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[5].any()


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
def test_nan_is_never_silent(criterion, columns):
    for row in (0, 4):  # a positive and a background anchor
        given = batch(columns)
        given.logits[row, 2] = math.nan
        assert criterion(given)["loss_cls"].isnan()
    given = batch(columns)
    given.pred_boxes[1, 2] = math.nan
    assert all(value.isnan() for value in criterion(given).values())
    given = batch(columns)
    given.logits[0, given.labels[0]] = -math.inf
    assert not criterion(given)["loss_cls"].isfinite()


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
def test_a_negative_of_minus_infinity_is_below_everything(criterion, columns):
    given = batch(columns)
    given.logits[4, 1] = -math.inf
    logits = given.logits.requires_grad_()
    loss = criterion(given)["loss_cls"]
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[4, 1] == 0


@pytest.mark.parametrize(("criterion", "columns"), CRITERIA)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_the_criterion_answers_in_the_type_of_the_logits(criterion, columns, dtype):
    given = batch(columns)
    logits = given.logits.to(dtype).requires_grad_()
    expected = criterion(replace(given, logits=logits.detach().double()))
    losses = criterion(replace(given, logits=logits))
    sum(losses.values()).backward()
    assert logits.grad.dtype == dtype
    for name, value in losses.items():
        assert value.dtype == dtype
        rel = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6}[dtype]
        assert value.item() == pytest.approx(expected[name].item(), rel=rel)


def test_a_refuses_sigmoid_batches():
    """Their last column is a class, and has positives."""
    with pytest.raises(ValueError, match="label 3, but the last of the 4 columns"):
        CSEAutoLossA()(batch(4))


def test_the_last_column_of_a_is_the_background():
    given = batch(5, 0)
    logits = given.logits.requires_grad_()
    CSEAutoLossA()(given)["loss_cls"].backward()
    assert (logits.grad[:5, 4] < 0).all()
    assert (logits.grad[:5, :4] > 0).all()


@pytest.mark.parametrize(
    ("criterion", "arguments", "said"),
    [
        (CSEAutoLossA, {"cls_weight": -1}, "cls_weight is -1"),
        (CSEAutoLossA, {"background_overlap": 1.5}, "background_overlap is 1.5; expected 0 to 1"),
        (CSEAutoLossB, {"box_weight": math.inf}, "box_weight is inf"),
        (CSEAutoLossB, {"cls_weight": math.nan}, "cls_weight is nan"),
        (CSEAutoLossB, {"alpha": -0.1}, "alpha is -0.1; expected 0 to 1, or None"),
    ],
)
def test_arguments_out_of_range(criterion, arguments, said):
    with pytest.raises(ValueError, match=said):
        criterion(**arguments)
