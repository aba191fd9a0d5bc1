"""Functions of a score difference: their pieces, slopes and jumps."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from loss.pair_function import PairFunction
from loss.piecewise_linear import PiecewiseLinear
from tests.pair_functions import Pair, pairs, slope


def evaluate(f: PairFunction, d: float) -> float:
    """f(d) from its attributes, as they are defined."""
    below = [d > t or (d == t and c) for t, c in zip(f.offsets, f.closed, strict=True)]
    piece = sum(below) - 1
    if piece < 0:
        return f.below
    if piece == len(f.offsets) - 1:
        return f.above
    return sum(float(c) * d**n for n, c in enumerate(f.coefficients[:, piece]))


# Ends of the clip, ends of ramps, and between: every multiple of 1/8 is a possible boundary.
DIFFERENCES = [n / 16 for n in range(-40, 41)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(pair=pairs())
def test_values_and_slopes(pair: Pair):
    d = torch.tensor(DIFFERENCES, dtype=torch.float64)
    values = [evaluate(pair.function, x) for x in DIFFERENCES]
    assert values == pytest.approx(pair.dense(d).tolist(), abs=1e-12)
    slopes = [evaluate(pair.function.derivative, x) for x in DIFFERENCES]
    assert slopes == pytest.approx(slope(pair, d).tolist(), abs=1e-12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pair=pairs())
def test_jumps_add_up_to_the_pieces(pair: Pair):
    """Left to right, from the constant below to the constant above."""
    f = pair.function
    jumps = f.jumps(degree=2)
    assert jumps.shape == (3, len(f.offsets))
    start = torch.tensor([f.below, 0, 0], dtype=torch.float64)
    pieces = start[:, None] + jumps.cumsum(1)
    padded = torch.zeros(3, len(f.offsets) - 1, dtype=torch.float64)
    padded[: f.degree + 1] = f.coefficients
    torch.testing.assert_close(pieces[:, :-1], padded)
    torch.testing.assert_close(pieces[:, -1], torch.tensor([f.above, 0, 0]).double())


def test_a_curve_by_hand():
    """Through (0, 1/4), (1/4, 1/2), a jump to 3/4, (1, 1): x = 1/4 is d = -1/2."""
    points = torch.tensor([[0, 0.25], [0.25, 0.5], [0.25, 0.75], [1, 1]])
    f = PairFunction.from_curve(PiecewiseLinear(points))
    assert f.offsets.tolist() == [-1, -0.5, 1]
    assert f.closed.tolist() == [True, False, False]
    # 1/4 + (d + 1) / 2, then 3/4 + (d + 1/2) / 6.
    assert f.coefficients.tolist() == [[0.75, pytest.approx(5 / 6)], [0.5, pytest.approx(1 / 6)]]
    assert (f.below, f.above, f.degree) == (0.25, 1, 1)


def test_the_square_is_not_a_curve():
    f = PairFunction.square()
    assert [evaluate(f, d) for d in (-2, -1, 0, 0.5, 1, 2)] == [0, 0, 0.25, 0.5625, 1, 1]
    # d/dd of ((d + 1) / 2)^2 is (d + 1) / 2, at both ends of the clip too.
    assert [evaluate(f.derivative, d) for d in (-2, -1, 0, 0.5, 1, 2)] == [0, 0, 0.5, 0.75, 1, 0]
    assert (f.degree, f.derivative.degree) == (2, 1)


def test_ramps_by_hand():
    f = PairFunction.ramp(0.5)
    assert [evaluate(f, d) for d in (-1, -0.5, -0.25, 0, 0.5, 1)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [evaluate(f.derivative, d) for d in (-1, -0.5, 0, 0.5, 1)] == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("f", [PairFunction.step(), PairFunction.ramp(0.0)])
def test_a_ramp_without_width_is_the_step(f: PairFunction):
    assert [evaluate(f, d) for d in (-1, -1e-300, 0, 1e-300, 1)] == [0, 0, 0.5, 1, 1]
    assert [evaluate(f.derivative, d) for d in (-1, 0, 1)] == [0, 0, 0]


@pytest.mark.parametrize("delta", [-0.1, -math.inf, math.inf, math.nan])
def test_a_delta_that_is_no_width(delta: float):
    with pytest.raises(ValueError, match=f"delta is {delta}; expected a number of at least 0"):
        PairFunction.ramp(delta)


def test_a_move_to_a_device_happens_once():
    f = PairFunction.square()
    assert f.to(torch.device("cpu")) is f
    moved = f.to(torch.device("meta"))
    parts: list[Tensor] = [moved.offsets, moved.closed, moved.coefficients]
    assert all(part.is_meta for part in parts)
    assert f.to(torch.device("meta")) is moved
    assert moved.derivative is moved.derivative
    assert moved.derivative.coefficients.is_meta
    # What is derived from a function does not share the copies of that function.
    assert f.derivative.to(torch.device("meta")).degree == 1


def test_jumps_of_the_curve_of_a_line_are_those_of_its_slope():
    f = PairFunction.from_curve(PiecewiseLinear(torch.tensor([[0.0, 0.0], [1.0, 1.0]])))
    assert f.jumps(1).tolist() == [[0.5, 0.5], [0.5, -0.5]]
