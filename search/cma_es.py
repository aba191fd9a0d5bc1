"""CMA-ES: a full normal distribution that adapts to the ranks of its samples, by `cmaes`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from search.algorithm import SearchAlgorithm
from search.config import AlgorithmConfig
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace

if TYPE_CHECKING:
    from cmaes import CMA


class CMAES(SearchAlgorithm):
    """The evolution strategy with covariance matrix adaptation; the best guess is its mean.

    A round is a generation. It learns from ranks alone, so rewards need no scale. What is no
    sample of the current distribution:

    - A failed sample is no evidence: the mean takes its place, at the median reward of the others.
      There it moves nothing and leaves the others' ranks in balance. A round without evidence is
      passed over.
    - A sample drawn ahead, from the distribution before, is brought within reach of the current
      one (`pull_in`), as far off samples would blow up the step size.
    - A sample that a screen let pass is taken as it is: the mean goes where those are better.

    The state is the rounds that were told, and told again to a new `cmaes.CMA`.

    Sources: Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772); Nomura and
    Shibata, "cmaes: A Simple yet Practical Python Library for CMA-ES" (arXiv 2402.01373).
    """

    SIGMA: ClassVar[float] = 0.1
    REQUIRES: ClassVar[tuple[str, ...]] = ("cmaes",)

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._told: list[tuple[Array, Array]] = []
        self._cma = self._new()

    def policy(self) -> tuple[Array, Array]:
        """Mean and standard deviation by coordinate, [D] each, before the cut to the cube."""
        return np.clip(self._cma.mean, 0, 1), np.sqrt(np.diag(_covariance(self._cma)))

    def best_guess(self) -> Array:
        """The distribution's mean, [D]."""
        return self.policy()[0]

    def _new(self) -> "CMA":
        from cmaes import CMA

        sigma = float(np.sqrt(np.mean(self.spread**2)))
        with np.errstate(divide="ignore"):  # two samples a round leave nothing for its rank-mu part
            return CMA(
                mean=np.array(self.space.start),
                sigma=sigma,
                cov=np.diag((self.spread / sigma) ** 2),
                bounds=np.tile([0.0, 1.0], (self.space.dimension, 1)),
                population_size=self.config.samples,
                seed=0,
            )

    def _propose(self, draws: Sequence[Draw]) -> Array:
        return np.array([self._sample(draw) for draw in draws])

    def _sample(self, draw: Draw) -> Array:
        self._cma.reseed_rng(draw.integer())
        theta: Array = self._cma.ask()
        return np.clip(theta, 0, 1)

    def _learn(self, thetas: Array, rewards: Array) -> None:
        self._told.append((thetas.copy(), rewards.copy()))
        self._update(thetas, rewards, len(self._ahead.thetas))

    def _update(self, thetas: Array, rewards: Array, early: int) -> None:
        known = ~np.isnan(rewards)
        if not known.any():
            return
        mean = self._cma.mean.copy()
        points = thetas.copy()
        points[:early] = pull_in(points[:early], mean, _covariance(self._cma))
        points[~known] = mean
        losses = -np.where(known, rewards, np.median(rewards[known]))
        self._cma.tell([(point, float(loss)) for point, loss in zip(points, losses, strict=True)])

    def _learned(self) -> dict[str, Any]:
        rounds = [
            {"thetas": thetas.tolist(), "rewards": [None if np.isnan(r) else r for r in rewards]}
            for thetas, rewards in self._told
        ]
        return {"rounds": rounds}

    def _restore(self, learned: dict[str, Any]) -> None:
        self._told = [
            (
                np.array([self.space.check(theta) for theta in told["thetas"]]),
                np.array(told["rewards"], dtype=np.float64),  # None becomes NaN
            )
            for told in learned["rounds"]
        ]
        self._cma = self._new()
        for number, (thetas, rewards) in enumerate(self._told):
            self._update(thetas, rewards, self.config.overlap if number else 0)


def pull_in(points: Array, mean: Array, covariance: Array) -> Array:
    """`points` [N, D], those far from `mean` [D] moved towards it: [N, D].

    No farther than sqrt(D) + 2 D / (D + 2) standard deviations by `covariance` [D, D], which few of
    its own samples exceed.

    Source: Hansen, "Injecting External Solutions Into CMA-ES" (arXiv 1110.4181), equation 4.
    """
    dimension = len(mean)
    steps = points - mean
    lengths = np.sqrt((steps * np.linalg.solve(covariance, steps.T).T).sum(axis=1))
    reach = np.sqrt(dimension) + 2 * dimension / (dimension + 2)
    moved: Array = mean + steps * (reach / np.maximum(lengths, reach))[:, None]
    return moved


def _covariance(cma: "CMA") -> Array:
    # The package tells its mean but not its spread. From the factors that it samples with: they are
    # the same whether or not it has sampled before.
    axes, lengths = cma._eigen_decomposition()
    covariance: Array = (axes * (cma._sigma * lengths) ** 2) @ axes.T
    return covariance
