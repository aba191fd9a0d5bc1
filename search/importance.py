"""How much samples of another policy count: where a round was begun before the last was over."""

import numpy as np

from search.space import Array
from search.truncated_normal import TruncatedNormal

_MAX_LOG_WEIGHT = 20.0  # out of reach with sane settings; keeps weights finite with any


def importance(thetas: Array, now: tuple[Array, Array], then: tuple[Array, Array]) -> Array:
    """How much samples of another policy count for an update of this one: [M] weights, > 0.

    (prod_n p_now / p_then) ^ (1 / sqrt(D)). The whole ratio would be unbiased, but over D
    coordinates it makes one sample count for a hundred others: the root keeps the spread of its
    logarithm to that of a single coordinate. benchmarks/results/overlap.md has what either costs.

    Args:
        thetas: [M, D] in [0, 1].
        now, then: location and scale, [D] each, of the policy that learns and of the one that the
            samples are of.
    """
    change = TruncatedNormal(*now).log_prob(thetas) - TruncatedNormal(*then).log_prob(thetas)
    log_weights = change.sum(axis=1) / np.sqrt(thetas.shape[1])
    weights: Array = np.exp(np.clip(log_weights, -_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT))
    return weights
