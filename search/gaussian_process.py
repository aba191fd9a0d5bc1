"""A Gaussian process with a linear part, for the few hundred noisy rewards that a search has.

    y(x) = basis(x) beta + f(x) + noise,    f ~ GP(0, signal^2 k),  k a Matern-5/2 kernel

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006): 2.7 for the linear part
with a normal prior on beta, 5.4 for choosing length, signal and noise by the marginal likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize  # type: ignore[import-untyped, unused-ignore]

from search.space import Array

_FIT_POINTS = (
    300  # hyperparameters are chosen by so many of the points, evenly taken: cost is cubic
)
_JITTER = 1e-8
_COSINES = 512

Function = Callable[[Array, Array], Array]
"""Inputs [m, F] and basis [m, B] -> values [m]."""


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed of a process before any data; spreads are standard deviations.

    Attributes:
        beta: [B] means of the linear part's weights.
        beta_spread: [B].
        length: of the kernel, in units of the inputs' distances; known to a factor of 2.
        signal: of f, in units of y; known to a factor of 2.
        noise: of one observation; known to a factor of 1.5.
    """

    beta: Array
    beta_spread: Array
    length: float
    signal: float
    noise: float


_LOG_SPREADS = np.log([2.0, 2.0, 1.5])


class GaussianProcess:
    """The posterior of a process.

    Args:
        inputs: [n, F]; n may be 0: then the posterior is the prior.
        basis: [n, B].
        y: [n].
        prior: see `Prior`.

    Attributes:
        length, signal, noise: the most probable ones given the data and the prior.
    """

    def __init__(self, inputs: Array, basis: Array, y: Array, prior: Prior) -> None:
        self._inputs = inputs
        self._basis = basis
        self._y = y
        self._prior = prior
        residual = y - basis @ prior.beta
        self.length, self.signal, self.noise = self._choose(residual)
        covariance = self._covariance(inputs, basis, inputs, basis)
        covariance[np.diag_indices(len(y))] += self.noise**2 + _JITTER * self.signal**2
        self._factor = linalg.cholesky(covariance, lower=True)
        self._weights = linalg.cho_solve((self._factor, True), residual)

    def mean(self, inputs: Array, basis: Array) -> Array:
        """Expected values, without noise, at `inputs` [m, F] with `basis` [m, B]: [m]."""
        cross = self._covariance(inputs, basis, self._inputs, self._basis)
        found: Array = basis @ self._prior.beta + cross @ self._weights
        return found

    def draw(self, generator: np.random.Generator) -> Function:
        """One function of the posterior, which can be asked anywhere, and again.

        By Matheron's rule: a function of the prior, corrected for what it misses at the data
        (Wilson et al., "Efficiently sampling functions from Gaussian process posteriors", ICML
        2020). The prior's is a sum of random cosines, whose frequencies have the spectral density
        of the kernel, a multivariate t with 5 degrees of freedom (Rahimi and Recht, 2007).
        """
        features = self._inputs.shape[1]
        heavy = np.sqrt(5 / generator.chisquare(5, _COSINES))
        frequencies = generator.standard_normal((features, _COSINES)) * heavy / self.length
        phases = generator.uniform(0, 2 * np.pi, _COSINES)
        weights = self.signal * np.sqrt(2 / _COSINES) * generator.standard_normal(_COSINES)
        beta = self._prior.beta + self._prior.beta_spread * generator.standard_normal(
            len(self._prior.beta)
        )

        def before(inputs: Array, basis: Array) -> Array:
            found: Array = basis @ beta + np.cos(inputs @ frequencies + phases) @ weights
            return found

        noise = self.noise * generator.standard_normal(len(self._y))
        missed = self._y - before(self._inputs, self._basis) - noise
        correction = linalg.cho_solve((self._factor, True), missed)

        def after(inputs: Array, basis: Array) -> Array:
            cross = self._covariance(inputs, basis, self._inputs, self._basis)
            found: Array = before(inputs, basis) + cross @ correction
            return found

        return after

    def _covariance(self, a: Array, basis_a: Array, b: Array, basis_b: Array) -> Array:
        """Of f and the linear part together, [len(a), len(b)]."""
        linear = (basis_a * self._prior.beta_spread**2) @ basis_b.T
        return linear + self.signal**2 * matern(_distances(a, b) / self.length)

    def _choose(self, residual: Array) -> tuple[float, float, float]:
        """Length, signal, noise that maximise the marginal likelihood times their prior."""
        if not len(residual):
            return self._prior.length, self._prior.signal, self._prior.noise
        rows = np.unique(np.linspace(0, len(residual) - 1, _FIT_POINTS).round().astype(int))
        part, basis = residual[rows], self._basis[rows]
        apart = _distances(self._inputs[rows], self._inputs[rows])
        linear = (basis * self._prior.beta_spread**2) @ basis.T
        center = np.log([self._prior.length, self._prior.signal, self._prior.noise])

        def loss(change: Array) -> float:
            length, signal, noise = np.exp(center + _LOG_SPREADS * change)
            covariance = linear + signal**2 * matern(apart / length)
            covariance[np.diag_indices(len(part))] += noise**2 + _JITTER * signal**2
            factor = linalg.cholesky(covariance, lower=True, check_finite=False)
            half = linalg.solve_triangular(factor, part, lower=True, check_finite=False)
            likelihood = -half @ half / 2 - np.log(np.diag(factor)).sum()
            return float(change @ change / 2 - likelihood)

        # Three numbers and a smooth function: a simplex finds them without derivatives.
        found = optimize.minimize(
            loss, np.zeros(3), method="Nelder-Mead", options={"maxfev": 60, "xatol": 0.05}
        )
        length, signal, noise = np.exp(center + _LOG_SPREADS * found.x)
        return float(length), float(signal), float(noise)


def matern(distance: Array) -> Array:
    """The Matern-5/2 correlation of points so many lengths apart."""
    scaled = np.sqrt(5.0) * distance
    correlation: Array = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return correlation


def _distances(a: Array, b: Array) -> Array:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    found: Array = np.sqrt(squares.clip(min=0))
    return found
