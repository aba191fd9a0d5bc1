"""Rehearsal: a search on a cheap hint of the reward, before the first trial is spent."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search.candidates import candidates, climb, genes_of
from search.gaussian_process import Function, GaussianProcess, Prior
from search.space import Array, SearchSpace

_GENERATIONS = 4
_DRAWS = 8  # functions drawn from the model of the hint: each says where to ask next
_CENTERS = 16

Hint = Callable[[Array], float]


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What a rehearsal has found.

    Attributes:
        thetas: [n, D], the best first.
        hints: [n], what the hint says of them.
        model: of the hint, on the space's features.
    """

    thetas: Array
    hints: Array
    model: GaussianProcess

    def guess(self, features: Array) -> Array:
        """What the hint would say, [m], at points with `features` [m, F]; asks nobody."""
        return self.model.mean(features, np.ones((len(features), 1)))


def rehearse(space: SearchSpace, spread: Array, hint: Hint, seed: int, count: int) -> Rehearsal:
    """Look for thetas with a high hint: a pure function of its arguments.

    Generation by generation, functions are drawn from a model of the hint, and it is asked where
    each of them is highest (Thompson sampling).

    Args:
        spread: [D], how far from `space.start` to look.
        hint: theta [D] -> a number that rises with the reward.
        seed: >= 0.
        count: how often to ask about other thetas than the start, 0 to 600.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    genes = genes_of(space.names)
    start = np.array([space.start])
    sizes = [len(part) for part in np.array_split(np.arange(count), _GENERATIONS)]
    asked = candidates(start, spread, genes, sizes[0], generator)
    thetas, hints = _asked(hint, np.concatenate([start, asked]))
    for size in filter(None, sizes[1:]):
        model = _model(space, thetas, hints)
        centers = thetas[np.argsort(-hints, kind="stable")[:_CENTERS]]
        tops = [
            climb(_value(space, model.draw(generator)), centers, spread, genes, generator)
            for _ in range(min(_DRAWS, size))
        ]
        # The best of each draw, then the second best, and so on.
        ranked = np.stack(tops, axis=1).reshape(-1, space.dimension)
        more = _asked(hint, ranked[:size])
        thetas, hints = np.concatenate([thetas, more[0]]), np.concatenate([hints, more[1]])
    order = np.argsort(-hints, kind="stable")
    return Rehearsal(thetas[order], hints[order], _model(space, thetas, hints))


def _asked(hint: Hint, thetas: Array) -> tuple[Array, Array]:
    return thetas, np.array([hint(theta) for theta in thetas])


def _value(space: SearchSpace, drawn: Function) -> Callable[[Array], Array]:
    return lambda thetas: drawn(space.features_of(thetas), np.ones((len(thetas), 1)))


def _model(space: SearchSpace, thetas: Array, hints: Array) -> GaussianProcess:
    features = space.features_of(thetas)
    scale = max(float(hints.std()), 1e-6)
    prior = Prior(
        beta=np.array([hints.mean()]),
        beta_spread=np.array([scale]),
        length=typical_length(features),
        signal=scale,
        noise=0.2 * scale,  # what the features do not tell
    )
    return GaussianProcess(features, np.ones((len(thetas), 1)), hints, prior)


def typical_length(features: Array) -> float:
    """Half of how far `features` [n, F] are from their mean, in the median: a first guess."""
    apart = np.linalg.norm(features - features.mean(0), axis=1)
    return max(float(np.median(apart)), 1e-3)
