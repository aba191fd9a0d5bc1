"""Formulas as data: what is read, what is refused and where, how it reads, what it is worth."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loss.classification import sigmoid_focal_loss
from loss.cse_autoloss import (
    cse_autoloss_a_classification,
    cse_autoloss_a_regression,
    cse_autoloss_b_classification,
    cse_autoloss_b_regression,
)
from loss.formula import (
    BRANCHES,
    CLASSIFICATION,
    MAX_DEPTH,
    MAX_NODES,
    REGRESSION,
    Branch,
    Expression,
    as_data,
    count_nodes,
    evaluate,
    parse,
    text,
)
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
from loss.formula_operators import OPERATORS
from loss.localization import areas, iou_and_giou

SCORES = (
    *(CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY, FOCAL),
    *(CSE_A_CLASSIFICATION, CSE_B_CLASSIFICATION),
)
BOXES = (IOU, GIOU, CSE_A_REGRESSION, CSE_B_REGRESSION)
KNOWN = [*((f, CLASSIFICATION) for f in SCORES), *((f, REGRESSION) for f in BOXES)]


def expressions(branch: Branch) -> st.SearchStrategy[Expression]:
    def grown(smaller: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            [
                st.tuples(st.just(name), *[smaller] * OPERATORS[name].arity)
                for name in branch.operators
            ]
        )

    return st.recursive(st.sampled_from(branch.leaves), grown, max_leaves=12)


ANY = st.sampled_from(BRANCHES).flatmap(lambda b: st.tuples(expressions(b), st.just(b)))


# --- reading ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(ANY)
def test_what_is_written_is_read_back(case: tuple[Expression, Branch]) -> None:
    formula, branch = case
    assert parse(yaml.safe_load(yaml.safe_dump(as_data(formula))), branch) == formula


BAD = {
    "an unknown operator": (["neg", ["root", "x"]], r"classification > neg: 'root' is no operator"),
    "an unknown input": (["mul", "x", "i"], r"classification > mul\[2\]: 'i' is neither"),
    "another constant": (["add", 4, "x"], r"add\[1\]: 4 is neither"),
    "a fraction": (["add", 1.0, "x"], r"1.0 is neither"),
    "a truth": (["add", True, "x"], r"True is neither"),
    "nothing": ([], r"None is no operator"),
    "no list": (None, r"classification: None is neither"),
    "a section": ({"neg": "x"}, r"is neither"),
    "too few": (["add", "x"], r"add takes 2, got 1 arguments"),
    "too many": (["neg", "x", "y"], r"neg takes 1, got 2 arguments"),
    "code": ("__import__('os')", r"is neither an input"),
    "an operator as name": ([["neg"], "x"], r"\['neg'\] is no operator"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_formula_is_refused_with_its_place(case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        parse(data, CLASSIFICATION)


def test_boxes_have_no_classes() -> None:
    with pytest.raises(ValueError, match="regression > neg: softmax is over classes"):
        parse(["neg", ["softmax", "i"]], REGRESSION)


def test_large_ones_are_refused() -> None:
    deep: Any = "x"
    for _ in range(MAX_DEPTH - 1):
        deep = ["neg", deep]
    assert count_nodes(parse(deep, CLASSIFICATION)) == MAX_DEPTH
    with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} nodes deep"):
        parse(["neg", deep], CLASSIFICATION)
    doubled: Any = "x"
    for _ in range(40):  # 2^41 nodes if it were written out
        doubled = ["add", doubled, doubled]
    with pytest.raises(ValueError, match=f"more than {MAX_NODES} nodes"):
        parse(doubled, CLASSIFICATION)


# --- text ---------------------------------------------------------------------------------------


def test_text_of_known_ones() -> None:
    assert text(SOFTMAX_CROSS_ENTROPY) == "-dot(y, log(softmax(x)))"
    assert text(GIOU) == "2 - (i / u + u / e)"
    assert text(CSE_A_REGRESSION) == "1 - i / u + (1 - (i + 2) / e)"


def of_text(written: str, values: dict[str, float]) -> float:
    """What Python makes of a text, with numbers for the inputs."""
    names = {
        "abs": abs,
        "sin": math.sin,
        "tanh": math.tanh,
        "softplus": lambda x: math.log1p(math.exp(x)),
    }
    return float(eval(written, {"__builtins__": {}}, names | values))


@settings(max_examples=50, deadline=None)
@given(expressions(CLASSIFICATION))
def test_text_means_what_the_formula_does(formula: Expression) -> None:
    """Parentheses: read by Python's rules the text has the same value."""
    plain = {"add", "sub", "mul", "neg", "abs", "sin", "tanh"}

    def only(part: Expression) -> Expression:
        if not isinstance(part, tuple):
            return part
        name, *arguments = part
        if name not in plain:
            name = "sub" if OPERATORS[name].arity == 2 else "neg"
        return (name, *map(only, arguments))

    formula = only(formula)
    values = {"x": 0.7, "y": -1.3, "w": 0.4}
    inputs = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in values.items()}
    expected = of_text(text(formula), values)
    assert evaluate(formula, inputs).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


