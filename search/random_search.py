"""Random search: uniform samples of the unit cube, the yardstick for everything that learns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from search.algorithm import SearchAlgorithm
from search.config import AlgorithmConfig
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace


class RandomSearch(SearchAlgorithm):
    """Samples uniformly in every round and remembers the best sample (the first of equals).

    Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012.
    """

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._best = np.array(space.start)
        self._best_reward = -1.0  # below every reward

    def policy(self) -> tuple[Array, Array]:
        """Mean 1/2 and standard deviation 1/sqrt(12) of the uniform distribution, [D] each."""
        dimension = self.space.dimension
        return np.full(dimension, 0.5), np.full(dimension, 12**-0.5)

    def best_guess(self) -> Array:
        """The sample with the highest reward so far, [D]; the start while there is none."""
        return self._best.copy()

    def _propose(self, draws: Sequence[Draw]) -> Array:
        return np.array([draw.uniforms(self.space.dimension) for draw in draws])

    def _learn(self, thetas: Array, rewards: Array) -> None:
        for theta, reward in zip(thetas, rewards, strict=True):
            if reward > self._best_reward:  # false for NaN
                self._best, self._best_reward = theta.copy(), float(reward)

    def _learned(self) -> dict[str, Any]:
        return {"best": self._best.tolist(), "best_reward": self._best_reward}

    def _restore(self, learned: dict[str, Any]) -> None:
        self._best = self.space.check(learned["best"])
        self._best_reward = float(learned["best_reward"])
