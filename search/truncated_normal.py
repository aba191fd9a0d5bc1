"""The normal distribution cut to [0, 1], one independent coordinate at a time.

Everything is measured from the end of the interval that is nearer to the location, so that the
density's peak lies at the location or at that end, and relative to the density at the peak, so
that nothing overflows, underflows or cancels however far outside the location is:

    m   the location as seen from that end (m <= 1/2, negative outside the interval)
    y   the point x as seen from that end
    s   the scale;  a = -m / s and b = (1 - m) / s, the ends in standard units
    p   max(m, 0), the peak;  t = (p - m) / s, the peak in standard units
    W   int_a^b exp(-(v^2 - t^2) / 2) dv

    log density = -((y - m)^2 - (p - m)^2) / (2 s^2) - log s - log W
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # type: ignore[import-untyped, unused-ignore]

from search.space import Array

_SQRT2 = np.sqrt(2.0)
_SQRT_HALF_PI = np.sqrt(np.pi / 2)


@dataclass(frozen=True, eq=False)
class TruncatedNormal:
    """Normals with `location` and `scale`, conditioned on [0, 1].

    The two arrays broadcast against each other and against the points or uniforms given to the
    methods; results have the broadcast shape and are float64.

    Attributes:
        location: any finite number; outside [0, 1] too.
        scale: positive; the standard deviation before the cut.

    Raises:
        ValueError: a location that is not finite or a scale that is not finite and positive.
    """

    location: Array
    scale: Array

    def __post_init__(self) -> None:
        location = np.array(self.location, dtype=np.float64)
        scale = np.array(self.scale, dtype=np.float64)
        if not np.isfinite(location).all():
            raise ValueError(f"locations have to be finite, got {location}.")
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"scales have to be finite and above 0, got {scale}.")
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "scale", scale)

    def sample(self, uniforms: ArrayLike) -> Array:
        """The inverse of the cumulative distribution at `uniforms` in [0, 1]; within [0, 1].

        Raises:
            ValueError: a uniform outside [0, 1] or NaN.
        """
        u = _inside(uniforms, "uniforms")
        flipped, m, a, b = self._nearer_end()
        # The tail beyond the nearer end's peak is inverted, as the logarithm of
        # (1 - v) P(Z > a) + v P(Z > b): it stays exact where P(Z > b) is 1e-300.
        with np.errstate(divide="ignore"):  # log 0 = -inf is the right limit at u = 0 and u = 1
            log_u, log_rest = np.log(u), np.log1p(-u)
        log_v, log_not_v = np.where(flipped, log_rest, log_u), np.where(flipped, log_u, log_rest)
        log_tail = np.logaddexp(log_not_v + special.log_ndtr(-a), log_v + special.log_ndtr(-b))
        y = np.clip(m - self.scale * special.ndtri_exp(log_tail), 0.0, 1.0)
        return np.where(flipped, 1 - y, y)

    def log_prob(self, x: ArrayLike) -> Array:
        """Logarithm of the density at `x` in [0, 1].

        Raises:
            ValueError: a point outside [0, 1] or NaN.
        """
        points = _inside(x, "x")
        flipped, m, a, b = self._nearer_end()
        y = np.where(flipped, 1 - points, points)
        peak = np.maximum(m, 0.0)
        below_peak = (y - peak) / self.scale * ((y + peak - 2 * m) / self.scale) / 2
        result: Array = -below_peak - np.log(self.scale) - np.log(_weight(a, b))
        return result

    def score(self, x: ArrayLike) -> Array:
        """d log_prob(x) / d location = (x - E[x]) / scale^2.

        Raises:
            ValueError: a point outside [0, 1] or NaN.
        """
        points = _inside(x, "x")
        flipped, m, a, b = self._nearer_end()
        y = np.where(flipped, 1 - points, points)
        t = np.maximum(a, 0.0)
        ends = np.exp(-(a - t) * (a + t) / 2) - np.exp(-(b - t) * (b + t) / 2)
        mean_y = m + self.scale * ends / _weight(a, b)
        slope = (y - mean_y) / self.scale**2
        return np.where(flipped, -slope, slope)

    def _nearer_end(self) -> tuple[NDArray[np.bool_], Array, Array, Array]:
        """(whether that end is 1, m, a, b) in the words of the module's docstring."""
        flipped = self.location > 0.5
        m: Array = np.where(flipped, 1 - self.location, self.location)
        return flipped, m, -m / self.scale, (1 - m) / self.scale


def _weight(a: Array, b: Array) -> Array:
    """W for a < b and b > 0: the mass between a and b, relative to the density at the peak."""
    t = np.maximum(a, 0.0)
    around = special.erf(b / _SQRT2) - special.erf(np.minimum(a, 0.0) / _SQRT2)
    tail = special.erfcx(t / _SQRT2)  # the Mills ratio, up to its constant
    tail = tail - np.exp(-(b - t) * (b + t) / 2) * special.erfcx(b / _SQRT2)
    weight: Array = _SQRT_HALF_PI * np.where(a > 0, tail, around)
    return weight


def _inside(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} have to lie in [0, 1], got {array}.")
    return array
