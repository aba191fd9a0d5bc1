"""Parameterized AP Loss: by hand, against the released code, and against the dense oracle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from loss import CURVES, Criterion, DetectionBatch, ParameterizedAPLoss, parameterized_ap_loss
from loss.criterion import build_criterion, value_and_gradients
from loss.localization import LOCALIZATION
from loss.parameterized_ap_criterion import ParameterizedAPFamily
from loss.piecewise_linear import control_points_from_theta
from tests import oracles

NAN, INF = float("nan"), float("inf")


def curves(seed: int, rows: int = 5, segments: int = 5) -> Tensor:
    """[rows, K + 1, 2]: rising curves from (0, 0) to (1, 1) in general position."""
    generator = torch.Generator().manual_seed(seed)
    theta = 0.1 + 0.6 * torch.rand(rows, 2 * (segments - 1), generator=generator)
    return control_points_from_theta(theta.double())


def scene(seed: int, count: int = 60, positives: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, localisation scores and targets in float64, the last five elements ignored."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.zeros(count, dtype=torch.int8)
    targets[:positives], targets[-5:] = 1, -1
    logits = 1.5 * torch.randn(count, generator=generator, dtype=torch.float64)
    localization = torch.rand(count, generator=generator, dtype=torch.float64)
    return logits, torch.where(targets == 1, localization, 0), targets


# ---------------------------------------------------------------------------- by hand


def test_one_positive_and_one_negative_by_hand():
    logits = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    localization = torch.tensor([0.5, 0.0], dtype=torch.float64, requires_grad=True)
    loss = parameterized_ap_loss(logits, localization, torch.tensor([1, 0]), "linear")
    # Both x are 1/2: sum H2 (1 - u_j) = 1/2 * 1/2 + 1/2 * 1 = 3/4 over sum H1 = 1.
    assert loss.item() == (1 - 0.5) + 0.5 * 0.75
    loss.backward()
    # The negative's x grows by 1/2 per unit of score: u_i * 1/2 * (1 - 0) / 1; the positive
    # moves it the other way, and its distance to itself not at all.
    assert logits.grad.tolist() == [-0.25, 0.25]
    # d/du_i of 1 - u + u (3/4 + ...): -1 + 3/4 - u/2; d/du_j = -u_i * 1/2.
    assert localization.grad.tolist() == [-0.5, -0.25]


@pytest.mark.parametrize("rows", [4, 5])
@pytest.mark.parametrize("u", [0.0, 0.25, 1.0])
def test_a_positive_above_all_else_loses_only_by_its_box(rows: int, u: float):
    """It sees nothing but itself, at x = 1/2: 1 - u + u (1 - u) H2(1/2) / H1(1/2) = 1 - u^2."""
    identity = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(rows, 2, 2)
    logits, localization = torch.tensor([5.0, 3.9, 3.0, -9.0]), torch.tensor([u, 0, 0, 0])
    loss = parameterized_ap_loss(logits, localization, torch.tensor([1, 0, 0, 0]), identity)
    assert loss.item() == pytest.approx(1 - u**2)


def test_a_step_counts_ties_by_half():
    """Without H1 it is (sign(d) + 1) / 2: itself 1/2, the tie 1/2, the higher one 1."""
    logits, targets = torch.tensor([0.0, 0.0, 3.0, -3.0]), torch.tensor([1, 0, 0, 0])
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(4, 2, 2)
    loss = parameterized_ap_loss(logits, torch.tensor([1.0, 0, 0, 0]), targets, points)
    # H2: itself 1/2 * (1 - 1), the tie 1/2, the higher one 1.
    assert loss.item() == pytest.approx(0 + 1 * (1 / 2 + 1) / (1 / 2 + 1 / 2 + 1))


# ---------------------------------------------------------------------------- the released code


def reference_cases() -> list[Any]:
    with np.load(Path(__file__).parents[1] / "reference" / "losses.npz") as arrays:
        cases = [c for c in json.loads(str(arrays["meta"])) if c["kind"] == "pap"]
    # The square form is no piecewise linear curve.
    return [pytest.param(c, id=c["name"]) for c in cases if c["form"] != "square"]


def reference(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Any, list[Tensor]]:
    """Logits, localisation scores, targets, control points; and loss and gradients expected."""
    with np.load(Path(__file__).parents[1] / "reference" / "losses.npz") as arrays:
        read = {
            name: torch.from_numpy(arrays[f"c{case['i']:02d}_{name}"])
            for name in ("logits", "ious", "targets", "ctrl", "loss64", "glogits64", "gious64")
        }
    logits, ious, targets, ctrl, *expected = read.values()
    linear = case["form"] == "linear"
    return logits, ious, targets, "linear" if linear else ctrl.view(-1, 6, 2), expected


@pytest.mark.parametrize("case", reference_cases())
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-7)], ids=str
)
def test_equals_the_released_code(case: dict[str, Any], dtype: torch.dtype, tolerance: float):
    """Value, and gradients at all elements: negatives have one through 1 - I2(u_j) too."""
    logits, ious, targets, points, expected = reference(case)
    actual = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, points, num_topk=case["num_topk"]),
        logits.to(dtype),
        ious.to(dtype),
    )
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        oracles.assert_close(a, e, tolerance)


@pytest.mark.parametrize("case", reference_cases())
def test_the_oracle_equals_the_released_code(case: dict[str, Any]):
    logits, ious, targets, points, expected = reference(case)
    if isinstance(points, str):
        points = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(5, 2, 2)
    actual = oracles.value_and_grads(
        lambda s, u: oracles.pap_loss(s, u, targets, points, num_topk=case["num_topk"]),
        logits.double(),
        ious.double(),
    )
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-7)


# ---------------------------------------------------------------------------- the oracle


def assert_equals_oracle(
    logits: Tensor,
    localization: Tensor,
    targets: Tensor,
    points: Tensor,
    tolerance: float = 1e-9,
    **options: Any,
) -> None:
    """Value and both gradients."""
    actual = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, points, **options), logits, localization
    )
    expected = oracles.value_and_grads(
        lambda s, u: oracles.pap_loss(s, u, targets, points, **options),
        logits.double(),
        localization.double(),
    )
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, tolerance)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    data=st.data(),
    rows=st.sampled_from([4, 5]),
    segments=st.integers(1, 5),
    # Not both in float32: gradients of numerator and denominator can cancel to their rounding.
    mode=st.sampled_from([(torch.float32, True), (torch.float64, True), (torch.float64, False)]),
)
def test_equals_the_oracle_on_grids(
    data: st.DataObject, rows: int, segments: int, mode: tuple[torch.dtype, bool]
):
    """Ties, breakpoints and clip ends hit exactly, coincident points, flat parts, and any set of
    positives, negatives and ignored elements, the empty ones included."""
    dtype, detach = mode
    count = data.draw(st.integers(1, 10))
    points = data.draw(oracles.control_points(rows, segments))
    targets = data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=count, max_size=count))
    logits, localization = (
        torch.tensor(data.draw(oracles.eighths(low, high, count)), dtype=dtype)
        for low, high in [(-2, 2), (0, 1)]
    )
    assert_equals_oracle(
        logits,
        localization,
        torch.tensor(targets),
        points,
        tolerance=2e-6 if dtype == torch.float32 else 1e-8,
        detach_denominator=detach,
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("detach", [True, False])
def test_equals_the_oracle_off_the_grid(seed: int, detach: bool):
    logits, localization, targets = scene(seed, count=300, positives=1 + 4 * seed)
    points = curves(seed, rows=4 + seed % 2, segments=2 + seed)
    assert_equals_oracle(logits, localization, targets, points, detach_denominator=detach)


def test_equals_the_oracle_without_negatives():
    logits, localization, _ = scene(0)
    assert_equals_oracle(logits, localization, torch.ones(len(logits)), curves(0))


def test_a_denominator_of_zero_counts_as_its_floor():
    """H1 flat at 0 up to 3/4: the positive on top finds nothing above it, itself included."""
    points = torch.tensor([[0, 0], [0.75, 0.75], [1, 1]], dtype=torch.float64).repeat(5, 1, 1)
    points[4, 1, 1] = 0
    logits = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    targets, localization = torch.tensor([1, 1, 0]), torch.tensor([0.5, 0.25, 0]).double()
    for detach in (True, False):
        assert_equals_oracle(logits, localization, targets, points, detach_denominator=detach)


@pytest.mark.parametrize("num_topk", [1, 2, 7, 20, 55, 60, 1000])
def test_only_the_highest_are_ranked(num_topk: int):
    """Positives outside of them stay in the sum over i; ignored elements take no place."""
    logits, localization, targets = scene(3)
    logits[-5:] += 10
    assert_equals_oracle(logits, localization, targets, curves(3), num_topk=num_topk)


def test_the_denominator_passes_gradient_if_it_is_told_to():
    logits, _, targets = scene(4, count=25, positives=4)
    generator = torch.Generator().manual_seed(4)
    # Inside (0, 1) at negatives too: at 0 finite differences would straddle the clip.
    localization = 0.1 + 0.8 * torch.rand(25, generator=generator, dtype=torch.float64)
    points = curves(4)

    def loss(s: Tensor, u: Tensor) -> Tensor:
        return parameterized_ap_loss(s, u, targets, points, detach_denominator=False)

    inputs = (logits.requires_grad_(), localization.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)
    detached = parameterized_ap_loss(*inputs, targets, points)
    assert torch.equal(loss(*inputs), detached)
    one, other = torch.autograd.grad(detached, inputs), torch.autograd.grad(loss(*inputs), inputs)
    assert not torch.allclose(one[0], other[0])
    assert torch.allclose(one[1], other[1])  # localisation scores are not in the denominator


# ---------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_elements_changes_nothing(seed: int):
    logits, localization, targets = scene(seed)
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    points = curves(seed)

    def run(*inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return oracles.value_and_grads(
            lambda s, u: parameterized_ap_loss(s, u, targets, points), *inputs
        )

    value, *grads = run(logits, localization, targets=targets)
    same, *shuffled = run(logits[order], localization[order], targets=targets[order])
    torch.testing.assert_close(same, value)
    for grad, other in zip(grads, shuffled, strict=True):
        oracles.assert_close(other, grad[order], 1e-10)


def test_a_shift_of_all_logits_changes_nothing_so_gradients_sum_to_zero():
    logits, localization, targets = scene(5)
    logits.requires_grad_()
    loss = parameterized_ap_loss(logits, localization, targets, curves(5))
    shifted = parameterized_ap_loss(logits + 3, localization, targets, curves(5))
    assert shifted.item() == pytest.approx(loss.item(), abs=1e-12)
    loss.backward()
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-14)
    assert logits.grad.abs().sum() > 0.1


def test_the_same_inputs_give_the_same_bits():
    logits, localization, targets = scene(6, count=5000, positives=200)
    one, other = (
        oracles.value_and_grads(
            lambda s, u: parameterized_ap_loss(s, u, targets, curves(6)),
            logits.float(),
            localization.float(),
        )
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32_and_kept(dtype: torch.dtype):
    logits, localization, targets = scene(7)
    half = (logits.to(dtype), localization.to(dtype))
    value, *grads = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, curves(7)), *half
    )
    assert {x.dtype for x in (value, *grads)} == {dtype}
    expected = oracles.value_and_grads(
        lambda s, u: oracles.pap_loss(s, u, targets, curves(7)), *(x.double() for x in half)
    )
    # Rounded once, at the end, and in the sums that autograd makes of a positive's gradient.
    for a, e in zip((value, *grads), expected, strict=True):
        oracles.assert_close(a, e, 2 * torch.finfo(dtype).eps)


def test_inputs_need_not_be_contiguous():
    logits, localization, targets = scene(8)
    strided = [
        torch.stack([x, torch.full_like(x, 7)], 1)[:, 0] for x in (logits, localization, targets)
    ]
    assert not any(x.is_contiguous() for x in strided)
    assert_equals_oracle(*strided, curves(8))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operator makes, and counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.entries, self.calls = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        made = [out] if isinstance(out, Tensor) else out if isinstance(out, tuple | list) else []
        sizes = [t.numel() for t in made if isinstance(t, Tensor)]
        self.entries, self.calls = max([self.entries, *sizes]), self.calls + 1
        return out


@pytest.mark.parametrize(("count", "positives"), [(200, 20), (2_000_000, 500)])
def test_makes_no_pair_matrix_and_loops_over_nothing(count: int, positives: int):
    """Forward and backward; the larger pair matrix would have 8 GB."""

    def run(count: int, positives: int) -> LargestTensor:
        logits, localization, targets = scene(0, count, positives)
        logits, localization = logits.requires_grad_(), localization.requires_grad_()
        points = curves(0)
        with LargestTensor() as largest:
            parameterized_ap_loss(logits, localization, targets, points).backward()
        return largest

    largest = run(count, positives)
    assert largest.entries <= count + positives * 2 * 6  # two curves of six points
    assert abs(largest.calls - run(50, 5).calls) <= 5


# ---------------------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("infinite", [-INF, INF])
def test_infinite_logits_of_negatives_are_below_or_above_all(infinite: float):
    logits, localization, targets = scene(9)
    logits[20:23] = infinite
    assert (targets[20:23] == 0).all()
    points = curves(9)
    points[:, 0, 1] = 0.05  # what lies below every window counts too
    assert_equals_oracle(logits, localization, targets, points)


@pytest.mark.parametrize("element", [0, 30], ids=["positive", "negative"])
def test_a_nan_logit_makes_the_loss_nan(element: int):
    logits, localization, targets = scene(10)
    logits[element] = NAN
    assert parameterized_ap_loss(logits, localization, targets, curves(10)).isnan()


@pytest.mark.parametrize("value", [-INF, INF])
def test_an_infinite_logit_of_a_positive_makes_the_loss_nan(value: float):
    logits, localization, targets = scene(10)
    logits[0] = value
    assert parameterized_ap_loss(logits, localization, targets, curves(10)).isnan()


def test_a_nan_localisation_score_of_a_positive_makes_the_loss_nan():
    logits, localization, targets = scene(10)
    localization[0] = NAN
    assert parameterized_ap_loss(logits, localization, targets, curves(10)).isnan()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("element", [0, 1], ids=["logits", "localization"])
def test_what_is_ignored_may_hold_anything(element: int, value: float):
    logits, localization, targets = scene(11)
    changed = (logits.clone(), localization.clone())
    points = curves(11)
    expected = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, points), logits, localization
    )
    changed[element][targets == -1] = value
    actual = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, points), *changed
    )
    assert not expected[1][targets == -1].any()
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_without_positives_the_loss_is_zero_and_so_are_its_gradients():
    logits, localization, targets = scene(12, positives=0)
    value, *grads = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, "linear"), logits, localization
    )
    assert value == 0
    assert not any(grad.any() for grad in grads)


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("shape", [(5,), (6, 1)])
def test_shapes_that_differ_are_an_error(shape: tuple[int, ...]):
    six = torch.zeros(6)
    with pytest.raises(ValueError, match=r"one shape \[N\]"):
        parameterized_ap_loss(six, torch.zeros(shape), six, "linear")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("cubic", "unknown form 'cubic'"),
        (curves(0, rows=3), "3 curves"),
        (dict(zip(CURVES[:4], curves(0), strict=False)), "H1"),
        (dict(zip((*CURVES, "H3"), curves(0, rows=6), strict=True)), "H3"),
        (curves(0).flatten(1), "shape"),
        (curves(0).flip(1), "begin at 0"),
    ],
)
def test_control_points_that_are_no_curves(points: Any, message: str):
    with pytest.raises(ValueError, match=message):
        ParameterizedAPLoss(points)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("localization", "diou"),
        ("gradient_scale", 0.0),
        ("gradient_scale", -1.0),
        ("gradient_scale", NAN),
        ("gradient_scale", INF),
        ("num_topk", 0),
    ],
)
def test_arguments_out_of_range_are_named(name: str, value: Any):
    with pytest.raises(ValueError, match=name):
        ParameterizedAPLoss(**{name: value})


# ---------------------------------------------------------------------------- the criterion


def batch(
    seed: int = 0, anchors: int = 80, classes: int = 3, positives: int = 30
) -> DetectionBatch:
    """Positives of every quality, from boxes that fit to boxes that miss; five ignored anchors."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((anchors,), classes)
    pos = torch.randperm(anchors - 5, generator=generator)[:positives].sort().values
    labels[pos] = torch.randint(0, classes, (positives,), generator=generator)
    weights = torch.ones(anchors)
    weights[-5:] = 0
    low = 40 * torch.rand(positives, 2, generator=generator, dtype=torch.float64)
    target = torch.cat([low, low + 20], 1)
    shift = 40 * torch.linspace(0.02, 1, positives, dtype=torch.float64)[:, None] ** 2
    return DetectionBatch(
        logits=1.5 * torch.randn(anchors, classes, generator=generator, dtype=torch.float64),
        labels=labels,
        weights=weights,
        pos=pos,
        pred_boxes=target + shift * torch.rand(positives, 4, generator=generator),
        target_boxes=target,
        anchor_sizes=torch.full((positives, 2), 100.0, dtype=torch.float64),
    )


