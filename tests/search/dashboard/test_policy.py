import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from loss.piecewise_linear import control_points_from_theta
from search.curves import evaluate
from search.dashboard.policy import (
    GRID,
    LEVELS,
    SAMPLES,
    control_points,
    curve_coordinates,
    evaluate_all,
    policy_data,
)

# Two segments: one inner control point, at (theta_x, theta_y) itself.
NAMES = ["H2.x1", "H2.y1", "gradient_scale"]


def rounds(*policies):
    return [(k, np.array(mean), np.array(std)) for k, (mean, std) in enumerate(policies)]


def curve_of(data, name="H2", head=""):
    (own,) = (one for one in data["heads"] if one["head"] == head)
    return next(curve for curve in own["curves"] if curve["name"] == name)


def test_control_points_are_those_of_the_loss():
    shares = np.random.default_rng(0).random((7, 3, 2))
    shares[0], shares[1], shares[2, 0] = 0.0, 1.0, (0.0, 1.0)
    expected = control_points_from_theta(torch.from_numpy(shares).flatten(-2))
    np.testing.assert_allclose(control_points(shares), expected.numpy(), rtol=0, atol=1e-15)


def test_curves_are_evaluated_as_in_search_curves():
    rng = np.random.default_rng(1)
    inner = np.sort(rng.random((20, 4, 2)), axis=1)
    inner[3, 1] = inner[3, 2]  # two points in one
    inner[4, 1:3, 0] = 0.5  # a jump, and on the grid
    ends = np.zeros((20, 1, 2))
    points = np.concatenate([ends, inner, ends + 1], axis=1)
    found = evaluate_all(points, GRID)
    for own, values in zip(points, found, strict=True):
        np.testing.assert_allclose(values, evaluate(own, GRID), rtol=0, atol=1e-12)


def test_the_coordinates_of_a_curve_are_found_by_their_names():
    names = ["rpn.H2.y1", "rpn.H2.x1", "a", "I1.x1", "I1.y1", "I1.x2", "I1.y2", "gradient_scale",
             "I2.x1", "I3.x2", "I3.y2", "H1.x0", "H1.y0"]  # fmt: skip
    found = {name: at.tolist() for name, at in curve_coordinates(names).items()}
    # I2 lacks a y, I3 its first point, and counting begins at 1.
    assert found == {"rpn.H2": [[1, 0]], "I1": [[3, 4], [5, 6]]}


def test_the_mean_is_a_curve_of_each_round():
    data = policy_data(NAMES, rounds(([0.25, 0.5, 0.5], [0.1] * 3), ([0.3, 0.4, 1.0], [0.1] * 3)),
                       {"H2": [[0, 0], [0.1, 0.9], [1, 1]]}, {})  # fmt: skip
    curve = curve_of(data)
    assert curve["mean"] == [[[0, 0], [250, 500], [1000, 1000]], [[0, 0], [300, 400], [1000, 1000]]]
    assert curve["found"] == [[0, 0], [100, 900], [1000, 1000]]
    assert curve["start"] is None and "faults" in curve["role"]
    # 10^(2 theta - 1): 1 at a half, 10 at one.
    assert data["scales"][0]["mean"] == [1.0, 10.0]
    assert data["rounds"] == [0, 1] and data["names"] == NAMES


def test_bands_are_quantiles_of_the_truncated_normal():
    """Of the gradient scale, which grows with theta, they can be worked out by another package."""
    mean, std = 0.8, 0.3
    data = policy_data(NAMES, rounds(([0.5, 0.5, mean], [0.1, 0.1, std])), {}, {})
    law = truncnorm((0 - mean) / std, (1 - mean) / std, loc=mean, scale=std)
    theta = (np.log10(data["scales"][0]["bands"][0]) + 1) / 2
    # One sample lies in each of equal parts of the probability; the order statistics are as close.
    np.testing.assert_allclose(law.cdf(theta), LEVELS, rtol=0, atol=1.5 / SAMPLES + 1e-4)


def test_bands_enclose_each_other_and_shrink_with_the_spread():
    wide, small = ([0.4, 0.6, 0.5], [0.2] * 3), ([0.4, 0.6, 0.5], [0.0] * 3)
    bands = np.array(curve_of(policy_data(NAMES, rounds(wide, small), {}, {}))["bands"])
    assert bands.shape == (2, len(LEVELS), len(GRID))
    assert (np.diff(bands, axis=1) >= 0).all()
    assert (bands[:, :, 0] == 0).all() and (bands[:, :, -1] == 1000).all()
    assert (bands[0, 3] - bands[0, 0]).max() > 200
    # Without a spread each sample is the mean.
    expected = 1000 * evaluate([[0, 0], [0.4, 0.6], [1, 1]], GRID)
    np.testing.assert_allclose(bands[1], np.tile(expected, (4, 1)), rtol=0, atol=0.51)


def test_a_uniform_policy_is_sampled_uniformly():
    policy = rounds(([0.5] * 3, [12**-0.5] * 3))
    uniform = policy_data(NAMES, policy, {}, {}, uniform=True)
    theta = (np.log10(uniform["scales"][0]["bands"][0]) + 1) / 2
    np.testing.assert_allclose(theta, LEVELS, rtol=0, atol=1.5 / SAMPLES + 1e-4)


def test_the_same_policy_is_drawn_alike_in_every_round():
    one = ([0.4, 0.6, 0.5], [0.2] * 3)
    curve = curve_of(policy_data(NAMES, rounds(one, one), {}, {}))
    assert curve["bands"][0] == curve["bands"][1]


@pytest.mark.parametrize(
    "bad",
    [([0.5, 0.5], [0.1, 0.1]), ([0.5, 0.5, np.nan], [0.1] * 3), ([0.5, 0.5, 1.5], [0.1] * 3),
     ([0.5] * 3, [0.1, 0.1, -1.0]), ([0.5] * 3, [0.1, 0.1, np.inf])],
)  # fmt: skip
def test_what_is_no_policy_is_left_out(bad):
    good = ([0.5] * 3, [0.1] * 3)
    data = policy_data(NAMES, rounds(bad, good), {}, {})
    assert data["rounds"] == [1] and len(curve_of(data)["bands"]) == 1


def test_each_head_has_its_curves_and_its_scale():
    names = [f"{head}.{name}" for head in ("rpn", "rcnn") for name in NAMES]
    data = policy_data(names, rounds(([0.5] * 6, [0.1] * 6)), {}, {"rcnn.H2": [[0, 0], [1, 1]]})
    assert [one["head"] for one in data["heads"]] == ["rpn", "rcnn"]
    assert [one["head"] for one in data["scales"]] == ["rpn", "rcnn"]
    assert curve_of(data, head="rcnn")["start"] == [[0, 0], [1000, 1000]]
    assert curve_of(data, head="rpn")["start"] is None


def test_found_curves_are_shown_without_any_policy():
    data = policy_data([], [], {"H1": [[0, 0], [1, 1]], "odd": []}, {})
    assert curve_of(data, "H1") == {
        "name": "H1", "role": "counts all that ranks above an object",
        "found": [[0, 0], [1000, 1000]], "start": None, "mean": [], "bands": [],
    }  # fmt: skip
    assert curve_of(data, "odd")["found"] is None


def test_another_criterion_has_no_curves():
    data = policy_data(["delta"], rounds(([0.5], [0.1])), {}, {})
    assert data["heads"] == [] and data["scales"] == [] and data["mean"] == [[0.5]]
