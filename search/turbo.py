"""Turbo: Thompson samples of a Gaussian process, within reach of the best theta so far."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from search.config import AlgorithmConfig
from search.history_search import HistorySearch
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace
from search.truncated_normal import TruncatedNormal

if TYPE_CHECKING:
    from search.reward_model import RewardModel

_SCALING_POINTS = 1000


class Turbo(HistorySearch):
    """TuRBO-1 for tens of trials instead of thousands.

    The first round is normal around the space's start. After it a Gaussian process (`RewardModel`)
    of what `space.features` sees learns from all rewards, those of the start's repeats too, which
    also say how noisy rewards are. Each sample then draws candidates of its own, and one function
    of the posterior, and is the candidate where that function is highest (Thompson sampling): so a
    round's samples differ by as much as is unknown. The best guess is the tried theta with the
    highest posterior mean, which takes less from a lucky trial than its reward does.

    What differs from Eriksson et al., "Scalable Global Optimization via Local Bayesian
    Optimization" (NeurIPS 2019), whose 2 D first points are more than a whole search here:

    - Trust region: normals with `length` times the first spread around the best guess, in place of
      a box; a share of the candidates (WIDE) is drawn as in the first round, because a region
      around the best of eight trials may be the wrong one. As in TuRBO, a candidate moves only
      some coordinates, MOVED of them on average.
    - Length: a round that found nothing better multiplies it by SHRINK, at once: TuRBO's patience
      of D / M rounds would last until the end. One that did leaves it.
    - Temper: with D this high, the highest of many candidates under a function of the posterior is
      mostly one that little is known of. So the function is brought closer to the posterior mean,
      to TEMPER of its distance: samples still differ, but are where the model expects something.

    Attributes:
        CANDIDATES: of each sample.
        MOST: trials that the model learns from; of more, those nearest to the best.
        NOISE: standard deviation of sqrt(reward) of one theta, before repeats have told.
    """

    SIGMA: ClassVar[float] = 0.15
    REQUIRES: ClassVar[tuple[str, ...]] = ("botorch",)
    CANDIDATES: ClassVar[int] = 512
    WIDE: ClassVar[float] = 0.25
    MOVED: ClassVar[float] = 20
    TEMPER: ClassVar[float] = 0.3
    SHRINK: ClassVar[float] = 0.8
    SHORTEST: ClassVar[float] = 0.2
    MOST: ClassVar[int] = 400
    NOISE: ClassVar[float] = 0.012

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._length = 1.0
        self._repeats = 0
        self._built: tuple[RewardModel, Array] | None = None

    def policy(self) -> tuple[Array, Array]:
        """The trust region's center and standard deviation, [D] each."""
        return self.best_guess(), self.spread * self._length

    def best_guess(self) -> Array:
        """The tried theta with the highest posterior mean, [D]; the start while there is none."""
        if not self._is_ready():
            return np.array(self.space.start)
        return self._model()[1].copy()

    def predict(self, thetas: Array) -> Array | None:
        """Median rewards, [N], of `thetas` [N, D] by the model; None before there is one."""
        if not self._is_ready():
            return None
        return np.clip(self._model()[0].root(self._features(thetas)), 0, 1) ** 2

    def _propose(self, draws: Sequence[Draw]) -> Array:
        if self._is_ready():
            return np.array([self._thompson(draw) for draw in draws])
        uniforms = np.array([draw.uniforms(self.space.dimension) for draw in draws])
        return TruncatedNormal(np.array(self.space.start), self.spread).sample(uniforms)

    def _thompson(self, draw: Draw) -> Array:
        generator = draw.generator()
        candidates = self._candidates(generator)
        features = self._features(candidates)
        model, _ = self._model()
        values = model.sample(features, generator.standard_normal(len(candidates)))
        values = (1 - self.TEMPER) * model.root(features) + self.TEMPER * values
        best: Array = candidates[np.argmax(values)]
        return best

    def _candidates(self, generator: np.random.Generator) -> Array:
        dimension, count = self.space.dimension, self.CANDIDATES
        wide = round(self.WIDE * count)
        center, spread = self.policy()
        moves = generator.random((count, dimension)) < min(1, self.MOVED / dimension)
        centers, spreads = np.tile(center, (count, 1)), np.tile(spread, (count, 1))
        centers[:wide], spreads[:wide], moves[:wide] = self.space.start, self.spread, True
        moved = TruncatedNormal(centers, spreads).sample(generator.random((count, dimension)))
        return np.where(moves, moved, centers)

    def _learn_start(self, rewards: Array) -> None:
        self._add_start(rewards)
        self._repeats = len(rewards)

    def _learn(self, thetas: Array, rewards: Array) -> None:
        best = self._rewards.max(initial=-1)
        super()._learn(thetas, rewards)
        if self._is_ready() and self._rewards.max() <= best:
            self._length = max(self.SHRINK * self._length, self.SHORTEST)
        self._built = None

    def _is_ready(self) -> bool:
        return len(self._rewards) > self._repeats and float(np.ptp(self._rewards)) > 0

    def _model(self) -> "tuple[RewardModel, Array]":
        """The model, and the tried theta that it expects most of; built once a round."""
        if self._built is None:
            from search.reward_model import RewardModel

            inputs = self._features(self._thetas)
            best = inputs[np.argmax(self._rewards)]
            near = np.argsort(((inputs - best) ** 2).sum(axis=1), kind="stable")[: self.MOST]
            near.sort()
            model = RewardModel(inputs[near], self._rewards[near], *self._noise())
            self._built = model, self._thetas[np.argmax(model.root(inputs))]
        return self._built

    def _noise(self) -> tuple[float, float]:
        """Standard deviation of sqrt(reward) of one theta, and doubt about its log variance.

        NOISE counts as two trials' worth of evidence, the start's repeats for what they are.
        """
        roots = np.sqrt(self._rewards[: self._repeats])
        squares = float(((roots - roots.mean()) ** 2).sum()) if len(roots) else 0.0
        freedom = 2 + max(0, len(roots) - 1)
        return float(np.sqrt((2 * self.NOISE**2 + squares) / freedom)), float(np.sqrt(2 / freedom))

    def _features(self, thetas: Array) -> Array:
        """[N, F], each column with mean 0 and spread 1 over the cube."""
        center, scale = self._scaling
        return (self._raw_features(thetas) - center) / scale

    def _raw_features(self, thetas: Array) -> Array:
        return thetas if self.space.features is None else self.space.features(thetas)

    @cached_property
    def _scaling(self) -> tuple[Array, Array]:
        generator = np.random.Generator(np.random.PCG64(0))  # of no search: what the cube is like
        points = self._raw_features(generator.random((_SCALING_POINTS, self.space.dimension)))
        scale = points.std(axis=0)
        return points.mean(axis=0), np.where(scale > 0, scale, 1.0)

    def _learned(self) -> dict[str, Any]:
        own = {"length": self._length, "repeats": self._repeats}
        return {**super()._learned(), **own}

    def _restore(self, learned: dict[str, Any]) -> None:
        super()._restore(learned)
        self._length, self._repeats = float(learned["length"]), int(learned["repeats"])
        self._built = None
