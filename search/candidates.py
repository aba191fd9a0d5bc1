"""Points around good points, for algorithms that choose among many before they try one."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from search.space import Array
from search.truncated_normal import TruncatedNormal

_CROSSED = 0.3  # of the candidates: genes of two centers
_MOVED = 0.3  # of the coordinates take a whole step, the others a small one
_SMALL = 0.1
_STEPS = (0.1, 1.0)  # of the spread: how far a candidate goes is log-uniform
_POOL = 200  # candidates of a generation of `climb`
_KEPT = 20
_GENERATIONS = 6
_SHRINK = 0.75


def genes_of(names: Sequence[str]) -> NDArray[np.int64]:
    """Which coordinates belong together, by the part of their names before the last dot: [D].

    "H1.x1" and "H1.y3" are of one gene, and "gradient_scale" is one by itself.
    """
    owners = [name.rpartition(".")[0] or name for name in names]
    order = {owner: index for index, owner in enumerate(dict.fromkeys(owners))}
    return np.array([order[owner] for owner in owners])


def candidates(
    centers: Array,
    spread: Array,
    genes: NDArray[np.int64],
    count: int,
    generator: np.random.Generator,
) -> Array:
    """Random points around `centers`, some of them with genes of two.

    Args:
        centers: [C, D] in [0, 1], the best first: the i-th is taken in proportion to 1 / (i + 1).
        spread: [D], > 0: the standard deviation of the widest steps.
        genes: [D], see `genes_of`.

    Returns:
        [count, D] in [0, 1].
    """
    dimension = centers.shape[1]
    chances = 1 / np.arange(1, len(centers) + 1)
    parents = generator.choice(len(centers), size=(2, count), p=chances / chances.sum())
    other = generator.random((count, genes.max() + 1))[:, genes] < 0.5
    crossed = (generator.random((count, 1)) < _CROSSED) & other
    middle = np.where(crossed, centers[parents[1]], centers[parents[0]])
    low, high = np.log(_STEPS)
    step = np.exp(generator.uniform(low, high, (count, 1)))
    moved = np.where(generator.random((count, dimension)) < _MOVED, 1.0, _SMALL)
    normal = TruncatedNormal(middle, spread * step * moved)
    return normal.sample(generator.random((count, dimension)))


def climb(
    value: Callable[[Array], Array],
    centers: Array,
    spread: Array,
    genes: NDArray[np.int64],
    generator: np.random.Generator,
) -> Array:
    """Points where a function that costs little is high: [_KEPT, D] in [0, 1], the best first.

    Generation by generation the best so far are the centers of the next candidates, whose steps
    shrink.

    Args:
        value: [n, D] -> [n].
        centers, spread, genes: see `candidates`.
    """
    pool = candidates(centers, spread, genes, _POOL, generator)
    values = value(pool)
    for generation in range(1, _GENERATIONS):
        best = pool[np.argsort(-values, kind="stable")[:_KEPT]]
        narrower = spread * _SHRINK**generation
        fresh = candidates(best, narrower, genes, _POOL, generator)
        pool = np.concatenate([best, fresh])
        values = value(pool)
    found: Array = pool[np.argsort(-values, kind="stable")[:_KEPT]]
    return found
