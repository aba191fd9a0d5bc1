"""TPE: the tree-structured Parzen estimator, by Optuna."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from search.history_search import HistorySearch
from search.seeds import Draw
from search.space import Array
from search.truncated_normal import TruncatedNormal

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


class TPE(HistorySearch):
    """Two mixtures of normals, of the best samples and of the others; draws where they differ most.

    All coordinates together (`multivariate`), as those of one curve mean nothing by themselves.
    Of few samples it makes mixtures that send it to wherever none is, so the first STARTUP are
    normal around the start. The best guess is the theta with the highest reward, the first of
    equals; the mean of the start's repeats is one reward.

    Sources: Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011); Falkner
    et al., "BOHB" (ICML 2018); Akiba et al., "Optuna" (KDD 2019).

    Attributes:
        STARTUP: rewards that it waits for.
        CANDIDATES: points that a sample is the best of.
    """

    SIGMA: ClassVar[float] = 0.15
    REQUIRES: ClassVar[tuple[str, ...]] = ("optuna",)
    STARTUP: ClassVar[int] = 8
    CANDIDATES: ClassVar[int] = 24

    def policy(self) -> tuple[Array, Array]:
        """Mean and deviation, [D] each, of the best samples; a mixture has no simpler ones."""
        if not self._is_ready():
            return np.array(self.space.start), self.spread
        order = np.argsort(-self._rewards, kind="stable")
        best = self._thetas[order[: min(25, -(-len(order) // 10))]]  # as many as Optuna calls so
        return best.mean(axis=0), np.maximum(best.std(axis=0), 0.1 * self.spread)

    def best_guess(self) -> Array:
        """The theta with the highest reward so far, [D]; the start while there is none."""
        if not len(self._rewards):
            return np.array(self.space.start)
        best: Array = self._thetas[np.argmax(self._rewards)].copy()
        return best

    def _propose(self, draws: Sequence[Draw]) -> Array:
        if not self._is_ready():
            uniforms = np.array([draw.uniforms(self.space.dimension) for draw in draws])
            return TruncatedNormal(np.array(self.space.start), self.spread).sample(uniforms)
        with _quiet():
            study = self._study()
            return np.array([self._sample(study, draw) for draw in draws])

    def _learn_start(self, rewards: Array) -> None:
        if len(rewards):
            self._add_start(rewards.mean(keepdims=True))

    def _is_ready(self) -> bool:
        return len(self._rewards) >= self.STARTUP

    def _study(self) -> "Study":
        import optuna

        ranges = self._ranges()
        study = optuna.create_study(direction="maximize")
        for theta, reward in zip(self._thetas, self._rewards, strict=True):
            values = dict(zip(ranges, theta.tolist(), strict=True))
            trial = optuna.trial.create_trial(
                params=values, distributions=ranges, value=float(reward)
            )
            study.add_trial(trial)
        return study

    def _sample(self, study: "Study", draw: Draw) -> Array:
        from optuna.samplers import TPESampler

        study.sampler = TPESampler(
            seed=draw.integer(),
            multivariate=True,
            n_startup_trials=0,
            n_ei_candidates=self.CANDIDATES,
            constant_liar=False,  # it would see the round's other samples
        )
        ranges = self._ranges()
        trial = study.ask(ranges)
        return np.array([trial.params[name] for name in ranges])

    def _ranges(self) -> "dict[str, BaseDistribution]":
        from optuna.distributions import FloatDistribution

        # Numbered, as Optuna sorts by name and ours need not keep their order.
        return {f"{n:03d}": FloatDistribution(0.0, 1.0) for n in range(self.space.dimension)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a line for every study and trial; Optuna's level is as it was after it."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
