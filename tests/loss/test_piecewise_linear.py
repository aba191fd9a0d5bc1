"""Curves, and the thetas that stand for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss.piecewise_linear import (
    PiecewiseLinear,
    control_points_from_theta,
    identity_theta,
    theta_from_control_points,
)
from tests import oracles

REFERENCE = Path(__file__).parents[1] / "reference"


def evaluate(points: list[tuple[float, float]], x: list[float]) -> tuple[list[float], list[float]]:
    """Values and slopes of a curve at each x."""
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = PiecewiseLinear(torch.tensor(points))(at)
    y.sum().backward()
    return y.tolist(), at.grad.tolist()


def test_a_breakpoint_belongs_to_the_segment_on_its_left():
    # Slope 1/2 up to (1/2, 1/4), then 3/2.
    values, slopes = evaluate([(0, 0), (0.5, 0.25), (1, 1)], [0.25, 0.5, 0.75])
    assert values == [0.125, 0.25, 0.625]
    assert slopes == [0.5, 0.5, 1.5]


def test_the_clip_to_the_unit_interval_passes_gradient_at_its_ends():
    values, slopes = evaluate([(0, 0.25), (1, 0.75)], [-0.5, 0.0, 1.0, 1.5])
    assert values == [0.25, 0.25, 0.75, 0.75]
    assert slopes == [0.0, 0.5, 0.5, 0.0]


def test_coincident_points_are_jumps():
    # From the start 0 -> 1/4, at 1/2 from 1/2 -> 3/4, at the end 3/4 -> 1; flat between 1/2 and 1.
    points = [(0, 0), (0, 0.25), (0.5, 0.5), (0.5, 0.6), (0.5, 0.75), (1, 0.75), (1, 1)]
    values, slopes = evaluate(points, [0.0, 0.5, 0.75, 1.0])
    assert values == [0.25, 0.5, 0.75, 0.75]  # limits: from the right at 0, else from the left
    assert slopes == [0.5, 0.5, 0.0, 0.0]
    curve = PiecewiseLinear(torch.tensor(points))
    assert (curve.at_zero, curve.at_one) == (0.25, 0.75)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(points=oracles.control_points(1, 5), x=oracles.eighths(-1, 2, 24))
def test_equals_the_oracle(points: Tensor, x: list[float]):
    at = torch.tensor(x, dtype=torch.float64).view(4, 3, 2)
    ones = torch.ones_like(at)
    actual = oracles.value_and_grads(PiecewiseLinear(points[0]), at, upstream=ones)
    expected = oracles.value_and_grads(lambda v: oracles.curve(points[0], v), at, upstream=ones)
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-9)


def test_stick_breaking_takes_shares_of_what_is_left():
    # x: 1/2, then half of the other half. y: 1/4, then 1/3 of the other 3/4.
    theta = torch.tensor([1 / 2, 1 / 4, 1 / 2, 1 / 3], dtype=torch.float64)
    expected = torch.tensor([[0, 0], [1 / 2, 1 / 4], [3 / 4, 1 / 2], [1, 1]], dtype=torch.float64)
    torch.testing.assert_close(control_points_from_theta(theta), expected)


def test_control_points_of_the_released_code():
    with np.load(REFERENCE / "policy.npz") as arrays:
        theta = torch.from_numpy(arrays["conv_theta"]).double()
        expected = torch.from_numpy(arrays["conv_ctrl64"]).view(12, 5, 6, 2)
    points = control_points_from_theta(theta)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("segments", [3, 5, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_theta_and_control_points_round_trip(segments: int, dtype: torch.dtype, batch: tuple):
    theta = torch.rand(*batch, 2 * (segments - 1), generator=torch.Generator().manual_seed(0))
    theta = (0.05 + 0.7 * theta).to(dtype)
    points = control_points_from_theta(theta)
    assert points.shape == (*batch, segments + 1, 2)
    assert points.dtype == dtype
    assert (points.diff(dim=-2) > 0).all()
    back = theta_from_control_points(points)
    assert back.dtype == dtype
    # Six shares of at most 3/4 leave 2e-4 of the 1 that was rounded.
    tolerance = torch.finfo(dtype).eps / 2e-4
    torch.testing.assert_close(back, theta, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_and_the_ends_are_kept(dtype: torch.dtype):
    theta = torch.tensor([0.0, 1.0, 1.0, 0.5, 0.25, 0.0], dtype=dtype)
    points = control_points_from_theta(theta)
    # x: 0, then all of it; y: all of it at once. Shares of nothing change nothing.
    expected = [[0, 0], [0, 1], [1, 1], [1, 1], [1, 1]]
    assert torch.equal(points, torch.tensor(expected, dtype=dtype))
    back = theta_from_control_points(points)
    assert torch.equal(back, torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=dtype))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_equal_coordinates_are_the_identity(shares: list[float]):
    theta = torch.tensor(shares, dtype=torch.float64).repeat_interleave(2)
    points = control_points_from_theta(theta)
    assert torch.equal(points[:, 0], points[:, 1])
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(PiecewiseLinear(points)(x), x, rtol=0, atol=1e-12)


def test_a_theta_off_the_diagonal_is_not_the_identity():
    theta = identity_theta(5)
    for k in range(len(theta)):
        moved = theta.clone()
        moved[k] += 0.1
        points = control_points_from_theta(moved)
        assert not torch.allclose(points[:, 0], points[:, 1])


def test_the_search_begins_at_the_equally_spaced_identity():
    theta = identity_theta(5)
    start = [0.2, 0.2, 0.25, 0.25, 1 / 3, 1 / 3, 0.5, 0.5]  # the paper's
    torch.testing.assert_close(theta, torch.tensor(start, dtype=torch.float64))
    fifths = torch.arange(6, dtype=torch.float64)[:, None].expand(6, 2) / 5
    torch.testing.assert_close(control_points_from_theta(theta), fifths)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([0.5, 0.5, 0.5], "even"),
        ([0.5, 1.1], "outside"),
        ([-0.1, 0.5], "outside"),
        ([float("nan"), 0.5], "outside"),
    ],
)
def test_what_is_no_theta(theta: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        control_points_from_theta(torch.tensor(theta))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0], [0.5, 0.5], [0.5, 0.9]], "end at 1"),
        ([[0.1, 0], [1, 1]], "begin at 0"),
        ([[0, 0.1], [1, 1]], "other ends"),
        ([[0, 0], [1, 0.9]], "other ends"),
        ([[0, 0], [0.6, 0.5], [0.4, 0.6], [1, 1]], "x .* must not decrease"),
        ([[0, 0], [0.4, 0.6], [0.6, 0.5], [1, 1]], "do not decrease"),
        ([[0, 0], [0.5, float("nan")], [1, 1]], "finite"),
        ([[0, 0, 0], [1, 1, 1]], "shape"),
        ([[0, 0]], "shape"),
        ([0.0, 1.0], "shape"),
    ],
)
def test_what_has_no_theta(points: list, message: str):
    with pytest.raises(ValueError, match=message):
        theta_from_control_points(torch.tensor(points, dtype=torch.float64))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0]], "shape"),
        ([[0.1, 0], [1, 1]], "begin at 0"),
        ([[0, 0], [1, float("inf")]], "finite"),
    ],
)
def test_what_is_no_curve(points: list, message: str):
    with pytest.raises(ValueError, match=message):
        PiecewiseLinear(torch.tensor(points))
