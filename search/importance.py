"""How much samples of another policy count: where a round was begun before the last was over."""

import numpy as np

from search.space import Array
from search.truncated_normal import TruncatedNormal

_MAX_LOG_WEIGHT = 20.0  # out of reach with sane settings; keeps weights finite with any


def importance(thetas: Array, now: tuple[Array, Array], then: tuple[Array, Array]) -> Array:
    """How much samples of another policy count for an update of this one: [M] weights, > 0.

    (prod_n p_now / p_then) ^ (1 / D): the ratio of a coordinate, in the geometric mean, as the
    update too clamps ratios coordinate by coordinate. The whole product would be unbiased, but over
    D coordinates it lets one sample count for a hundred others, and a search learns less by it:
    benchmarks/results/overlap.md.

    Args:
        thetas: [M, D] in [0, 1].
        now, then: location and scale, [D] each, of the policy that learns and of the one that the
            samples are of.
    """
    change = TruncatedNormal(*now).log_prob(thetas) - TruncatedNormal(*then).log_prob(thetas)
    weights: Array = np.exp(np.clip(change.mean(axis=1), -_MAX_LOG_WEIGHT, _MAX_LOG_WEIGHT))
    return weights
