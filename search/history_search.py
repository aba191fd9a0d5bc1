"""HistorySearch: algorithms that keep all they were told and build their model from it."""

from typing import Any

import numpy as np

from search.algorithm import SearchAlgorithm
from search.config import AlgorithmConfig
from search.screen import Screen
from search.space import Array, SearchSpace


class HistorySearch(SearchAlgorithm):
    """What was tried, as it is: [n, D] thetas and [n] rewards, in the order of rounds and slots.

    A model that is a function of these alone, built when it is asked for, makes a search that is
    resumed the same search: no hyperparameter is carried on from the model before. Failed samples
    are left out; the start's rewards come first, for a model that has a use for them.
    """

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._thetas: Array = np.empty((0, space.dimension))
        self._rewards: Array = np.empty(0)

    def _add_start(self, rewards: Array) -> None:
        """For a model that the start's `rewards` are evidence for."""
        start = np.array(self.space.start)
        self._learn(np.tile(start, (len(rewards), 1)), rewards)

    def _learn(self, thetas: Array, rewards: Array) -> None:
        known = ~np.isnan(rewards)
        self._thetas = np.concatenate([self._thetas, thetas[known]])
        self._rewards = np.concatenate([self._rewards, rewards[known]])

    def _learned(self) -> dict[str, Any]:
        return {"thetas": self._thetas.tolist(), "rewards": self._rewards.tolist()}

    def _restore(self, learned: dict[str, Any]) -> None:
        thetas = [self.space.check(theta) for theta in learned["thetas"]]
        self._thetas = np.array(thetas).reshape(-1, self.space.dimension)
        self._rewards = np.array(learned["rewards"], dtype=np.float64)