@pytest.mark.parametrize("localization", ["giou", "iou", "l1"])
@pytest.mark.parametrize("num_topk", [None, 100])
@pytest.mark.parametrize("detach", [True, False])
def test_the_criterion_is_the_loss_of_the_flattened_batch(
    localization: str, num_topk: int | None, detach: bool
):
    given, points = batch(), curves(1)
    points[1, 1, 0] = 0  # a jump at 0: the I2 of negatives is not 0
    options = {"num_topk": num_topk, "detach_denominator": detach}
    criterion = ParameterizedAPLoss(points, localization=localization, **options)

    def flattened(logits: Tensor, boxes: Tensor) -> Tensor:
        targets = given.targets().flatten()
        scores = LOCALIZATION[localization](boxes, given.target_boxes, given.anchor_sizes)
        placed = torch.zeros_like(logits).flatten().masked_scatter(targets == 1, scores)
        return parameterized_ap_loss(logits.flatten(), placed, targets, points, **options)

    expected = oracles.value_and_grads(flattened, given.logits, given.pred_boxes)
    for a, e in zip(value_and_gradients(criterion, given), expected, strict=True):
        oracles.assert_close(a, e, 1e-10)


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


# ---------------------------------------------------------------------------- the family


def test_the_coordinates_of_the_family():
    family = ParameterizedAPFamily()
    assert len(family.names) == 5 * 2 * (5 - 1) + 1
    assert family.names[:3] == ("H2.x1", "H2.y1", "H2.x2")
    assert family.names[7:9] == ("H2.y4", "I2.x1")
    assert family.names[-2:] == ("H1.y4", "gradient_scale")
    assert [name[:2] for name in family.names[:-1:8]] == ["H2", "I2", "I3", "I1", "H1"]


