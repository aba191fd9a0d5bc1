"""Parameterized AP Loss: by hand, against the released code, and against the dense oracle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loss import CURVES, parameterized_ap_loss
from loss.parameterized_ap import Curves
from tests import oracles
from tests.scenes import curves, scene
from tests.watch import Memory

IDENTITY = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


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
        cases = json.loads(str(arrays["meta"]))
    return [pytest.param(c, id=c["name"]) for c in cases if c["kind"] == "pap"]


def reference(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Any, list[Tensor]]:
    """Logits, localisation scores, targets, control points; and loss and gradients expected."""
    with np.load(Path(__file__).parents[1] / "reference" / "losses.npz") as arrays:
        read = {
            name: torch.from_numpy(arrays[f"c{case['i']:02d}_{name}"])
            for name in ("logits", "ious", "targets", "ctrl", "loss64", "glogits64", "gious64")
        }
    logits, ious, targets, ctrl, *expected = read.values()
    points = ctrl.view(-1, 6, 2) if case["form"] == "searched" else case["form"]
    return logits, ious, targets, points, expected


def test_every_form_of_the_released_code_is_among_its_cases():
    forms = {case.values[0]["form"] for case in reference_cases()}
    assert forms == {"searched", "linear", "square"}


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
    actual = oracles.value_and_grads(
        lambda s, u: oracles.pap_loss(s, u, targets, points, num_topk=case["num_topk"]),
        logits.double(),
        ious.double(),
    )
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-7)


# ---------------------------------------------------------------------------- the oracle


def assert_equals_oracle(
    logits: Tensor, localization: Tensor, targets: Tensor, points: Any, **options: Any
) -> None:
    """Value and both gradients."""
    actual = oracles.value_and_grads(
        lambda s, u: parameterized_ap_loss(s, u, targets, points, **options), logits, localization
    )
    expected = oracles.value_and_grads(
        lambda s, u: oracles.pap_loss(s, u, targets, points, **options), logits, localization
    )
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-9)


@pytest.mark.parametrize("positives", [1, 40])
@pytest.mark.parametrize("segments", [1, 3, 5, 7])
@pytest.mark.parametrize("rows", [4, 5, 1])
@pytest.mark.parametrize("detach", [True, False])
def test_any_number_of_segments(positives: int, segments: int, rows: int, detach: bool):
    """Five curves, four and the step, or one for all."""
    logits, localization, targets = scene(segments, count=300, positives=positives)
    points = curves(segments, rows, segments)
    assert_equals_oracle(logits, localization, targets, points, detach_denominator=detach)


def test_rows_of_different_lengths():
    logits, localization, targets = scene(1, count=200)
    rows = [curves(k, 1, segments)[0] for k, segments in enumerate((3, 7, 1, 5, 2))]
    assert_equals_oracle(logits, localization, targets, rows)
    as_lists = [row.tolist() for row in rows]
    listed = parameterized_ap_loss(logits, localization, targets, as_lists)
    assert torch.equal(listed, parameterized_ap_loss(logits, localization, targets, rows))


@pytest.mark.parametrize("form", oracles.FORMS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("num_topk", [None, 100])
def test_the_forms_of_table_2(form: str, detach: bool, num_topk: int | None):
    logits, localization, targets = scene(2, count=300, positives=20)
    options = {"detach_denominator": detach, "num_topk": num_topk}
    assert_equals_oracle(logits, localization, targets, form, **options)


def test_linear_is_the_identity():
    inputs = scene(3)
    linear = parameterized_ap_loss(*inputs, "linear")
    assert torch.equal(linear, parameterized_ap_loss(*inputs, IDENTITY.expand(5, 2, 2)))
    assert torch.equal(linear, parameterized_ap_loss(*inputs, IDENTITY[None]))


def test_curves_may_be_prepared_once():
    inputs, points = scene(4), curves(4)
    prepared = Curves.from_control_points(points)
    assert torch.equal(
        parameterized_ap_loss(*inputs, prepared), parameterized_ap_loss(*inputs, points)
    )


@pytest.mark.parametrize("num_topk", [1, 2, 7, 20, 55, 60, 1000])
def test_only_the_highest_are_ranked(num_topk: int):
    """Positives outside of them stay in the sum over i; ignored elements take no place."""
    logits, localization, targets = scene(3)
    logits[-5:] += 10
    assert_equals_oracle(logits, localization, targets, curves(3), num_topk=num_topk)


def test_a_negative_at_minus_infinity_is_ranked_above_what_is_ignored():
    """Three places for three scores; two are ignored, and one of these is at -inf too."""
    logits = torch.tensor([0.0, 1.0, -torch.inf, -torch.inf, 9.0], dtype=torch.float64)
    localization, targets = torch.zeros(5).double(), torch.tensor([1, 0, -1, 0, -1])
    points = curves(5)
    points[:, 0, 1] = 0.25  # what lies below every window counts too
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        assert_equals_oracle(logits[order], localization, targets[order], points, num_topk=3)


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


# ---------------------------------------------------------------------------- cost


def cost(count: int, positives: int) -> Memory:
    """Of the forward and the backward, in float32."""
    logits, localization, targets = scene(0, count, positives)
    logits, localization = (x.float().requires_grad_() for x in (logits, localization))
    with Memory() as memory:
        parameterized_ap_loss(logits, localization, targets, curves(0)).backward()
    return memory


def test_makes_no_pair_matrix_and_loops_over_no_positives():
    """Of 2 million scores and 500 positives, the matrix would have 8 GB."""
    count, table, bytes_per_score = 2_000_000, 1 << 20, 64
    few, many = cost(count, 5), cost(count, 500)
    assert many.largest == count
    # The look-up table for bins is of limited size, and of no concern beside scores.
    assert many.peak <= bytes_per_score * count + 8 * table
    assert many.peak <= 1.01 * few.peak
    assert many.calls <= 1.1 * few.calls


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("shape", [(5,), (6, 1)])
def test_shapes_that_differ_are_an_error(shape: tuple[int, ...]):
    six = torch.zeros(6)
    with pytest.raises(ValueError, match=r"one shape \[N\]"):
        parameterized_ap_loss(six, torch.zeros(shape), six, "linear")


@pytest.mark.parametrize("num_topk", [0, -1])
def test_a_cap_of_nothing_is_an_error(num_topk: int):
    with pytest.raises(ValueError, match=f"num_topk is {num_topk}; expected at least 1"):
        parameterized_ap_loss(*scene(0), "linear", num_topk=num_topk)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("cubic", "unknown form 'cubic'; known: 'linear', 'square', 'sqrt', 'sigmoid'"),
        (curves(0, rows=3), "3 curves"),
        (curves(0, rows=2), "2 curves"),
        ([], "0 curves"),
        (dict(zip(CURVES[:4], curves(0), strict=False)), "H1"),
        (dict(zip((*CURVES, "H3"), curves(0, rows=6), strict=True)), "H3"),
        (curves(0).flatten(1), "shape"),
        (curves(0).flip(1), "begin at 0"),
        (curves(0) * torch.tensor([1.0, torch.nan]), "NaN"),
    ],
)
def test_control_points_that_are_no_curves(points: Any, message: str):
    with pytest.raises(ValueError, match=message):
        parameterized_ap_loss(*scene(0), points)
