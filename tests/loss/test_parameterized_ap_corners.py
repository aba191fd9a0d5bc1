"""Every corner of Parameterized AP Loss: by hand, and thousands against the dense oracle."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss import parameterized_ap_loss
from tests import oracles
from tests.scenes import any_control_points, corners, curves, scene

NAN, INF = math.nan, math.inf
IDENTITY = [[0.0, 0.0], [1.0, 1.0]]
Scene = tuple[Tensor, Tensor, Tensor]


def run(
    logits: Any, localization: Any, targets: Any, points: Any, **options: Any
) -> tuple[Tensor, ...]:
    """The loss and its gradients at logits and localisation scores; lists are float64."""
    inputs = [
        x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)
        for x in (logits, localization)
    ]
    targets = torch.as_tensor(targets)
    return oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, points, **options), *inputs
    )


def assert_equals_oracle(
    logits: Tensor, localization: Tensor, targets: Tensor, points: Any, **options: Any
) -> None:
    """Value and both gradients, within what the type of the inputs allows."""
    actual = run(logits, localization, targets, points, **options)
    expected = oracles.value_and_grads(
        lambda s, u: oracles.pap_loss(s, u, targets, points, **options),
        logits.double(),
        localization.double(),
    )
    tolerance = 2e-6 if logits.dtype == torch.float32 else 1e-8
    # Where the denominator is at its floor, a loss of a million cancels in the gradients.
    tolerance *= max(1.0, float(expected[0]))
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == logits.dtype
        oracles.assert_close(a, e, tolerance)


# ---------------------------------------------------------------------------- thousands


@settings(max_examples=500, deadline=None, derandomize=True)
@given(scene=corners(), points=any_control_points(), detach=st.booleans())
def test_equals_the_oracle(scene: Scene, points: list[Tensor], detach: bool):
    logits, localization, targets = scene
    options = {"detach_denominator": detach}
    assert_equals_oracle(logits.double(), localization.double(), targets, points, **options)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(scene=corners(), points=any_control_points())
def test_equals_the_oracle_in_float32(scene: Scene, points: list[Tensor]):
    """The denominator's gradient is left out: it can cancel the numerator's to its rounding."""
    assert_equals_oracle(*scene, points)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(scene=corners(), form=st.sampled_from(sorted(oracles.FORMS)), detach=st.booleans())
def test_forms_equal_the_oracle(scene: Scene, form: str, detach: bool):
    logits, localization, targets = scene
    options = {"detach_denominator": detach}
    assert_equals_oracle(logits.double(), localization.double(), targets, form, **options)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    scene=corners(),
    points=st.one_of(any_control_points(), st.sampled_from(sorted(oracles.FORMS))),
    num_topk=st.integers(1, 8),
)
def test_equals_the_oracle_with_a_cap(scene: Scene, points: Any, num_topk: int):
    """Of scores that tie at the cap, any may be taken, so here they differ."""
    logits, localization, targets = scene
    order = torch.arange(len(logits), dtype=torch.float64)
    spread = torch.where(logits.isfinite(), logits.double() + order / 1024, logits.double())
    counted = spread[targets >= 0]
    if len(counted.unique()) == len(counted):
        assert_equals_oracle(spread, localization.double(), targets, points, num_topk=num_topk)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scene=corners(), points=any_control_points(), data=st.data())
def test_what_is_ignored_might_as_well_not_be_there(
    scene: Scene, points: list[Tensor], data: st.DataObject
):
    logits, localization, targets = scene
    keep = targets >= 0
    loss, at_logits, at_localization = run(logits, localization, targets, points)
    same, *gradients = run(logits[keep], localization[keep], targets[keep], points)
    assert torch.equal(loss, same)
    for found, expected in zip((at_logits, at_localization), gradients, strict=True):
        assert torch.equal(found[keep], expected)
        assert not found[~keep].any()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scene=corners(), points=any_control_points(), broken=st.sampled_from([NAN, INF, -INF]))
def test_what_is_broken_is_never_a_number(scene: Scene, points: list[Tensor], broken: float):
    """A logit that counts and is NaN, a positive's that is infinite: at each place in turn."""
    logits, localization, targets = scene
    assert math.isfinite(parameterized_ap_loss(logits, localization, targets, points))
    if not (targets == 1).any():
        return
    for k in (targets == 1 if math.isinf(broken) else targets >= 0).nonzero()[:, 0].tolist():
        changed = logits.clone()
        changed[k] = broken
        assert parameterized_ap_loss(changed, localization, targets, points).isnan()