def built(family: ParameterizedAPFamily, theta: Sequence[float]) -> Criterion:
    return build_criterion(family.settings(theta))


def test_the_start_of_the_family_is_the_identity_with_scale_1():
    family = ParameterizedAPFamily()
    settings = family.settings(family.start)
    assert settings["gradient_scale"] == 1
    actual = value_and_gradients(built(family, family.start), batch())
    expected = value_and_gradients(ParameterizedAPLoss("linear"), batch())
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-10)


@pytest.mark.parametrize(("share", "scale"), [(0.0, 0.1), (0.25, 10**-0.5), (1.0, 10.0)])
def test_the_last_coordinate_is_the_gradient_scale_in_decades(share: float, scale: float):
    family = ParameterizedAPFamily()
    settings = family.settings((*family.start[:-1], share))
    assert settings["gradient_scale"] == pytest.approx(scale)


def test_settings_hold_the_curves_of_theta_and_every_option():
    family = ParameterizedAPFamily(3, 2.0, "iou", num_topk=50, detach_denominator=False)
    assert len(family.names) == len(family.start) == 5 * 2 * (3 - 1)
    shares = np.random.default_rng(0).random((5, 4))
    settings = family.settings(shares.ravel().tolist())
    assert settings == {
        "type": "parameterized_ap",
        "control_points": {
            name: control_points_from_theta(torch.from_numpy(row)).tolist()
            for name, row in zip(("H2", "I2", "I3", "I1", "H1"), shares, strict=True)
        },
        "gradient_scale": 2.0,
        "localization": "iou",
        "num_topk": 50,
        "detach_denominator": False,
    }


