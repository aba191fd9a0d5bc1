"""Every point of the unit cube is a formula, and every formula that fits is a point of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loss import FormulaFamily, build_criterion
from loss.by_head import FamilyByHead, family_of, is_searched
from loss.criterion import value_and_gradients
from loss.formula import (
    BRANCHES,
    CLASSIFICATION,
    MAX_NODES,
    REGRESSION,
    as_data,
    count_nodes,
    parse,
)
from loss.formula_genes import decode, encode
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
    WRITTEN_CROSS_ENTROPY,
)
from tests.loss.test_criterion import batch

FORMULAS = {
    "classification": [CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, FOCAL, CSE_A_CLASSIFICATION,
                       CSE_B_CLASSIFICATION],
    "regression": [IOU, GIOU, CSE_A_REGRESSION, CSE_B_REGRESSION],
}  # fmt: skip


def thetas(dimension: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0, 1), min_size=dimension, max_size=dimension)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BRANCHES), st.integers(1, 48), st.data())
def test_every_theta_is_a_formula_and_comes_back(branch: Any, nodes: int, data: Any) -> None:
    formula = decode(data.draw(thetas(3 * nodes)), branch)
    assert parse(as_data(formula), branch) == formula
    assert decode(encode(formula, branch, nodes), branch) == formula


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
def test_known_losses_fit(branch: Any) -> None:
    for formula in FORMULAS[branch.name]:
        theta = encode(formula, branch, 20)
        assert len(theta) == 60
        assert all(0 < value < 1 for value in theta)
        assert decode(theta, branch) == formula


def test_a_formula_that_doubles_with_every_node_stays_within_the_limit() -> None:
    """Every node adds the one before it to itself; the first adds x to x."""
    theta: list[float] = []
    sizes = []
    for k in range(48):
        argument = (0.5 if k == 0 else 6 + k - 0.5) / (6 + k)
        theta += [0.01, argument, argument]
        formula = decode(theta, CLASSIFICATION)
        assert parse(as_data(formula), CLASSIFICATION) == formula
        sizes.append(count_nodes(formula))
    assert sizes[:6] == [3, 7, 15, 31, 63, 65]
    assert max(sizes) <= MAX_NODES


def test_a_node_by_hand() -> None:
    """Two nodes: exp is the 10th of 21 operators, then sub (2nd) of node 1 and u."""
    exp, sub = 9.5 / 21, 1.5 / 21
    theta = [exp, 0.5 / 6, 0.9, sub, 6.5 / 7, 1.5 / 7]
    assert decode(theta, CLASSIFICATION) == ("sub", ("exp", "x"), "y")
    assert decode([0.0, 1.0, 0.0], REGRESSION) == ("add", 3, "i")


def test_names_start_and_settings() -> None:
    family = FormulaFamily(nodes=5)
    assert family.names[:4] == ("cls.1.op", "cls.1.a", "cls.1.b", "cls.2.op")
    assert family.names[15:18] == ("reg.1.op", "reg.1.a", "reg.1.b")
    assert len(family.names) == len(family.start) == 30
    found = family.settings(family.start)
    assert found == {
        "type": "formula",
        "classification": as_data(CROSS_ENTROPY),
        "regression": as_data(GIOU),
        "activation": "sigmoid",
        "cls_weight": 1.0,
        "box_weight": 2.0,
        "alpha": None,
    }
    assert not is_searched(found)
    longer = FormulaFamily(nodes=9)
    written = longer.settings(longer.start)["classification"]
    assert parse(written, CLASSIFICATION) == WRITTEN_CROSS_ENTROPY
    softmax = FormulaFamily(activation="softmax")
    assert softmax.settings(softmax.start)["classification"] == as_data(SOFTMAX_CROSS_ENTROPY)


def test_one_branch_alone() -> None:
    fixed = {"type": "formula", "regression": as_data(IOU), "nodes": 6}
    family = family_of(fixed)
    assert is_searched(fixed)
    assert {name.split(".")[0] for name in family.names} == {"cls"}
    assert family.settings([0.3] * 18)["regression"] == as_data(IOU)
    assert family.theta({"regression": as_data(IOU)}) == family.start
    with pytest.raises(ValueError, match=r"the regression is 2 - .*; here it is 1 - i / u"):
        family.theta({"regression": as_data(GIOU)})


WRONG = {
    "another criterion": ({"type": "focal_giou"}, "expected a criterion of type formula"),
    "another activation": ({"activation": "softmax"}, "formulas are of softmax scores"),
    "too large": ({"classification": as_data(FOCAL)}, "takes 18 nodes; this family has 5"),
    "no operator": ({"classification": "x"}, "x has no operator"),
    "no formula": ({"regression": ["neg", "x"]}, "regression > neg: 'x' is neither"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_no_theta_stands_for(case: str) -> None:
    given, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        FormulaFamily(nodes=5).theta(given)


OPTIONS = {
    "no nodes": ({"nodes": 0}, "nodes is 0; expected 1 to 48"),
    "a fraction of one": ({"nodes": 2.5}, "nodes is 2.5; expected a whole number"),
    "too few nodes": ({"nodes": 2}, "takes 3 nodes; this family has 2"),
    "nothing to search": (
        {"classification": ["neg", "x"], "regression": ["neg", "i"]}, "nothing to search"
    ),
    "an unknown activation": ({"activation": "relu"}, "activation is 'relu'"),
    "a negative weight": ({"box_weight": -1}, "box_weight is -1"),
    "alpha of softmax": ({"alpha": 0.5, "activation": "softmax"}, "alpha is for sigmoid scores"),
    "an unknown option": ({"depth": 3}, "was given depth; its options are nodes, "),
    "no formula": ({"classification": ["sin"]}, "sin takes 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_are_wrong(case: str) -> None:
    options, message = OPTIONS[case]
    with pytest.raises(ValueError, match=message):
        family_of({"type": "formula", **options})


def test_thetas_that_are_wrong() -> None:
    family = FormulaFamily()
    with pytest.raises(ValueError, match="theta has 2 coordinates; expected 120"):
        family.settings([0.5, 0.5])
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        family.settings([float("nan"), *family.start[1:]])


def test_genes_by_head_keep_their_names() -> None:
    family = FamilyByHead({"rpn": {"type": "focal_giou"}, "rcnn": {"type": "formula", "nodes": 4}})
    assert family.names[0] == "rcnn.cls.1.op"
    assert family.settings(family.start)["rcnn"]["regression"] == as_data(GIOU)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.25}, {"activation": "softmax"}])
def test_the_criterion_does_what_is_expected_of_theta(options: dict[str, Any]) -> None:
    """Over random formulas: the proof in every trial must hold for whatever a search draws."""
    family = FormulaFamily(cls_weight=0.5, **options)
    generator = torch.Generator().manual_seed(3)
    given = batch("cse_autoloss_a" if options.get("activation") else "formula")
    quality = torch.rand(len(given.pos), generator=generator)
    batches = [given, replace(given, quality=quality, avg_factor=9.0)]
    moved = 0
    for draw in torch.rand(20, len(family.names), generator=generator).tolist():
        criterion = build_criterion(family.settings(draw))
        for each in batches:
            expected = family.expected(draw, each)
            torch.testing.assert_close(
                value_and_gradients(criterion, each), expected, equal_nan=True, rtol=1e-4, atol=1e-5
            )
            moved += bool(expected[1].any())
    assert moved > 5
