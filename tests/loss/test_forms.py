"""The hand-crafted forms of the paper's Table 2, by hand."""

import math

import pytest
import torch
from torch import Tensor

from loss.dense_pairs import dense_pair_sums
from loss.forms import FORMS, STEEPEST
from loss.pair_function import PairFunction
from loss.ranking import pair_sums
from tests import oracles


def differentiate(function, at: float) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Value and slope."""
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    value = function(x)
    value.backward()
    return value.item(), x.grad.item()


def h(name: str, d: float) -> tuple[float, float]:
    """H and its slope at a score difference of `d`."""
    function, _ = FORMS[name]()
    zero = torch.zeros(1, dtype=torch.float64)
    if isinstance(function, PairFunction):
        return differentiate(lambda s: pair_sums(s, zero, [function])[0], d)
    return differentiate(lambda s: dense_pair_sums(s, zero, function), d)


def i(name: str, u: float) -> tuple[float, float]:
    """I and its slope at a localisation score of `u`."""
    return differentiate(FORMS[name]()[1], u)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def sigmoid_slope(x: float) -> float:
    return sigmoid(x) * sigmoid(-x)


# The slope of sqrt(d / 2 + 1/2) is 1 / (4 sqrt(d / 2 + 1/2)); below x = 1e-4 it is that at 1e-4.
@pytest.mark.parametrize(
    ("name", "d", "value", "slope"),
    [
        *[("linear", d, d / 2 + 1 / 2, 1 / 2) for d in (-1, -0.5, 0, 0.7, 1)],
        *[("square", d, (d / 2 + 1 / 2) ** 2, (d + 1) / 2) for d in (-1, -0.5, 0, 0.7, 1)],
        *[("sqrt", d, (d / 2 + 1 / 2) ** 0.5, (d / 2 + 1 / 2) ** -0.5 / 4) for d in (-0.5, 0, 1)],
        ("sqrt", -1, 0, 25),
        ("sqrt", 2e-6 - 1, 1e-3, 25),
        *[(name, -1.5, 0, 0) for name in ("linear", "square", "sqrt")],
        *[(name, 1.5, 1, 0) for name in ("linear", "square", "sqrt")],
        *[("sigmoid", d, sigmoid(d), sigmoid_slope(d)) for d in (-9, -1, 0, 0.5, 3)],
    ],
)
def test_functions_of_score_differences(name: str, d: float, value: float, slope: float):
    assert h(name, d) == (pytest.approx(value, abs=1e-12), pytest.approx(slope, abs=1e-8))


@pytest.mark.parametrize(
    ("name", "u", "value", "slope"),
    [
        *[("linear", u, u, 1) for u in (0, 0.3, 1)],
        *[("square", u, u * u, 2 * u) for u in (0, 0.3, 1)],
        *[("sqrt", u, u**0.5, 0.5 / u**0.5) for u in (1e-4, 0.25, 1)],
        ("sqrt", 0, 0, 50),
        ("sqrt", 1e-6, 1e-3, 50),
        *[(name, -0.5, 0, 0) for name in ("linear", "square", "sqrt")],
        *[(name, 1.5, 1, 0) for name in ("linear", "square", "sqrt")],
        *[
            ("sigmoid", u, sigmoid(2 * u - 1), 2 * sigmoid_slope(2 * u - 1))
            for u in (0, 0.5, 0.9, 1)
        ],
        ("sigmoid", 7, sigmoid(1), 0),
        ("sigmoid", -7, sigmoid(-1), 0),
    ],
)
def test_functions_of_localisation_scores(name: str, u: float, value: float, slope: float):
    assert i(name, u) == (pytest.approx(value, abs=1e-12), pytest.approx(slope, abs=1e-9))


def test_every_form_of_the_table_is_there():
    assert list(FORMS) == ["linear", "square", "sqrt", "sigmoid"]


@pytest.mark.parametrize("name", FORMS)
def test_what_negatives_weigh(name: str):
    _, function = FORMS[name]()
    assert function.at_zero == pytest.approx(i(name, 0)[0], abs=1e-15)
    assert function.at_zero == pytest.approx(sigmoid(-1) if name == "sigmoid" else 0, abs=1e-15)


@pytest.mark.parametrize("name", FORMS)
def test_nan_stays_nan(name: str):
    assert math.isnan(h(name, math.nan)[0])
    assert math.isnan(i(name, math.nan)[0])


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_the_oracle(name: str):
    """On a fine grid, the ends included; no slope is beyond that of the root at 1e-4."""
    own, other = FORMS[name](), oracles.FORMS[name]
    d = torch.linspace(-2, 2, 801, dtype=torch.float64)
    found = torch.tensor([h(name, x) for x in d.tolist()], dtype=torch.float64)
    expected = value_and_slope(other[0], d)
    oracles.assert_close(found, expected, 1e-8)
    u = torch.linspace(0, 1, 801, dtype=torch.float64)
    at_u = value_and_slope(own[1], u)
    oracles.assert_close(at_u, value_and_slope(other[1], u), 1e-8)
    assert STEEPEST == 1e-4
    bound = 0.5 / math.sqrt(STEEPEST)
    assert found[:, 1].abs().max() <= bound / 2 * (1 + 1e-9)
    assert at_u[:, 1].abs().max() <= bound * (1 + 1e-9)


def value_and_slope(function, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """[n, 2] of an elementwise function at x [n]."""
    x = x.clone().requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return torch.stack([value.detach(), slope], 1)
