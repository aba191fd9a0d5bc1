"""CEM: the cross-entropy method with independent truncated normals."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from search.config import AlgorithmConfig
from search.history_search import HistorySearch
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace
from search.truncated_normal import TruncatedNormal


def cem_update(
    mean: Array, std: Array, elites: Array, *, smoothing: float, floor: Array
) -> tuple[Array, Array]:
    """(mean, std), [D] each, moved towards those of `elites` [E, D], E >= 1.

    With the elites' mean m and their deviation s around m,

        mean <- (1 - smoothing) mean + smoothing m
        std  <- max(floor, (1 - smoothing) std + smoothing s)

    so that a coordinate that few lucky elites agree on does not stand still at once.

    Source: de Boer et al., "A Tutorial on the Cross-Entropy Method" (2005), algorithm 4.1 with
    smoothed updating; the floor stands in for their "injection" of variance.
    """
    mean = mean + smoothing * (elites.mean(axis=0) - mean)
    std = std + smoothing * (elites.std(axis=0) - std)
    return mean, np.maximum(std, floor)


class CEM(HistorySearch):
    """Truncated normals that follow the best samples of the last rounds.

    Rewards of one theta spread as far as neighbours differ, so the elites are chosen among several
    rounds: twice as many samples for the same trials. The first mean is the space's start; the best
    guess is the mean.

    Attributes:
        WINDOW: rounds that the elites are chosen from.
        ELITES: their share of the window's samples that did not fail.
        SMOOTHING: how far mean and spread go towards the elites' in one round.
        FLOOR: the least spread, as a share of the first.
    """

    SIGMA: ClassVar[float] = 0.15
    WINDOW: ClassVar[int] = 3
    ELITES: ClassVar[float] = 0.25
    SMOOTHING: ClassVar[float] = 0.5
    FLOOR: ClassVar[float] = 0.2

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._mean, self._std = np.array(space.start), self.spread
        self._sizes: list[int] = []

    def policy(self) -> tuple[Array, Array]:
        """Location and scale, [D] each, of the truncated normals of the current round."""
        return self._mean.copy(), self._std.copy()

    def best_guess(self) -> Array:
        """The policy's mean, [D]."""
        return self._mean.copy()

    def _propose(self, draws: Sequence[Draw]) -> Array:
        uniforms = np.array([draw.uniforms(self.space.dimension) for draw in draws])
        return TruncatedNormal(self._mean, self._std).sample(uniforms)

    def _learn(self, thetas: Array, rewards: Array) -> None:
        before = len(self._rewards)
        super()._learn(thetas, rewards)
        self._sizes = [*self._sizes, len(self._rewards) - before][-self.WINDOW :]
        if self._sizes[-1] == 0:
            return
        recent = slice(len(self._rewards) - sum(self._sizes), None)
        order = np.argsort(-self._rewards[recent], kind="stable")
        elites = order[: max(1, round(self.ELITES * len(order)))]
        self._mean, self._std = cem_update(
            self._mean,
            self._std,
            self._thetas[recent][elites],
            smoothing=self.SMOOTHING,
            floor=self.FLOOR * self.spread,
        )

    def _learned(self) -> dict[str, Any]:
        policy = {"mean": self._mean.tolist(), "std": self._std.tolist(), "sizes": self._sizes}
        return {**super()._learned(), **policy}

    def _restore(self, learned: dict[str, Any]) -> None:
        super()._restore(learned)
        self._mean = self.space.check(learned["mean"])
        self._std = np.array(learned["std"], dtype=np.float64)
        self._sizes = list(learned["sizes"])
