"""Evolution: tournaments, crossover and mutation, for thetas that are made of choices.

Sources: the search of Liu et al., "Loss Function Discovery for Object Detection via
Convergence-Simulation Driven Search" (ICLR 2021, arXiv 2102.04700), where the best formulas that
were trained are the parents of the next; how much a child differs is drawn as by Doerr et al.,
"Fast Genetic Algorithms" (GECCO 2017, arXiv 1703.03334).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.algorithm import SearchAlgorithm
from search.config import AlgorithmConfig
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace

_CROSSOVER = 0.5  # of the children have two parents
_REDRAW = 0.5  # of the mutated genes are drawn anew, the others near their parent's
_TOURNAMENT = 4
_TAIL = 1.5  # P(k genes are mutated) ~ k^-1.5
_UNKNOWN = -1.0  # the reward of a start that has none: below every reward


class Evolution(SearchAlgorithm):
    """Children of the best that were told, the start among them.

    A gene is the coordinates whose names agree up to the last dot: a curve ("H1.x1", "H1.y1"), or
    a node of a formula ("cls.3.op", "cls.3.a", "cls.3.b"). A name without a dot is a gene.

    The parents are the best M of all that was told; of four drawn from them with equal chances the
    best is taken. Half of the children have a second parent, and a run of its genes. Then at least
    one gene is mutated, many of them rarely: drawn anew from the whole cube, as genes that are
    choices need, or, as often, one of its coordinates is moved by a normal step of `spread`, as
    curves need. So no child equals a parent, and every theta can come of any other.

    The first round are mutations of the start.
    """

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._gene_of = genes(space.names)
        self._genes = [np.flatnonzero(self._gene_of == g) for g in range(self._gene_of.max() + 1)]
        odds = np.arange(1, len(self._genes) + 1) ** -_TAIL
        self._chance_of_at_most = np.cumsum(odds / odds.sum())
        self._parents = np.array([space.start])
        self._rewards = np.array([_UNKNOWN])

    def policy(self) -> tuple[Array, Array]:
        """Mean of the parents, and their deviation with that of a mutation's step, [D] each."""
        return self._parents.mean(axis=0), np.hypot(self._parents.std(axis=0), self.spread)

    def best_guess(self) -> Array:
        """The best told, [D], the first of equals; the start while nothing is known."""
        best: Array = self._parents[0].copy()
        return best

    def _propose(self, draws: Sequence[Draw]) -> Array:
        return np.array([self._child(draw.generator()) for draw in draws])

    def _child(self, chance: np.random.Generator) -> Array:
        child = self._parent(chance).copy()
        if chance.random() < _CROSSOVER:
            self._cross(child, self._parent(chance), chance)
        self._mutate(child, chance)
        return child

    def _parent(self, chance: np.random.Generator) -> Array:
        # Sorted, the better first: the lowest of some indices wins their tournament.
        winner: Array = self._parents[min(chance.integers(len(self._parents), size=_TOURNAMENT))]
        return winner

    def _cross(self, child: Array, other: Array, chance: np.random.Generator) -> None:
        """A run of genes, from one place to another, is `other`'s: nodes read those before them."""
        first, last = sorted(chance.integers(len(self._genes) + 1, size=2))
        taken = (first <= self._gene_of) & (self._gene_of < last)
        child[taken] = other[taken]

    def _mutate(self, child: Array, chance: np.random.Generator) -> None:
        spread = self.spread
        count = 1 + int(np.searchsorted(self._chance_of_at_most, chance.random()))
        for index in chance.permutation(len(self._genes))[:count]:
            gene = self._genes[index]
            if chance.random() < _REDRAW:
                child[gene] = chance.random(len(gene))
            else:
                at = gene[chance.integers(len(gene))]
                child[at] = reflected(child[at] + spread[at] * chance.standard_normal())

    def _learn_start(self, rewards: Array) -> None:
        if len(rewards):
            self._rewards = np.array([rewards.mean()])

    def _learn(self, thetas: Array, rewards: Array) -> None:
        known = ~np.isnan(rewards)
        parents = np.concatenate([self._parents, thetas[known]])
        all_rewards = np.concatenate([self._rewards, rewards[known]])
        best = np.argsort(-all_rewards, kind="stable")[: self.config.samples]
        self._parents, self._rewards = parents[best], all_rewards[best]

    def _learned(self) -> dict[str, Any]:
        return {"parents": self._parents.tolist(), "rewards": self._rewards.tolist()}

    def _restore(self, learned: dict[str, Any]) -> None:
        self._parents = np.array([self.space.check(theta) for theta in learned["parents"]])
        self._rewards = np.array(learned["rewards"], dtype=np.float64)


def genes(names: Sequence[str]) -> NDArray[np.int64]:
    """The number of each coordinate's gene, [D], from 0 in the order of their first ones.

    Coordinates whose names agree up to the last dot are a gene; a name without a dot is one.
    """
    numbers: dict[str, int] = {}
    of = [name[: name.rfind(".") + 1] or name for name in names]
    return np.array([numbers.setdefault(gene, len(numbers)) for gene in of])


def reflected(x: float) -> float:
    """Where a walk to `x` ends in [0, 1] if it turns around at both ends."""
    return 1 - abs(1 - x % 2)
