"""What formulas have to pass: known losses do, their opposites do not."""

from collections import Counter
from typing import Any

import pytest
import torch

from loss.by_head import FamilyByHead
from loss.formula import Expression, as_data
from loss.formula_convergence import diverges, strays
from loss.formula_criterion import FormulaLoss
from loss.formula_family import FormulaFamily
from loss.formula_filters import STAGES, FormulaScreen, gradients_on_probes, reject
from loss.formula_known import (
    CROSS_ENTROPY,
    CSE_A_CLASSIFICATION,
    CSE_A_REGRESSION,
    CSE_B_CLASSIFICATION,
    CSE_B_REGRESSION,
    FOCAL,
    GIOU,
    IOU,
    SOFTMAX_CROSS_ENTROPY,
)

SCORES = {
    "CE": (CROSS_ENTROPY, "sigmoid"),
    "Focal": (FOCAL, "sigmoid"),
    "B": (CSE_B_CLASSIFICATION, "sigmoid"),
    "softmax CE": (SOFTMAX_CROSS_ENTROPY, "softmax"),
    "A": (CSE_A_CLASSIFICATION, "softmax"),
}
BOXES = {"IoU": IOU, "GIoU": GIOU, "A": CSE_A_REGRESSION, "B": CSE_B_REGRESSION}
PAIRS = [("CE", "IoU"), ("Focal", "GIoU"), ("B", "B"), ("softmax CE", "GIoU"), ("A", "A")]


def settings(
    classification: Expression, regression: Expression, activation: str = "sigmoid", **more: Any
) -> dict[str, Any]:
    formulas = {"classification": as_data(classification), "regression": as_data(regression)}
    return {"type": "formula", "activation": activation, **formulas, **more}


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_known_losses_pass(pair: tuple[str, str]) -> None:
    assert reject(settings(SCORES[pair[0]][0], BOXES[pair[1]], SCORES[pair[0]][1])) is None


def test_the_released_weights_pass_too() -> None:
    assert (
        reject(settings(CSE_B_CLASSIFICATION, CSE_B_REGRESSION, alpha=0.25, box_weight=1)) is None
    )


@pytest.mark.parametrize("name", SCORES)
def test_a_classification_with_its_sign_flipped_does_not(name: str) -> None:
    formula, activation = SCORES[name]
    verdict = reject(settings(("neg", formula), IOU, activation))
    assert verdict is not None
    assert verdict.startswith("convergence: classification: it falls where it should rise")


@pytest.mark.parametrize("name", BOXES)
def test_a_regression_with_its_sign_flipped_does_not(name: str) -> None:
    verdict = reject(settings(CROSS_ENTROPY, ("neg", BOXES[name])))
    assert verdict is not None
    assert verdict.startswith("convergence: regression: it rises while a box nears its target")


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("constant", [("add", 1, 2), ("log", ("add", "y", "w")), ("sub", "x", "x")])
def test_a_constant_classification_does_not(constant: Expression, activation: str) -> None:
    verdict = reject(settings(constant, IOU, activation))
    assert verdict is not None and verdict.startswith(
        "values: the classification of positives is a"
    )


def test_a_constant_regression_does_not() -> None:
    for constant in (("add", 1, 2), ("div", "i", "i")):
        verdict = reject(settings(CROSS_ENTROPY, constant))
        assert verdict == "values: the regression is a constant"