# --- values -------------------------------------------------------------------------------------


def scores(n: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [n, columns] with a gradient, labels [n], overlaps [n]."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(n, columns, generator=generator, dtype=torch.float64)
    labels = torch.arange(n) % columns
    return logits.requires_grad_(), labels, torch.rand(n, generator=generator).double()


def same(ours: torch.Tensor, expected: torch.Tensor, leaf: torch.Tensor) -> None:
    """Values, and gradients at `leaf`."""
    torch.testing.assert_close(ours, expected)
    (a,) = torch.autograd.grad(ours.sum(), leaf, retain_graph=True)
    (b,) = torch.autograd.grad(expected.sum(), leaf, retain_graph=True)
    torch.testing.assert_close(a, b)


def test_softmax_formulas_are_the_losses() -> None:
    x, labels, fit = scores(40, 5)
    y, w = F.one_hot(labels, 5).double(), fit[:, None].expand(40, 5)
    inputs = {"x": x, "y": y, "w": w}
    expected = F.cross_entropy(x, labels, reduction="none")
    same(evaluate(SOFTMAX_CROSS_ENTROPY, inputs)[:, 0], expected, x)
    expected = cse_autoloss_a_classification(x, labels, fit)
    same(evaluate(CSE_A_CLASSIFICATION, inputs)[:, 0], expected, x)


def test_sigmoid_formulas_are_the_losses() -> None:
    x, labels, fit = scores(40, 3)
    y = F.one_hot(labels, 3).double()
    w = fit[:, None] * y
    inputs = {"x": x, "y": y, "w": w}
    expected = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    same(evaluate(CROSS_ENTROPY, inputs), expected, x)
    same(evaluate(WRITTEN_CROSS_ENTROPY, inputs), expected, x)
    same(evaluate(FOCAL, inputs), sigmoid_focal_loss(x, y, 0.25, 2.0), x)
    same(evaluate(CSE_B_CLASSIFICATION, inputs), cse_autoloss_b_classification(x, y, w), x)


def test_box_formulas_are_the_losses() -> None:
    generator = torch.Generator().manual_seed(1)
    low = 100 * torch.rand(50, 2, generator=generator, dtype=torch.float64)
    target = torch.cat([low, low + 5 + 80 * torch.rand(50, 2, generator=generator)], 1)
    boxes = (target + 15 * torch.randn(50, 4, generator=generator)).requires_grad_()
    i, u, e = areas(boxes, target)
    inputs = {"i": i[:, None], "u": u.clamp(min=1)[:, None], "e": e.clamp(min=1)[:, None]}
    iou, giou = iou_and_giou(boxes, target)
    for formula, expected in {
        IOU: 1 - iou,
        GIOU: 1 - giou,
        CSE_A_REGRESSION: cse_autoloss_a_regression(boxes, target),
        CSE_B_REGRESSION: cse_autoloss_b_regression(boxes, target),
    }.items():
        same(evaluate(formula, inputs)[:, 0], expected, boxes)


@pytest.mark.parametrize(
    "written",
    [
        ["log", ["sigmoid", "x"]],
        ["log", ["sub", 1, ["sigmoid", "x"]]],
        ["log", ["add", 1, ["neg", ["sigmoid", "x"]]]],
        ["log", ["add", ["neg", ["sigmoid", "x"]], 1]],
        ["log", ["softmax", "x"]],
    ],
)
def test_logarithms_of_scores_teach_however_wrong_the_score_is(written: Any) -> None:
    """In float32 a sigmoid of 20 is 1, and the logarithm of the rest a constant."""
    formula = parse(written, CLASSIFICATION)
    sign = -1 if text(formula) == "log(sigmoid(x))" or "softmax" in str(written) else 1
    x = torch.tensor([[sign * 60.0, 0.0]], requires_grad=True)
    value = evaluate(formula, {"x": x})[0, 0]
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == pytest.approx(-60)
    assert gradient[0, 0].item() == pytest.approx(-sign)


@settings(max_examples=40, deadline=None)
@given(ANY)
def test_a_formula_of_finite_inputs_is_finite(case: tuple[Expression, Branch]) -> None:
    formula, branch = case
    generator = torch.Generator().manual_seed(0)
    if branch is CLASSIFICATION:
        x, y, w = torch.randn(3, 6, 4, generator=generator)
        inputs = {"x": 20 * x, "y": (y > 0).float(), "w": w.sigmoid()}
    else:
        i, u, e = torch.tensor([0.0, 1.0, 1e6]).repeat(3, 2, 1)[:, :, :1] + torch.rand(3, 2, 1)
        inputs = {"i": i, "u": u + 1e5, "e": 4 * e + 1e5}
    assert evaluate(formula, inputs).isfinite().all()


def test_constants_and_dots_are_columns() -> None:
    inputs = dict.fromkeys(("x", "y", "w"), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert evaluate(2, inputs).tolist() == [[2.0], [2.0]]
    assert evaluate(("add", ("dot", "x", 3), "y"), inputs).tolist() == [[10.0, 11.0], [24.0, 25.0]]
