"""RewardModel: a Gaussian process of the reward by BoTorch, for few and noisy trials.

Only algorithms that need it import this, and only when they do: it brings BoTorch.
"""

import math

import numpy as np
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import GammaPrior, LogNormalPrior
from gpytorch.settings import debug
from linear_operator.utils.cholesky import psd_safe_cholesky

from search.space import Array

_ITERATIONS = 75  # of L-BFGS; three numbers are at their best long before
_JITTER = 1e-6  # variance, likewise: candidates lie so close that their values are nearly one
_LEAST = 1e-5  # variance of the noise, as a share of the values': what Cholesky needs


class RewardModel:
    """sqrt(reward) = c + f(x) + noise, with f a Gaussian process and equal noise everywhere.

    The square root, because an AP cannot fall below 0 and spreads less near it: it makes the noise
    of good and bad trials alike, and keeps the many trials that learned nothing from outweighing
    the differences between good ones. (Ranks do that too, but forget how far values lie apart.)

    One Matern 5/2 kernel with one length scale for all of x: a few dozen trials cannot tell one
    scale a dimension, and predict better without (docs/search.md). Its prior grows with sqrt(F),
    as distances do: Hvarfner et al., "Vanilla Bayesian Optimization Performs Great in High
    Dimensions" (ICML 2024). Constant, scales and noise are those of the highest posterior density,
    searched from one point, so equal data make an equal model.

    Args:
        inputs: [n, F], n >= 2, each column with a spread of about 1.
        rewards: [n] in [0, 1], not all equal.
        noise: standard deviation of sqrt(reward) of one theta: the median of its prior.
        doubt: standard deviation of log(noise^2) in the prior.
    """

    def __init__(self, inputs: Array, rewards: Array, noise: float, doubt: float) -> None:
        roots = np.sqrt(rewards)
        self._center, self._scale = float(roots.mean()), float(roots.std())
        variance = max((noise / self._scale) ** 2, 2 * _LEAST)
        likelihood = GaussianLikelihood(
            noise_prior=LogNormalPrior(math.log(variance), doubt),
            noise_constraint=GreaterThan(_LEAST, initial_value=variance),
        )
        self._model = SingleTaskGP(
            _tensor(inputs),
            _tensor((roots - self._center) / self._scale)[:, None],
            likelihood=likelihood,
            covar_module=_kernel(inputs.shape[1]),
            outcome_transform=None,
        )
        # BoTorch draws new starting values where a fit has failed: chance of its own, not the
        # caller's.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            evidence = ExactMarginalLogLikelihood(self._model.likelihood, self._model)
            fit_gpytorch_mll(evidence, optimizer_kwargs={"options": {"maxiter": _ITERATIONS}})
        self._model.eval()

    def root(self, inputs: Array) -> Array:
        """Expected sqrt(reward), [N], at `inputs` [N, F]; below 0 where the model goes there."""
        with torch.no_grad(), debug(False):  # debug: a warning of inputs that it learned from
            mean = self._model(_tensor(inputs)).mean
        found: Array = mean.numpy() * self._scale + self._center
        return found

    def sample(self, inputs: Array, normals: Array) -> Array:
        """sqrt(reward), [N], at `inputs` [N, F] by one function drawn from the posterior.

        Args:
            normals: [N] independent standard normal numbers: all the chance in it.
        """
        with torch.no_grad(), debug(False):
            posterior = self._model(_tensor(inputs))
            covariance = posterior.covariance_matrix
            covariance = covariance + _JITTER * torch.eye(len(covariance), dtype=covariance.dtype)
            spread = psd_safe_cholesky(covariance) @ _tensor(normals)
        found: Array = (posterior.mean + spread).numpy() * self._scale + self._center
        return found


def _kernel(features: int) -> ScaleKernel:
    prior = LogNormalPrior(math.log(features) / 2, math.sqrt(3) / 2)
    matern = MaternKernel(nu=2.5, lengthscale_prior=prior)
    matern.lengthscale = math.sqrt(features)
    return ScaleKernel(matern, outputscale_prior=GammaPrior(2.0, 1.0))


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