# ---------------------------------------------------------------------------- who is there


@pytest.mark.parametrize("targets", [[], [0], [-1], [0, 0, 0], [-1, -1], [0, -1]])
@pytest.mark.parametrize("points", ["linear", "square", "sqrt", "sigmoid", curves(0)])
@pytest.mark.parametrize("num_topk", [None, 1])
def test_without_positives_the_loss_is_zero_and_so_are_its_gradients(
    targets: list[int], points: Any, num_topk: int | None
):
    """No elements, no positives, nothing that is not ignored."""
    N = len(targets)
    value, *grads = run([0.5] * N, [0.25] * N, targets, points, num_topk=num_topk)
    assert value == 0
    assert [grad.tolist() for grad in grads] == [[0] * N, [0] * N]


def test_one_positive_alone():
    """It sees itself at x = 1/2: 1 - u + u * 1/2 (1 - u) / (1/2) = 1 - u^2."""
    loss, at_logits, at_localization = run([3.0], [0.25], [1], "linear")
    assert loss == 1 - 0.25**2
    assert at_logits.tolist() == [0]
    assert at_localization.tolist() == [-2 * 0.25]


def test_no_negatives():
    """Two positives 1/2 apart: x = 3/4 and 1/4 of each other, 1/2 of themselves."""
    loss, at_logits, _ = run([0.0, 0.5], [0.5, 1.0], [1, 1], "linear")
    # The first: H2 (1 - u) = 1/2 * 1/2 + 3/4 * 0 over 1/2 + 3/4; the second: 1/4 * 1/2 over 3/4.
    first, second = 0.5 + 0.5 * 0.25 / 1.25, 0 + 1 * 0.125 / 0.75
    assert loss.item() == pytest.approx((first + second) / 2)
    # Only the first, of u = 1/2, is an error where it is above: slope 1/2 * (1 - 1/2) / (3/4).
    assert at_logits.tolist() == pytest.approx([1 / 3 / 2, -1 / 3 / 2])


# ---------------------------------------------------------------------------- where they are


@pytest.mark.parametrize("score", [0.0, -4.6, 50.0, -50.0])
def test_all_scores_equal(score: float):
    """Every x is 1/2: sum H2 (1 - u) is half of (1/2 + 1/4 + 1 + 1), sum H1 half of 4."""
    loss, at_logits, _ = run([score] * 4, [0.5, 0.75, 0, 0], [1, 1, 0, 0], "linear")
    share = (0.5 + 0.25 + 1 + 1) / 4
    assert loss.item() == pytest.approx((0.5 + 0.5 * share + 0.25 + 0.75 * share) / 2)
    # Each negative is pulled down by both positives, with u_i * 1/2 / 2 / P.
    pull = (0.5 + 0.75) / 2 / 2 / 2
    assert at_logits[2:].tolist() == pytest.approx([pull, pull])
    assert at_logits.sum().item() == pytest.approx(0)


@pytest.mark.parametrize("far", [50.0, 1e4, 3e38])
def test_scores_far_from_each_other(far: float):
    """All that is above counts 1, all below 0, and nothing pulls."""
    logits = torch.tensor([-far, far, 0.0], dtype=torch.float64)
    loss, at_logits, _ = run(logits, [0.5, 1.0, 0], [1, 1, 0], "linear")
    # The first sees itself (1/2), the second (1) and the negative (1); the second only itself.
    first = 0.5 + 0.5 * (0.5 * 0.5 + 1 * 0 + 1) / (0.5 + 1 + 1)
    assert loss.item() == pytest.approx((first + 0) / 2)
    assert at_logits.tolist() == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize(
    ("d", "x", "slope"),
    [
        (-1.0, 0.0, 0.25),  # the clip passes gradient at its ends
        (-0.5, 0.25, 0.25),  # on the breakpoint the segment on its left counts
        (-0.5 + 2**-40, None, 0.75),
        (0.5, 0.75, 0.75),
        (1.0, 1.0, 0.25),
        (1.0 + 2**-40, 1.0, 0.0),
        (-1.0 - 2**-40, 0.0, 0.0),
    ],
)
def test_a_score_exactly_on_a_breakpoint(d: float, x: float | None, slope: float):
    """H2 through (0, 0), (1/4, 1/8), (3/4, 7/8), (1, 1): slopes 1/2, 3/2, 1/2, half of it per unit
    of score."""
    points = torch.tensor([IDENTITY] * 5, dtype=torch.float64)
    rows = [torch.tensor([[0, 0], [0.25, 0.125], [0.75, 0.875], [1, 1]]), *points[1:4]]
    loss, at_logits, _ = run([0.0, d], [1.0, 0.0], [1, 0], rows)  # H1 is the step
    above = 0.5 + (1 if d > 0 else 0)
    assert at_logits.tolist() == pytest.approx([-slope / above, slope / above])
    if x is not None:
        height = {0.0: 0, 0.25: 0.125, 0.75: 0.875, 1.0: 1}[x]
        assert loss.item() == pytest.approx(height / above)