P = ("sigmoid", "x")
FAULTS: dict[str, Expression] = {
    # Nothing pushes the scores of negatives down.
    "gradient is dead with the score of a positive's other class": (
        *("neg", ("mul", "y", ("log", P))),
    ),
    # x (1 - 2y): the gradient of a score that is right stays what it was.
    "does not go to 0 with the score of a positive of IoU 1": (
        *("sub", "x", ("mul", 2, ("mul", "x", "y"))),
    ),
    # Below an IoU of 2/3 a positive is pushed down.
    "falls where it should rise with the score of a positive of IoU 0.5": (
        *("mul", ("sub", ("mul", 3, "w"), ("mul", 2, "y")), CROSS_ENTROPY),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_convergence_says_what_is_wrong(fault: str) -> None:
    reason = diverges(FAULTS[fault], "sigmoid")
    assert reason is not None and fault in reason


def test_a_score_that_is_right_must_not_be_drawn_back() -> None:
    """(p - 1/2)^2 for a positive, and cross-entropy elsewhere: least at a logit of 0."""
    half = ("sub", P, ("div", 1, 2))
    drawn = ("mul", "y", ("mul", 3, ("mul", half, half)))
    reason = diverges(("add", drawn, ("mul", ("sub", 1, "y"), ("softplus", "x"))), "sigmoid")
    assert reason is not None and "falls" not in reason


def test_what_rounding_leaves_of_a_constant_is_no_gradient() -> None:
    rest = ("mul", ("sub", 1, "y"), ("log", ("div", "x", "x")))
    reason = diverges(("neg", ("add", ("mul", "y", ("log", P)), rest)), "sigmoid")
    assert reason is not None


def test_boxes_must_near_their_targets() -> None:
    assert strays(("sub", "e", "i")) is None
    assert strays(("neg", "i")) == "it is flat while a box nears its target"
    # |i/u - 1/2| is least at an IoU of 1/2, and the reason is no sign that is wrong all the way.
    assert strays(("abs", ("sub", ("div", "i", "u"), ("div", 1, 2)))) is not None
    # The area of what encloses both shrinks while a box grows into its target: no signal there.
    assert strays(("sqrt", "e")) is not None


def test_the_background_has_to_be_classified_too() -> None:
    verdict = reject(settings(("mul", "y", ("softplus", ("neg", "x"))), IOU))
    assert verdict == "values: the classification of the background is a constant"


def test_a_branch_that_is_not_trained_is_not_looked_at() -> None:
    """Boxes alone do not make an AP, but that is what the simulation says."""
    verdict = reject(settings(("add", 1, 2), GIOU, cls_weight=0))
    assert verdict is not None and verdict.startswith("simulation")


def test_gradients_must_not_explode() -> None:
    verdict = reject(settings(("mul", CROSS_ENTROPY, ("exp", ("exp", 3))), IOU))
    assert verdict is not None
    assert verdict.startswith("values: the classification of positives has a gradient of 5")


def test_the_simulation_rejects_what_the_others_cannot_see() -> None:
    """Cross-entropy in which a positive counts e^9 times less than a negative."""
    found = ("mul", ("div", "y", ("exp", ("mul", 3, 3))), ("softplus", ("neg", "x")))
    uneven = ("add", found, ("mul", ("sub", 1, "y"), ("softplus", "x")))
    assert diverges(uneven, "sigmoid") is None
    verdict = reject(settings(uneven, IOU))
    assert verdict is not None and verdict.startswith("simulation: AP 0.0")


def test_a_hinge_passes() -> None:
    """relu(1 - x) and relu(1 + x): the background that a head begins with has no gradient."""
    found = ("mul", "y", ("relu", ("sub", 1, "x")))
    missed = ("mul", ("sub", 1, "y"), ("relu", ("add", 1, "x")))
    assert reject(settings(("add", found, missed), GIOU)) is None


def test_what_is_no_formula_is_not_looked_at() -> None:
    assert reject({"type": "focal_giou"}) is None


# --- duplicates ---------------------------------------------------------------------------------

SAME = [
    (["sub", ["softplus", "x"], ["mul", "x", "y"]], ["sub", ["softplus", "x"], ["mul", "y", "x"]]),
    (["log", ["sigmoid", "x"]], ["neg", ["softplus", ["neg", "x"]]]),
    (["mul", "x", "y"], ["add", ["mul", "x", "y"], 3]),
    (["mul", "w", "x"], ["mul", ["mul", "w", "y"], "x"]),
]
OTHER = [
    (["mul", "x", "y"], ["mul", "x", "w"]),
    (["sigmoid", "x"], ["gd", "x"]),
    (["mul", 2, "x"], "x"),
]


def gradients(formula: Any) -> torch.Tensor:
    return gradients_on_probes(FormulaLoss(classification=formula))


@pytest.mark.parametrize("pair", SAME)
def test_what_trains_alike_has_the_same_gradients(pair: tuple[Any, Any]) -> None:
    torch.testing.assert_close(*map(gradients, pair), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("pair", OTHER)
def test_what_does_not_has_others(pair: tuple[Any, Any]) -> None:
    one, other = map(gradients, pair)
    assert ((one - other).abs() > 1e-3 * other.abs().max()).any()


def test_a_screen_knows_what_was_accepted() -> None:
    family = FormulaFamily(nodes=8)
    screen = FormulaScreen(family)
    assert screen(family.start) is None
    assert screen(family.start) is None  # Asked, not tried.
    screen.accepted(family.start)
    twin = as_data(("sub", ("softplus", "x"), ("mul", "y", "x")))
    for theta in (family.start, family.theta({"classification": twin})):
        verdict = screen(theta)
        assert verdict is not None and verdict.startswith("duplicate: ")
    assert screen(family.theta({"regression": as_data(IOU)})) is None


def test_a_screen_of_several_heads() -> None:
    """Curves that differ beside a formula that does not are no duplicate."""
    family = FamilyByHead(
        {"rpn": {"type": "parameterized_ap"}, "rcnn": {"type": "formula", "nodes": 8}}
    )
    screen, other = FormulaScreen(family), [*family.start]
    other[family.names.index("rpn.H1.x1")] += 0.1
    screen.accepted(family.start)
    assert (screen(family.start) or "").startswith("duplicate")
    assert screen(other) is None
    other[family.names.index("rcnn.cls.8.op")] = 0.999  # cos
    assert (screen(other) or "").endswith("(rcnn)")


def test_random_formulas_hardly_ever_pass() -> None:
    family = FormulaFamily()
    screen, generator = FormulaScreen(family), torch.Generator().manual_seed(0)
    thetas = torch.rand(40, len(family.names), generator=generator, dtype=torch.float64)
    verdicts = [screen(theta.numpy()) for theta in thetas]
    stages = Counter("passed" if each is None else each.partition(": ")[0] for each in verdicts)
    assert stages["values"] > 25
    assert set(stages) <= {*STAGES, "passed"}
    assert verdicts == [FormulaScreen(family)(theta) for theta in thetas.tolist()]
