"""Guided: a model of the reward that begins with what a simulated training says.

A simulation of a fraction of a second (`space.hint`) tells most of what tells thetas apart, and
costs no trial. So the search rehearses on it, tries what does best there, and learns from the
trials where the simulation is wrong:

    reward(theta) = a + b hint(theta) + f(features(theta)) + noise

with f a Gaussian process: the autoregressive model of Kennedy and O'Hagan, "Predicting the output
from a complex computer code when fast approximations are available" (Biometrika 2000), at two
levels. Each sample is where one function drawn from the posterior is highest (Thompson 1933), so
the samples of a round differ by as much as is unknown. Without a hint it is a search by a Gaussian
process alone.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from search.algorithm import SearchAlgorithm
from search.candidates import climb, genes_of
from search.config import AlgorithmConfig
from search.gaussian_process import GaussianProcess, Prior
from search.rehearsal import Rehearsal, rehearse, typical_length
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace

_ASKED = 2  # candidates of a sample whose hint is asked for; four find no better ones
_CENTERS = 8  # tried ones, and as many rehearsed ones, that candidates are made around
_NOISE = 0.06  # of the start's reward: one theta's spread over seeds, as far as is known before
_DOUBT = 0.25  # of the start's reward: how far the simulation is off
_LEAST = 1e-3  # of a reward: below it a start says nothing about the scale


class Guided(SearchAlgorithm):
    """See the module; the best guess is the tried theta that the model expects most of."""

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._start: Array = np.empty(0)
        self._thetas: Array = np.empty((0, space.dimension))
        self._rewards: Array = np.empty(0)
        self._genes = genes_of(space.names)
        self._built: GaussianProcess | None = None

    def policy(self) -> tuple[Array, Array]:
        """Mean and standard deviation, [D] each, of what candidates are made around."""
        if not self.round:  # before the rehearsal, which takes its time
            return np.array(self.space.start), self.spread
        centers = self._centers()
        return centers.mean(0), np.maximum(centers.std(0), 0.1 * self.spread)

    def best_guess(self) -> Array:
        """The tried theta with the highest expected reward, [D]: the start, or a sample."""
        tried = self._tried()
        return np.array(tried[np.argmax(self._expected(tried))] if len(tried) > 1 else tried[0])

    def predict(self, thetas: Array) -> Array | None:
        """Expected rewards [N] of `thetas` [N, D], by simulation and by all trials.

        None before the first trial.
        """
        return np.clip(self._expected(thetas), 0, 1) if len(self._thetas) else None

    def _propose(self, draws: Sequence[Draw]) -> Array:
        centers = self._centers()
        return np.array([self._best_candidate(centers, draw.generator()) for draw in draws])

    def _best_candidate(self, centers: Array, generator: np.random.Generator) -> Array:
        """Where a function drawn from the posterior is highest, by the hint itself in the end."""
        drawn = self._model.draw(generator)

        def value(thetas: Array) -> Array:
            features = self.space.features_of(thetas)
            guessed = None if self._rehearsal is None else self._rehearsal.guess(features)
            return drawn(features, _basis(guessed, len(thetas)))

        found = climb(value, centers, self.spread, self._genes, generator)
        if self._rehearsal is None:
            return np.array(found[0])
        first = found[:_ASKED]
        exact = drawn(self.space.features_of(first), self._basis_of(first))
        return np.array(first[np.argmax(exact)])

    def _learn_start(self, rewards: Array) -> None:
        self._start = rewards
        self._built = None

    def _learn(self, thetas: Array, rewards: Array) -> None:
        known = ~np.isnan(rewards)
        self._thetas = np.concatenate([self._thetas, thetas[known]])
        self._rewards = np.concatenate([self._rewards, rewards[known]])
        self._built = None

    def _learned(self) -> dict[str, Any]:
        return {
            "start": self._start.tolist(),
            "thetas": self._thetas.tolist(),
            "rewards": self._rewards.tolist(),
        }

    def _restore(self, learned: dict[str, Any]) -> None:
        thetas = [self.space.check(theta) for theta in learned["thetas"]]
        self._thetas = np.array(thetas).reshape(-1, self.space.dimension)
        self._rewards = np.array(learned["rewards"], dtype=np.float64)
        self._start = np.array(learned["start"], dtype=np.float64)
        self._built = None

    # --- the model ------------------------------------------------------------------------------

    @cached_property
    def _rehearsal(self) -> Rehearsal | None:
        hint, count = self.space.hint, self.config.rehearsal
        return None if hint is None else rehearse(self.space, self.spread, hint, self.seed, count)

    @property
    def _model(self) -> GaussianProcess:
        if self._built is None:
            thetas, rewards = self._thetas, self._rewards
            if len(self._start):  # one observation: the mean of its repeats
                thetas = self._tried()
                rewards = np.concatenate([[self._start.mean()], rewards])
            features, basis = self.space.features_of(thetas), self._basis_of(thetas)
            self._built = GaussianProcess(features, basis, rewards, self._prior(features))
        return self._built

    def _prior(self, features: Array) -> Prior:
        level = float(self._start.mean()) if len(self._start) else 0.0
        if level < _LEAST:  # no start to measure by: as if it had earned what it usually does
            level = max(float(self._rewards.mean()) if len(self._rewards) else 0.0, 0.1)
        # The start's repeats against three repeats' worth of what is known beforehand.
        squares = float(((self._start - self._start.mean()) ** 2).sum()) if len(self._start) else 0
        noise = np.sqrt((squares + 3 * (_NOISE * level) ** 2) / (max(len(self._start) - 1, 0) + 3))
        if self._rehearsal is None:
            length = typical_length(features) if len(features) > 2 else 1.0
            return Prior(np.array([level / 2]), np.array([level]), length, level / 2, noise)
        at_start = self.space.hint(np.array(self.space.start)) if self.space.hint else 1.0
        slope = level / max(at_start, _LEAST)
        return Prior(
            beta=np.array([0.0, slope]),
            beta_spread=np.array([0.2 * level, slope / 2]),
            length=self._rehearsal.model.length,
            signal=_DOUBT * level,
            noise=float(noise),
        )

    def _expected(self, thetas: Array) -> Array:
        return self._model.mean(self.space.features_of(thetas), self._basis_of(thetas))

    def _basis_of(self, thetas: Array) -> Array:
        hint = self.space.hint
        return _basis(hint and np.array([hint(theta) for theta in thetas]), len(thetas))

    def _tried(self) -> Array:
        """The start and all samples that earned a reward, [n, D]."""
        return np.concatenate([[self.space.start], self._thetas])

    def _centers(self) -> Array:
        """The best tried thetas and the best rehearsed ones, the most promising first: [C, D]."""
        centers = self._best(self._tried())
        if self._rehearsal is not None:
            rehearsed = self._rehearsal.thetas[: 4 * _CENTERS]
            centers = np.concatenate([centers, self._best(rehearsed)])
        return self._best(centers, len(centers))

    def _best(self, thetas: Array, count: int = _CENTERS) -> Array:
        order = np.argsort(-self._expected(thetas), kind="stable")
        best: Array = thetas[order[:count]]
        return best


def _basis(hints: Array | None, count: int) -> Array:
    """[count, 1 or 2]: 1, and the hint where there is one."""
    ones = np.ones(count)
    return np.stack([ones] if hints is None else [ones, hints], axis=1)