# ---------------------------------------------------------------------------- curves


@pytest.mark.parametrize(
    ("points", "d", "height"),
    [
        ([[0, 0], [0.5, 0.25], [0.5, 0.75], [1, 1]], 0.0, 0.25),  # left of the jump at its place
        ([[0, 0], [0.5, 0.25], [0.5, 0.75], [1, 1]], 2**-40, 0.75),
        ([[0, 0], [0, 0.5], [1, 1]], -1.0, 0.5),  # a jump at 0 is the limit from the right
        ([[0, 0], [0, 0.5], [1, 1]], -9.0, 0.5),
        ([[0, 0], [1, 0.5], [1, 1]], 1.0, 0.5),  # a jump at 1 the limit from the left
        ([[0, 0], [1, 0.5], [1, 1]], 9.0, 0.5),
        ([[0, 0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1, 1]], 0.0, 0.5),  # three that coincide
    ],
)
def test_points_that_coincide_are_jumps(points: list[list[float]], d: float, height: float):
    rows = [points, IDENTITY, IDENTITY, IDENTITY]  # u of the positive is 1: only d counts
    loss, *_ = run([0.0, d], [1.0, 0.0], [1, 0], rows)
    above = 0.5 + (0.5 if d == 0 else float(d > 0))
    assert loss.item() == pytest.approx(height / above, abs=1e-9)


def test_flat_parts_pull_nothing():
    """H2 is flat from x = 1/4 to 3/4, so at |d| < 1/2."""
    flat = [[0, 0], [0.25, 0.5], [0.75, 0.5], [1, 1]]
    logits = [0.0, 0.3, -0.4, 0.8]
    _, at_logits, _ = run(logits, [1.0, 0, 0, 0], [1, 0, 0, 0], [flat] + [IDENTITY] * 4)
    assert [grad != 0 for grad in at_logits.tolist()] == [True, False, False, True]


def test_curves_that_are_flat_altogether():
    """H2 = H1 = 1 everywhere: the sum over j is the share of what is missed, whatever the order."""
    ones = [[0, 1], [1, 1]]
    rows = [ones, IDENTITY, IDENTITY, IDENTITY, ones]
    loss, at_logits, _ = run([-9.0, 0.2, 9.0], [0.5, 0, 0], [1, 0, 0], rows)
    assert loss.item() == pytest.approx(0.5 + 0.5 * (0.5 + 1 + 1) / 3)
    assert not at_logits.any()


@pytest.mark.parametrize("height", [0.0, -1.0])
@pytest.mark.parametrize("detach", [True, False])
def test_a_denominator_of_zero_counts_as_its_floor(height: float, detach: bool):
    """H1 = 0 or less everywhere: the sum over j of H2 = 1/2 * (1 - 1/2) is divided by 1e-6."""
    h1 = [[0, height], [1, height]]
    rows = [IDENTITY, IDENTITY, IDENTITY, IDENTITY, h1]
    loss, at_logits, _ = run([0.0], [0.5], [1], rows, detach_denominator=detach)
    assert loss.item() == pytest.approx(0.5 + 0.5 * 0.25 / 1e-6)
    assert at_logits.tolist() == [0]
    # The floor is for each positive alone: at |d| < 1 a second one changes nothing for the first.
    two, *_ = run([0.0, -9.0], [0.5, 0.5], [1, 1], rows)
    second = 0.5 + 0.5 * (0.25 + 1 * 0.5) / 1e-6
    assert two.item() == pytest.approx((loss.item() + second) / 2)