@pytest.mark.parametrize("segments", [3, 5])
def test_every_coordinate_of_theta_changes_what_is_trained_on(segments: int):
    family = ParameterizedAPFamily(segments)
    theta = np.random.default_rng(1).uniform(0.1, 0.4, len(family.names))
    given = batch()
    before = value_and_gradients(built(family, theta.tolist()), given)
    unused = []
    for k, name in enumerate(family.names):
        moved = theta.copy()
        moved[k] += 0.01
        after = value_and_gradients(built(family, moved.tolist()), given)
        changes = [(a - b).abs().max() / b.abs().max() for a, b in zip(after, before, strict=True)]
        if max(changes) < 1e-4:
            unused.append(name)
    assert not unused


@pytest.mark.parametrize("localization", ["giou", "l1"])
@pytest.mark.parametrize("num_topk", [None, 100])
def test_what_theta_is_expected_to_give_is_what_its_criterion_gives(
    localization: str, num_topk: int | None
):
    """The two ways to a loss and its gradients that prove to a trial that theta arrived."""
    family = ParameterizedAPFamily(localization=localization, num_topk=num_topk)
    theta = np.random.default_rng(2).uniform(0.2, 0.6, len(family.names)).tolist()
    actual = value_and_gradients(built(family, theta), batch())
    for a, e in zip(actual, family.expected(theta, batch()), strict=True):
        oracles.assert_close(a, e, 1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 1}, "segments"),
        ({"segments": 65}, "segments"),
        ({"gradient_scale": 0.0}, "gradient_scale"),
        ({"localization": "diou"}, "localization"),
        ({"num_topk": 0}, "num_topk"),
    ],
)
def test_options_of_the_family_out_of_range_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ParameterizedAPFamily(**options)


@pytest.mark.parametrize("theta", [[0.5] * 40, [0.5] * 42, [1.5] + [0.5] * 40, [NAN] + [0.5] * 40])
def test_what_is_no_theta_of_the_family(theta: list[float]):
    with pytest.raises(ValueError, match="theta"):
        ParameterizedAPFamily().settings(theta)


@pytest.mark.parametrize("share", [-0.1, 1.1, NAN])
def test_a_gradient_scale_outside_of_the_cube_is_no_theta(share: float):
    with pytest.raises(ValueError, match="theta"):
        ParameterizedAPFamily().settings([0.5] * 40 + [share])
