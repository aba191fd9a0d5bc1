"""Formulas as a criterion: beside the losses that they are, and the presets."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from loss import DetectionBatch, FormulaFamily, build_criterion, criterion_title
from loss.criterion import value_and_gradients
from loss.formula import as_data
from loss.formula_known import CSE_A_CLASSIFICATION, CSE_A_REGRESSION, FOCAL, GIOU, IOU
from paploss.configs import find
from paploss.files import read_yaml
from tests.loss.test_criterion import batch

CE_IOU = {"type": "standard", "classification": "cross_entropy", "boxes": {"iou": 0.7}}
SOFTMAX = {**CE_IOU, "activation": "softmax"}


def given(softmax: bool = False) -> DetectionBatch:
    """With a quality, and an `avg_factor` of its own."""
    made = batch("cse_autoloss_a" if softmax else "focal_giou")
    return replace(made, quality=torch.linspace(0.2, 1, len(made.pos)), avg_factor=11.0)


PAIRS = {
    "CE + IoU": ({"regression": as_data(IOU), "box_weight": 0.7}, CE_IOU),
    "softmax CE + IoU": (
        {"regression": as_data(IOU), "box_weight": 0.7, "activation": "softmax"}, SOFTMAX
    ),
    "Focal + GIoU": (
        {"classification": as_data(FOCAL), "cls_weight": 3.0},
        {"type": "standard", "classification": "focal", "boxes": {"giou": 2.0}, "cls_weight": 3.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.parametrize("plain", [True, False])
def test_it_is_the_loss_that_the_formulas_say(case: str, plain: bool) -> None:
    """Sums and divisors too, with and without a batch's own."""
    options, other = PAIRS[case]
    each = given("softmax" in case)
    if plain:
        each = replace(each, quality=None, avg_factor=None)
    ours = value_and_gradients(build_criterion({"type": "formula", **options}), each)
    torch.testing.assert_close(ours, value_and_gradients(build_criterion(other), each))


def preset(letter: str) -> dict[str, Any]:
    return read_yaml(find("presets", f"formula_cse_autoloss_{letter}"))


def test_preset_a_is_the_loss_by_hand() -> None:
    each = replace(given(softmax=True), quality=None)
    ours = value_and_gradients(build_criterion(preset("a")), each)
    by_hand = value_and_gradients(build_criterion({"type": "cse_autoloss_a"}), each)
    torch.testing.assert_close(ours, by_hand)
    family = FormulaFamily(activation="softmax")
    assert family.settings(family.theta(preset("a")))["classification"] == as_data(
        CSE_A_CLASSIFICATION
    )
    assert preset("a")["regression"] == as_data(CSE_A_REGRESSION)


def test_preset_b_is_the_loss_by_hand() -> None:
    """Weighted by IoU, as the released heads do."""
    each = given()
    by_hand = build_criterion({"type": "cse_autoloss_b"})
    from loss.localization import iou_score

    fit = iou_score(each.pred_boxes, each.target_boxes).detach()
    ours = value_and_gradients(build_criterion(preset("b")), replace(each, quality=fit))
    torch.testing.assert_close(ours, value_and_gradients(by_hand, each))
    family = FormulaFamily(nodes=17, alpha=0.25)
    again = family.settings(family.theta(preset("b")))
    assert again["classification"] == preset("b")["classification"]
    assert again["regression"] == preset("b")["regression"]


def test_a_dot_sums_once_whatever_alpha_is() -> None:
    dotted = ["neg", ["dot", "y", ["log", ["sigmoid", "x"]]]]
    plain = build_criterion({"type": "formula", "classification": dotted})(given())
    weighted = build_criterion({"type": "formula", "classification": dotted, "alpha": 0.25})
    assert torch.equal(weighted(given())["loss_cls"], plain["loss_cls"])


def test_a_formula_that_reads_nothing_has_a_gradient_of_zeros() -> None:
    constant = build_criterion(
        {"type": "formula", "classification": ["add", 1, 2], "regression": ["neg", 1]}
    )
    loss, d_logits, d_boxes = value_and_gradients(constant, batch("formula"))
    # 20 anchors count and have one value each; 6 boxes have -1 each, with a weight of 2.
    assert loss.item() == pytest.approx((20 * 3 - 2 * 6) / 6)
    assert not d_logits.any() and not d_boxes.any()


def test_an_iou_sends_no_gradient() -> None:
    each = batch("formula")
    criterion = build_criterion({"type": "formula", "classification": ["mul", "w", "x"]})
    (found,) = torch.autograd.grad(criterion(each)["loss_cls"], each.pred_boxes, allow_unused=True)
    assert found is None or not found.any()


def test_half_precision_is_computed_in_float32() -> None:
    each = batch("formula")
    half = replace(each, logits=each.logits.detach().bfloat16())
    loss, d_logits, _ = value_and_gradients(build_criterion({"type": "formula"}), half)
    expected = value_and_gradients(
        build_criterion({"type": "formula"}), replace(each, logits=half.logits.float())
    )
    torch.testing.assert_close(loss.float(), expected[0], rtol=1e-2, atol=0)
    torch.testing.assert_close(d_logits.float(), expected[1], rtol=1e-2, atol=1e-3)


BAD = {
    "a formula": ({"regression": ["neg", "x"]}, "regression > neg: 'x' is neither"),
    "a weight": ({"cls_weight": float("nan")}, "cls_weight is nan"),
    "a weight in words": ({"box_weight": "2"}, "box_weight is '2'"),
    "alpha": ({"alpha": 2}, "alpha is 2; expected 0 to 1"),
    "an option of the search": ({"nodes": 8}, "was given nodes; its options are classification"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_out_of_range(case: str) -> None:
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build_criterion({"type": "formula", **options})


def test_title() -> None:
    assert criterion_title({"type": "formula", "nodes": 8}) == "Formula"
    assert GIOU == ("sub", 2, ("add", ("div", "i", "u"), ("div", "u", "e")))
