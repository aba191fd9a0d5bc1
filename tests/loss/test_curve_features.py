"""Curves as numbers for a model: values and log slopes on a grid."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loss.by_head import family_of, features_of
from loss.curve_features import BINS, curve_features, curve_values
from loss.parameterized_ap import CURVES
from loss.piecewise_linear import PiecewiseLinear, control_points_from_theta, identity_theta


@settings(max_examples=50)
@given(shares=st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_values_are_those_of_the_curve_that_a_loss_uses(shares):
    points = control_points_from_theta(torch.tensor(shares, dtype=torch.float64))
    # Off the breakpoints: where several coincide, the side of the jump is a convention.
    grid = torch.tensor([0.0371, 0.2113, 0.4999, 0.7017, 0.9553], dtype=torch.float64)
    near = (points[:, None, 0] - grid).abs().min() < 1e-6
    if not near:
        expected = np.interp(grid.numpy(), points[:, 0].numpy(), points[:, 1].numpy())
        np.testing.assert_allclose(curve_values(points, grid).numpy(), expected, atol=1e-9)


def test_values_agree_with_piecewise_linear():
    points = torch.tensor([[0, 0], [0.2, 0.6], [0.5, 0.7], [1, 1]], dtype=torch.float64)
    grid = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(curve_values(points, grid), PiecewiseLinear(points)(grid))


def test_features_of_a_curve_by_hand():
    # One breakpoint, at (1/4, 3/4): slope 3 before it, 1/3 after it.
    (found,) = curve_features(torch.tensor([[[0.25, 0.75]]], dtype=torch.float64))
    values = [0.375, 0.75, *(0.75 + k / 24 for k in range(1, 6))]
    slopes = [math.log10(3.03)] * 2 + [math.log10(1 / 3 + 0.03)] * 6
    np.testing.assert_allclose(found.numpy(), values + slopes, atol=1e-12)


def test_a_family_gives_its_curves_and_its_scale():
    family = family_of({"type": "parameterized_ap", "segments": 5})
    thetas = torch.tensor([family.start, [0.3] * 40 + [0.9]], dtype=torch.float64)
    found = features_of(family, thetas)
    assert found.shape == (2, len(CURVES) * (2 * BINS - 1) + 1)
    assert found[:, -1].tolist() == [0.5, 0.9]
    one = curve_features(identity_theta(5)[None, None].double())
    torch.testing.assert_close(found[0, :-1], one.repeat(1, len(CURVES))[0])


def test_a_fixed_scale_is_no_feature():
    family = family_of({"type": "parameterized_ap", "segments": 3, "gradient_scale": 1.0})
    assert features_of(family, torch.rand(4, 20, dtype=torch.float64)).shape == (4, 75)
    assert features_of(family, torch.rand(0, 20, dtype=torch.float64)).shape == (0, 75)


def test_heads_give_their_own_parts():
    by_head = {"rpn": {"type": "parameterized_ap"}, "rcnn": {"type": "parameterized_ap"}}
    family, alone = family_of(by_head), family_of(by_head["rpn"])
    generator = torch.Generator().manual_seed(0)
    thetas = torch.rand(3, 82, generator=generator, dtype=torch.float64)
    # Curves of both heads first, then the two scales.
    rpn = torch.cat([thetas[:, :40], thetas[:, 80:81]], dim=1)
    rcnn = torch.cat([thetas[:, 40:80], thetas[:, 81:]], dim=1)
    expected = torch.cat([features_of(alone, rpn), features_of(alone, rcnn)], dim=1)
    torch.testing.assert_close(features_of(family, thetas), expected)


def test_equal_curves_of_other_thetas_have_equal_features():
    # After a share of 1 nothing is left: what the next coordinates say means nothing.
    thetas = torch.tensor([[[0.5, 0.2, 1, 1, 0.1, 0.9, 0.3, 0.3]]], dtype=torch.float64)
    same = torch.tensor([[[0.5, 0.2, 1, 1, 0.8, 0.2, 0.7, 0.5]]], dtype=torch.float64)
    torch.testing.assert_close(curve_features(thetas), curve_features(same))


@pytest.mark.parametrize("kind", ["none", "kind", "all"])
def test_shared_curves_are_seen_once(kind):
    family = family_of({"type": "parameterized_ap", "shared": kind})
    curves = {"none": 5, "kind": 2, "all": 1}[kind]
    thetas = torch.tensor([family.start], dtype=torch.float64)
    assert features_of(family, thetas).shape == (1, 15 * curves + 1)