def test_only_some_denominators_are_zero():
    """H1 flat at 0 up to 3/4: the positive on top finds nothing above it, itself included."""
    points = torch.tensor([[0, 0], [0.75, 0.75], [1, 1]], dtype=torch.float64).repeat(5, 1, 1)
    points[4, 1, 1] = 0
    logits = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    targets, localization = torch.tensor([1, 1, 0]), torch.tensor([0.5, 0.25, 0]).double()
    for detach in (True, False):
        assert_equals_oracle(logits, localization, targets, points, detach_denominator=detach)


# ---------------------------------------------------------------------------- localisation scores


@pytest.mark.parametrize("outside", [-0.5, 1.5, -INF, INF])
@pytest.mark.parametrize("points", ["linear", "square", "sqrt", "sigmoid", curves(6)])
def test_localisation_scores_are_clipped(outside: float, points: Any):
    """Of positives and of negatives; outside of [0, 1] they have no gradient."""
    logits, localization, targets = scene(6)
    localization[[0, 20]] = outside
    loss, at_logits, at_localization = run(logits, localization, targets, points)
    inside = localization.clamp(0, 1)
    expected, same_logits, same_localization = run(logits, inside, targets, points)
    assert torch.equal(loss, expected)
    assert torch.equal(at_logits, same_logits)
    assert at_localization[[0, 20]].tolist() == [0, 0]
    rest = torch.ones(len(logits), dtype=torch.bool).index_fill_(0, torch.tensor([0, 20]), False)
    assert torch.equal(at_localization[rest], same_localization[rest])


@pytest.mark.parametrize("element", [0, 20], ids=["positive", "negative"])
@pytest.mark.parametrize("points", ["linear", "sqrt", curves(7)])
def test_a_nan_localisation_score_makes_the_loss_nan(element: int, points: Any):
    logits, localization, targets = scene(7)
    assert targets[element] >= 0
    localization[element] = NAN
    assert parameterized_ap_loss(logits, localization, targets, points).isnan()


# ---------------------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("infinite", [-INF, INF])
@pytest.mark.parametrize("points", ["linear", "square", "sqrt", "sigmoid", curves(9)])
def test_infinite_logits_of_negatives_are_below_or_above_all(infinite: float, points: Any):
    logits, localization, targets = scene(9)
    logits[20:23] = infinite
    assert (targets[20:23] == 0).all()
    if isinstance(points, Tensor):
        points = points.clone()
        points[:, 0, 1] = 0.05  # what lies below every window counts too
    assert_equals_oracle(logits, localization, targets, points)


@pytest.mark.parametrize("points", ["linear", "square", "sqrt", "sigmoid", curves(10)])
@pytest.mark.parametrize("element", [0, 30], ids=["positive", "negative"])
@pytest.mark.parametrize("num_topk", [None, 10])
def test_a_nan_logit_makes_the_loss_nan(points: Any, element: int, num_topk: int | None):
    logits, localization, targets = scene(10)
    logits[element] = NAN
    loss = parameterized_ap_loss(logits, localization, targets, points, num_topk=num_topk)
    assert loss.isnan()


@pytest.mark.parametrize("points", ["linear", "square", "sqrt", "sigmoid", curves(10)])
@pytest.mark.parametrize("value", [-INF, INF])
def test_an_infinite_logit_of_a_positive_makes_the_loss_nan(points: Any, value: float):
    logits, localization, targets = scene(10)
    logits[0] = value
    assert parameterized_ap_loss(logits, localization, targets, points).isnan()


@pytest.mark.parametrize("points", ["linear", "square", "sqrt", "sigmoid", curves(11)])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("element", [0, 1], ids=["logits", "localization"])
def test_what_is_ignored_may_hold_anything(points: Any, element: int, value: float):
    inputs = list(scene(11))
    expected = run(*inputs, points)
    ignored = inputs[2] == -1
    inputs[element] = inputs[element].masked_fill(ignored, value)
    actual = run(*inputs, points)
    assert not any(grad[ignored].any() for grad in actual[1:])
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
