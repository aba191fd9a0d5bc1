"""TruncatedNormal against SciPy's truncnorm, finite differences and the released code's samples."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from search.truncated_normal import TruncatedNormal

POLICY = np.load(Path(__file__).parents[1] / "reference" / "policy.npz")
CASES = json.loads(str(POLICY["meta"]))

scales = st.floats(-3, 0.5).map(lambda exponent: 10**exponent)
near_an_end = st.floats(-12, -1).map(lambda exponent: 10**exponent)
locations = st.one_of(
    st.floats(0, 1), near_an_end, near_an_end.map(lambda x: 1 - x), st.floats(-3, 4)
)
points = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0]))


def truncnorm(location, scale):
    return stats.truncnorm(-location / scale, (1 - location) / scale, location, scale)


@settings(deadline=None)
@given(locations, scales, points)
def test_log_prob_is_scipys(location, scale, x):
    expected = truncnorm(location, scale).logpdf(x)
    # SciPy's own error reaches 1e-10 far outside (against 60 digits; ours 1e-14).
    np.testing.assert_allclose(
        TruncatedNormal(location, scale).log_prob(x), expected, rtol=1e-8, atol=1e-8
    )


@settings(deadline=None)
@given(locations, scales, points)
def test_score_is_the_slope_of_log_prob(location, scale, x):
    step = 1e-4 * scale
    above, below = (TruncatedNormal(location + sign * step, scale).log_prob(x) for sign in (1, -1))
    # A difference keeps 1e-16 |log_prob| / step of rounding and step^2 of curvature; both are
    # taken in units of 1 / scale, those of the score.
    rounding = 1e-11 * max(1.0, abs(above))
    np.testing.assert_allclose(
        TruncatedNormal(location, scale).score(x) * scale,
        (above - below) / 2e-4,
        rtol=1e-6,
        atol=1e-6 + rounding,
    )


@settings(deadline=None)
@given(st.floats(-0.5, 1.5), st.floats(0.05, 2))
def test_density_integrates_to_one_and_score_to_zero(location, scale):
    normal = TruncatedNormal(location, scale)
    mass, _ = integrate.quad(lambda x: np.exp(normal.log_prob(x)), 0, 1, points=[0.5])
    mean_score, _ = integrate.quad(
        lambda x: np.exp(normal.log_prob(x)) * normal.score(x), 0, 1, points=[0.5]
    )
    assert mass == pytest.approx(1, abs=1e-7)
    assert mean_score * scale == pytest.approx(0, abs=1e-6)


@settings(deadline=None)
@given(locations, scales, st.floats(0, 1))
def test_sample_inverts_the_cumulative_distribution(location, scale, u):
    x = TruncatedNormal(location, scale).sample(u)
    assert 0 <= x <= 1
    # SciPy inverts far tails to 7e-13 of the quantile, here the distance from the location to the
    # end beyond which it lies; a step in x moves the distribution by the density at most.
    step = 1e-12 * (1 + abs(location))
    peak = np.exp(TruncatedNormal(location, scale).log_prob(np.clip(location, 0, 1)))
    assert truncnorm(location, scale).cdf(x) == pytest.approx(u, abs=1e-8 + step * peak)


@settings(deadline=None)
@given(st.floats(0, 1), scales, st.floats(0, 0.4), st.floats(0.01, 0.5))
def test_sample_grows_with_the_uniform(location, scale, u, more):
    normal = TruncatedNormal(location, scale)
    assert normal.sample(u) < normal.sample(u + more)


@settings(deadline=None)
@given(locations, scales, points)
def test_reflection(location, scale, x):
    """x -> 1 - x with location -> 1 - location changes nothing but the sign of the score."""
    here, there = TruncatedNormal(location, scale), TruncatedNormal(1 - location, scale)
    size = max(1.0, abs(here.log_prob(x)))
    assert there.log_prob(1 - x) == pytest.approx(here.log_prob(x), abs=1e-9 * size)
    assert there.score(1 - x) * scale == pytest.approx(-here.score(x) * scale, rel=1e-6, abs=1e-6)


def test_extremes_stay_finite():
    location = np.array([-5.0, -1e-9, 0.0, 1e-300, 0.5, 1.0, 1 + 1e-9, 6.0])[:, None, None]
    scale = np.array([1e-3, 0.2, 1.0])[:, None]
    x = np.array([0.0, 1e-300, 0.3, 1.0])
    normal = TruncatedNormal(location, scale)
    assert normal.log_prob(x).shape == (8, 3, 4)
    for values in (normal.log_prob(x), normal.score(x), normal.sample(x)):
        assert np.isfinite(values).all()


def test_the_ends_of_the_uniforms_are_the_ends_of_the_interval():
    normal = TruncatedNormal(np.array([0.5, 0.01, 0.99]), 1e-3)
    assert normal.sample(0.0).tolist() == [0, 0, 0]
    assert normal.sample(1.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(), (2,), (2, 1), (2, 2), (5, 1, 2)])
def test_arrays_broadcast(shape):
    """Each element is what its own location, scale and point give alone."""
    location, scale = np.array([0.2, 0.9]), np.array([[0.1], [0.3]])
    values = np.random.default_rng(0).random(shape)
    normal = TruncatedNormal(location, scale)
    for method in ("sample", "log_prob", "score"):
        result = getattr(normal, method)(values)
        everywhere = np.broadcast_arrays(location, scale, values)
        assert result.shape == everywhere[0].shape
        for index in np.ndindex(result.shape):
            mu, s, value = (array[index] for array in everywhere)
            assert result[index] == pytest.approx(getattr(TruncatedNormal(mu, s), method)(value))


def test_samples_of_the_released_code():
    normal = TruncatedNormal(POLICY["tn0_mu"], POLICY["tn0_sigma"])
    np.testing.assert_allclose(
        normal.sample(POLICY["tn0_u"]), POLICY["tn0_theta64"], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_densities_of_the_released_code(case):
    mu, sigma, thetas, expected = (
        POLICY[f"p{case['i']:02d}_{key}"] for key in ("mu", "last_sigma", "thetas", "logp_old64")
    )
    # 1e-12 of the largest log densities (some hundred, where sigma is .005).
    np.testing.assert_allclose(
        TruncatedNormal(mu, sigma).log_prob(thetas), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("location", "scale", "message"),
    [
        (np.nan, 0.2, "finite"),
        (np.inf, 0.2, "finite"),
        (0.5, 0.0, "above 0"),
        (0.5, -1.0, "above 0"),
        (0.5, np.nan, "above 0"),
    ],
)
def test_bad_parameters_are_refused(location, scale, message):
    with pytest.raises(ValueError, match=message):
        TruncatedNormal(location, scale)


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, np.nan])
@pytest.mark.parametrize("method", ["sample", "log_prob", "score"])
def test_values_outside_the_interval_are_refused(method, value):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        getattr(TruncatedNormal(0.5, 0.2), method)(np.array([0.5, value]))
