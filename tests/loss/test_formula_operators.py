"""Operators against SciPy and the definitions of the paper, and what keeps them finite."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from loss.formula_operators import EPS, LIMIT, OPERATORS

X = np.linspace(-6, 6, 25)
POSITIVE = np.linspace(0.1, 6, 25)


def apply(name: str, *values: np.ndarray) -> np.ndarray:
    return OPERATORS[name].function(*(torch.tensor(v)[:, None] for v in values))[:, 0].numpy()


def gudermannian(x: np.ndarray) -> np.ndarray:
    """The integral of 1 / cosh from 0 to x."""
    return np.array([integrate.quad(lambda t: 1 / math.cosh(t), 0, each)[0] for each in x])


UNARY = {
    "neg": (X, -X),
    "abs": (X, np.where(X < 0, -X, X)),
    "relu": (X, np.maximum(X, 0)),
    "sqrt": (POSITIVE, POSITIVE**0.5),
    "exp": (X, np.e**X),
    "log": (POSITIVE, np.log(POSITIVE)),
    "softplus": (X, np.logaddexp(0, X)),
    "sigmoid": (X, special.expit(X)),
    "tanh": (X, np.tanh(X)),
    "gd": (X, (1 + 2 / np.pi * gudermannian(np.pi / 4 * X)) / 2),
    "alf": (X, (1 + (X / 2) / np.sqrt(1 + (X / 2) ** 2)) / 2),
    "erf": (X, (1 + special.erf(np.sqrt(np.pi) / 4 * X)) / 2),
    "erfc": (X, 1 - (1 + special.erf(np.sqrt(np.pi) / 4 * X)) / 2),
    "sin": (X, np.sin(X)),
    "cos": (X, np.cos(X)),
}


@pytest.mark.parametrize("name", UNARY)
def test_of_one_argument(name: str) -> None:
    x, expected = UNARY[name]
    np.testing.assert_allclose(apply(name, x), expected, rtol=1e-9, atol=1e-12)


def test_of_two_arguments() -> None:
    a, b = X, X[::-1] + 0.3
    for name, expected in {"add": a + b, "sub": a - b, "mul": a * b, "div": a / (b + EPS)}.items():
        np.testing.assert_allclose(apply(name, a, b), expected)


def test_over_classes() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    dot = OPERATORS["dot"].function
    assert dot(x, x).tolist() == [[21.0], [0.0]]
    assert dot(x, torch.tensor([[2.0], [3.0]])).tolist() == [[14.0], [0.0]]
    softmax = OPERATORS["softmax"].function(x)
    torch.testing.assert_close(softmax.sum(1), torch.ones(2))
    torch.testing.assert_close(softmax[0, 2] / softmax[0, 1], torch.tensor(math.exp(2)))


def test_the_list_is_what_thetas_count_in() -> None:
    """Another order would give every theta that was ever journaled another formula."""
    assert " ".join(OPERATORS) == (
        "add sub mul div dot neg abs relu sqrt exp log softplus softmax sigmoid tanh gd alf erf "
        "erfc sin cos"
    )
    assert sum(operator.arity == 2 for operator in OPERATORS.values()) == 5


@pytest.mark.parametrize("name", ["gd", "alf", "erf", "sigmoid"])
def test_the_s_shaped_have_the_range_and_the_slope_of_the_sigmoid(name: str) -> None:
    low, middle, high = apply(name, np.array([-1e6, 0.0, 1e6]))
    assert (low, middle, high) == (pytest.approx(0, abs=1e-9), 0.5, pytest.approx(1))
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    OPERATORS[name].function(x).backward()
    assert x.grad.item() == pytest.approx(0.25)


@pytest.mark.parametrize("name", OPERATORS)
def test_anything_within_the_limit_stays_finite(name: str) -> None:
    extremes = [-1e18, -1e9, -1.0, -EPS / 2, 0.0, EPS / 2, 1.0, 1e9, 1e18]
    arity = OPERATORS[name].arity
    values = torch.cartesian_prod(*[torch.tensor(extremes)] * arity).view(-1, arity)
    found = OPERATORS[name].function(*(values[:, k : k + 1] for k in range(arity)))
    assert found.isfinite().all()
    assert found.abs().max() <= 2 * LIMIT
