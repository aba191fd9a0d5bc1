"""Parameterized AP Loss as a criterion: flattened batches, box gradients, groups of images."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from loss import CURVES, DetectionBatch, ParameterizedAPLoss, parameterized_ap_loss
from loss.criterion import value_and_gradients
from loss.localization import LOCALIZATION
from tests import oracles
from tests.scenes import batch, curves
from tests.watch import Copies, Memory

NAN, INF = math.nan, math.inf
FORMS = ["linear", "square", "sqrt", "sigmoid"]


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 1e-10):
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, tolerance)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("localization", "diou"),
        ("gradient_scale", 0.0),
        ("gradient_scale", -1.0),
        ("gradient_scale", NAN),
        ("gradient_scale", INF),
        ("num_topk", 0),
        ("ranking_group", 0),
        ("control_points", "cubic"),
    ],
)
def test_arguments_out_of_range_are_named(name: str, value: Any):
    with pytest.raises(ValueError, match="cubic" if name == "control_points" else name):
        ParameterizedAPLoss(**{name: value})


# ---------------------------------------------------------------------------- the flattened batch


@pytest.mark.parametrize("localization", ["giou", "iou", "l1"])
@pytest.mark.parametrize("num_topk", [None, 100])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("points", ["curves", "square", "sigmoid"])
def test_the_criterion_is_the_loss_of_the_flattened_batch(
    localization: str, num_topk: int | None, detach: bool, points: Any
):
    given = batch()
    if points == "curves":
        points = curves(1)
        points[1, 1, 0] = 0  # a jump at 0: the I2 of negatives is not 0
    options = {"num_topk": num_topk, "detach_denominator": detach}
    criterion = ParameterizedAPLoss(points, localization=localization, **options)

    def flattened(logits: Tensor, boxes: Tensor) -> Tensor:
        targets = given.targets().flatten()
        scores = LOCALIZATION[localization](boxes, given.target_boxes, given.anchor_sizes)
        placed = torch.zeros_like(logits).flatten().masked_scatter(targets == 1, scores)
        return parameterized_ap_loss(logits.flatten(), placed, targets, points, **options)

    expected = oracles.value_and_grads(flattened, given.logits, given.pred_boxes)
    assert_same(value_and_gradients(criterion, given), expected)


@pytest.mark.parametrize("scale", [0.1, 0.3, 10.0])
def test_the_gradient_scale_multiplies_what_flows_into_boxes_and_nothing_else(scale: float):
    loss, logits, boxes = value_and_gradients(ParameterizedAPLoss(curves(2)), batch())
    same, same_logits, scaled = value_and_gradients(ParameterizedAPLoss(curves(2), scale), batch())
    assert torch.equal(same, loss)
    assert torch.equal(same_logits, logits)
    assert torch.equal(scaled, boxes * scale)


def test_curves_may_be_named():
    points = curves(3)
    named = {name: points[k].tolist() for k, name in enumerate(CURVES)}
    upside_down = dict(reversed(named.items()))
    expected = value_and_gradients(ParameterizedAPLoss(points), batch())
    for form in (named, upside_down, points.tolist()):
        actual = value_and_gradients(ParameterizedAPLoss(form), batch())
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("points", FORMS)
def test_float32_and_what_is_not_contiguous(points: str):
    given = batch()
    expected = value_and_gradients(ParameterizedAPLoss(points), given)
    strided = torch.stack([given.logits, given.logits], 2)[:, :, 0]
    assert not strided.is_contiguous()
    half = replace(given, logits=strided.float(), pred_boxes=given.pred_boxes.float())
    actual = value_and_gradients(ParameterizedAPLoss(points), half)
    assert [x.dtype for x in actual] == [torch.float32] * 3
    assert_same(actual, expected, 1e-5)  # the inputs were rounded


def test_one_class_and_inputs_that_are_left_alone():
    """With one class a flattened mask is the mask itself: what ranks must not write into it."""
    given = batch(classes=1)
    before = [x.clone() for x in (given.logits, given.weights, given.labels, given.pos)]
    criterion = ParameterizedAPLoss(curves(4))
    assert_same(value_and_gradients(criterion, given), value_and_gradients(criterion, given))
    after = (given.logits, given.weights, given.labels, given.pos)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# ---------------------------------------------------------------------------- corners


def with_logits(given: DetectionBatch, element: tuple[int, int], value: float) -> DetectionBatch:
    logits = given.logits.clone()
    logits[element] = value
    return replace(given, logits=logits)


@pytest.mark.parametrize("points", FORMS)
def test_logits_that_are_no_numbers(points: str):
    given, criterion = batch(), ParameterizedAPLoss(points)
    positive = (int(given.pos[0]), int(given.labels[given.pos[0]]))
    negative = (positive[0], (positive[1] + 1) % 3)
    ignored = (79, 0)
    assert given.weights[79] == 0
    for element in (positive, negative):
        assert criterion(with_logits(given, element, NAN))["loss_pap"].isnan()
    assert criterion(with_logits(given, positive, INF))["loss_pap"].isnan()
    for value in (INF, -INF):
        result = value_and_gradients(criterion, with_logits(given, negative, value))
        assert all(x.isfinite().all() for x in result)
    expected = value_and_gradients(criterion, given)
    for value in (NAN, INF, -INF):
        actual = value_and_gradients(criterion, with_logits(given, ignored, value))
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


DEGENERATE = {
    "no area": [5.0, 5.0, 5.0, 5.0],
    "no width": [5.0, 5.0, 5.0, 25.0],
    "inside out": [25.0, 25.0, 5.0, 5.0],
    "huge": [-1e8, -1e8, 1e8, 1e8],
    "far": [1e6, 1e6, 1e6 + 1, 1e6 + 1],
}


@pytest.mark.parametrize("localization", ["giou", "iou", "l1"])
@pytest.mark.parametrize("points", ["sqrt", curves(5)], ids=["sqrt", "curves"])
@pytest.mark.parametrize("box", DEGENERATE.values(), ids=DEGENERATE)
def test_boxes_without_area_and_beyond_all_bounds(localization: str, points: Any, box: list[float]):
    """The loss stays in [0, 2] and gradients finite, in float32 too: of boxes, of targets, both."""
    given = batch()
    criterion = ParameterizedAPLoss(points, localization=localization)
    boxes = {name: getattr(given, name).float() for name in ("pred_boxes", "target_boxes")}
    for which in (["pred_boxes"], ["target_boxes"], ["pred_boxes", "target_boxes"]):
        changed = {name: boxes[name].clone() for name in which}
        for each in changed.values():
            each[0] = torch.tensor(box)
        odd = replace(given, logits=given.logits.float(), **{**boxes, **changed})
        loss, at_logits, at_boxes = value_and_gradients(criterion, odd)
        assert 0 <= loss <= 2
        assert at_logits.isfinite().all()
        assert at_boxes.isfinite().all()


def test_a_box_that_is_nan_makes_the_loss_nan():
    given = batch()
    boxes = given.pred_boxes.clone()
    boxes[3, 1] = NAN
    assert ParameterizedAPLoss()(replace(given, pred_boxes=boxes))["loss_pap"].isnan()


def empty(anchors: int) -> DetectionBatch:
    """Nothing but background, or nothing at all."""
    none = torch.zeros(0, 4, dtype=torch.float64)
    return DetectionBatch(
        logits=torch.zeros(anchors, 3, dtype=torch.float64),
        labels=torch.full((anchors,), 3),
        weights=torch.ones(anchors),
        pos=torch.zeros(0, dtype=torch.int64),
        pred_boxes=none,
        target_boxes=none,
        anchor_sizes=none[:, :2],
        images=torch.arange(anchors) // 2,
    )


@pytest.mark.parametrize("points", FORMS)
@pytest.mark.parametrize("anchors", [0, 1, 4])
@pytest.mark.parametrize("ranking_group", [None, 1])
def test_without_positives_or_anchors_the_loss_is_zero(
    points: str, anchors: int, ranking_group: int | None
):
    criterion = ParameterizedAPLoss(points, ranking_group=ranking_group)
    loss, at_logits, at_boxes = value_and_gradients(criterion, empty(anchors))
    assert loss == 0
    assert torch.equal(at_logits, torch.zeros(anchors, 3, dtype=torch.float64))
    assert at_boxes.shape == (0, 4)


def test_everything_ignored_but_positives():
    """Only the scores of the positive anchors are ranked."""
    given = batch()
    weights = torch.zeros(len(given.logits)).index_fill_(0, given.pos, 1)
    loss, at_logits, _ = value_and_gradients(
        ParameterizedAPLoss(curves(6)), replace(given, weights=weights)
    )
    assert loss > 0
    assert not at_logits[weights == 0].any()
    assert at_logits[given.pos].any()


# ---------------------------------------------------------------------------- groups of images


def images(given: DetectionBatch, first: int, last: int) -> tuple[DetectionBatch, Tensor, Tensor]:
    """A batch of the images `first` to `last`, and which anchors and positives these are."""
    rows = ((given.images >= first) & (given.images <= last)).nonzero()[:, 0]
    own = [k for k, anchor in enumerate(given.pos.tolist()) if anchor in rows.tolist()]
    place = {anchor: k for k, anchor in enumerate(rows.tolist())}
    part = DetectionBatch(
        logits=given.logits[rows],
        labels=given.labels[rows],
        weights=given.weights[rows],
        pos=torch.tensor([place[given.pos[k].item()] for k in own], dtype=torch.int64),
        pred_boxes=given.pred_boxes[own],
        target_boxes=given.target_boxes[own],
        anchor_sizes=given.anchor_sizes[own],
    )
    return part, rows, torch.tensor(own, dtype=torch.int64)


def without_positives_in_the_first_image(given: DetectionBatch) -> DetectionBatch:
    """Its positives become background."""
    later = given.images[given.pos] > 0
    labels = given.labels.masked_fill(given.images == 0, given.num_classes)
    return replace(
        given,
        labels=labels,
        pos=given.pos[later],
        pred_boxes=given.pred_boxes[later],
        target_boxes=given.target_boxes[later],
        anchor_sizes=given.anchor_sizes[later],
    )


@pytest.mark.parametrize(
    ("ranking_group", "groups"),
    [
        (1, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (2, [(0, 1), (2, 3)]),
        (3, [(0, 2), (3, 3)]),  # the last group is smaller
        (4, [(0, 3)]),
        (8, [(0, 3)]),
    ],
)
@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("localization", ["giou", "l1"])
def test_groups_of_images_are_ranked_apart(
    ranking_group: int, groups: list[tuple[int, int]], missing: bool, localization: str
):
    """The mean of their losses: one of a group without positives is 0, and counts."""
    given = without_positives_in_the_first_image(batch()) if missing else batch()
    options = {"gradient_scale": 3.0, "localization": localization}
    alone = ParameterizedAPLoss(curves(7), **options)
    loss = torch.zeros((), dtype=torch.float64)
    at_logits, at_boxes = torch.zeros_like(given.logits), torch.zeros_like(given.pred_boxes)
    for first, last in groups:
        part, rows, own = images(given, first, last)
        value, logits, boxes = value_and_gradients(alone, part)
        loss += value / len(groups)
        at_logits[rows], at_boxes[own] = logits / len(groups), boxes / len(groups)
    criterion = ParameterizedAPLoss(curves(7), ranking_group=ranking_group, **options)
    assert_same(value_and_gradients(criterion, given), (loss, at_logits, at_boxes))
    if len(groups) > 1:
        assert loss.item() != pytest.approx(float(alone(given)["loss_pap"]), rel=1e-3)


def test_the_cap_is_of_each_group():
    """As in the released code, where a worker ranks its own images."""
    given = batch()
    parts = [images(given, k, k)[0] for k in range(4)]
    capped = ParameterizedAPLoss(curves(8), num_topk=20)
    expected = sum(capped(part)["loss_pap"] for part in parts) / 4
    grouped = ParameterizedAPLoss(curves(8), num_topk=20, ranking_group=1)
    assert grouped(given)["loss_pap"].item() == pytest.approx(expected.item())


def test_groups_need_to_know_the_images():
    given = replace(batch(), images=None)
    with pytest.raises(ValueError, match="2 images are to be ranked together"):
        ParameterizedAPLoss(ranking_group=2)(given)
    assert ParameterizedAPLoss()(given)["loss_pap"].isfinite()


# ---------------------------------------------------------------------------- cost


def batch_on(device: str) -> DetectionBatch:
    return DetectionBatch(
        logits=torch.zeros(50, 3, device=device, requires_grad=True),
        labels=torch.zeros(50, device=device, dtype=torch.int64),
        weights=torch.ones(50, device=device),
        pos=torch.zeros(5, device=device, dtype=torch.int64),
        pred_boxes=torch.zeros(5, 4, device=device, requires_grad=True),
        target_boxes=torch.zeros(5, 4, device=device),
        anchor_sizes=torch.zeros(5, 2, device=device),
    )


@pytest.mark.parametrize("points", [*FORMS, curves(0), curves(0, rows=4)])
@pytest.mark.parametrize("localization", ["giou", "l1"])
@pytest.mark.parametrize("num_topk", [None, 20])
def test_a_gpu_never_waits_for_the_host(points: Any, localization: str, num_topk: int | None):
    criterion = ParameterizedAPLoss(points, localization=localization, num_topk=num_topk)
    criterion(batch_on("meta"))["loss_pap"].backward()  # curves are copied there the first time
    with Copies() as copies:
        criterion(batch_on("meta"))["loss_pap"].backward()
    assert copies.found == []


def test_memory_is_less_than_three_times_the_logits():
    """Of 2 million logits and 500 positives, forward and backward, the gradients included."""
    anchors, classes, positives = 25_000, 80, 500
    given = batch(anchors=anchors, classes=classes, positives=positives)
    logits = given.logits.float().requires_grad_()
    given = replace(given, logits=logits, pred_boxes=given.pred_boxes.requires_grad_())
    with Memory() as memory:
        ParameterizedAPLoss(curves(9))(given)["loss_pap"].backward()
    assert memory.peak <= 3 * 4 * anchors * classes
