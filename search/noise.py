"""How much rewards spread over training seeds, and what that leaves open about who is best.

The model: score = mean of its loss + luck of its seed + luck of the run, all normal. Runs with one
seed share an initialization and an order of images, so part of their luck is common, and cancels
between losses that met the same seeds; how large that part is, the scores say themselves. It is a
two-way analysis of variance with random effects (Henderson 1975; Gelman et al., Bayesian Data
Analysis, 3rd ed., ch. 15): the losses' means are drawn around a common one, so the best of many
noisy means is not taken at its word.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from search.space import Array

Trained = Mapping[tuple[int, int], float]
Scores = Mapping[tuple[int, int], float | None]
"""Scores (0..1) by (loss, repeat); None: the run failed, which is no evidence. 0: it diverged."""

DRAWS = 8000  # a probability of .05 is met within .005
_LEAST = 1e-4  # standard deviation below which no metric is read
# Of the standard deviation of a run's own luck: how far losses lie apart, and the luck of seeds.
# All are as likely at first. Losses closer together than the least are not told apart anyway.
_BETWEEN = tuple(0.25 * 2.0**k for k in range(9))
_SEED = (0.05, 0.25, 0.5, 1.0, 2.0, 4.0)


class Spread(NamedTuple):
    """How far trials of one loss lie apart when only the training seed changes.

    Attributes:
        sd: pooled sample standard deviation of the reward.
        n: trials that it was measured on.
        df: its degrees of freedom: `n` less the number of losses.
    """

    sd: float
    n: int
    df: int


def spread(records: Iterable[Mapping[str, Any]]) -> Spread | None:
    """The reward's spread over seeds, pooled over every loss that was trained more than once.

    Read off baseline, start and final race, whichever there are. Trials that diverged or failed
    are left out: they say nothing about the luck of those that trained.

    Args:
        records: journal records.

    Returns:
        None as long as no loss has two rewards.
    """
    groups: dict[tuple[str, int], list[float]] = {}
    for record in records:
        if record["phase"] in ("baseline", "start", "final") and record["status"] == "ok":
            groups.setdefault((record["phase"], record["round"]), []).append(record["reward"])
    repeated = [np.array(group) for group in groups.values() if len(group) > 1]
    if not repeated:
        return None
    n = sum(map(len, repeated))
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in repeated)
    df = n - len(repeated)
    return Spread(math.sqrt(squares / df), n, df)


def probabilities(results: Scores, candidates: int, others: Scores | None = None) -> Array | None:
    """How likely each candidate is to have the highest mean score of all candidates.

    Posterior probabilities, by Monte Carlo with a fixed seed: equal scores give equal results.

    Args:
        results: the candidates' scores.
        candidates: how many there are.
        others: scores of losses that are no candidates but ran with the same seeds (baseline and
            start): they say how large luck is.

    Returns:
        [candidates], adding up to 1, with 0 for a candidate without a score; None while no loss has
        two scores, so that luck is not known, or while no candidate has one.
    """
    means = draws(results, candidates, others)
    if means is None:
        return None
    best = means == means.max(1, keepdims=True)
    shared: Array = (best / best.sum(1, keepdims=True)).mean(0)
    return shared


def draws(results: Scores, candidates: int, others: Scores | None = None) -> Array | None:
    """[DRAWS, candidates]: the candidates' means as the scores leave them open.

    A mean is that of the runs that train times the share of runs that do; how many diverge is
    known as well as their count tells (Haldane's prior: none that did, none that will). A
    candidate without a score is -inf. None as `probabilities` has it.
    """
    good, beside = _trained(results), _trained(others or {})
    losses = [(0, loss) for loss, _ in good] + [(1, loss) for loss, _ in beside]
    counted = Counter(candidate for (candidate, _), score in results.items() if score is not None)
    if not counted or len(losses) == len(set(losses)):
        return None
    rng = np.random.Generator(np.random.PCG64(0))
    means: Array = np.zeros((DRAWS, candidates))
    if good:
        means = _trained_means(good, candidates, beside, rng)
    trained = Counter(candidate for candidate, _ in good)
    for candidate in range(candidates):
        lasted, diverged = trained[candidate], counted[candidate] - trained[candidate]
        if not counted[candidate]:
            means[:, candidate] = -np.inf
        elif diverged:
            means[:, candidate] *= rng.beta(lasted, diverged, DRAWS) if lasted else 0.0
    return means


def _trained(scores: Scores) -> Trained:
    """Those of runs that neither failed nor diverged, in the order of their keys."""
    return {key: score for key, score in sorted(scores.items()) if score}


def _trained_means(
    scores: Trained, candidates: int, others: Trained, rng: np.random.Generator
) -> Array:
    """[DRAWS, candidates]: means over the runs that train, from the posterior of the model.

    Conditional on the two ratios of the grid the model is linear with known covariance up to the
    scale, so effects are Student t; the cells are mixed by their marginal likelihood.
    """
    y, design, fixed = _design(scores, candidates, others)
    n, size = design.shape
    cells = np.array([(a, b) for a in _BETWEEN for b in _SEED])
    precision = np.zeros((len(cells), size))  # 0 for the means that nothing is assumed of
    precision[:, fixed : fixed + candidates] = cells[:, :1] ** -2
    precision[:, fixed + candidates :] = cells[:, 1:] ** -2

    # Henderson's equations, of all cells at once.
    system = design.T @ design + precision[:, :, None] * np.eye(size)
    inverse = np.linalg.inv(system)
    effects = inverse @ (design.T @ y)
    squares = ((y - effects @ design.T) ** 2).sum(1) + (precision * effects**2).sum(1) + _LEAST**2
    df = n - fixed + 1
    prior = np.log(precision[:, fixed:]).sum(1)
    logs = 0.5 * (prior - np.linalg.slogdet(system)[1] - df * np.log(squares))
    weights = np.exp(logs - logs.max())

    to_means = np.eye(candidates, size, k=fixed)
    to_means[:, 0] = 1
    centre = effects @ to_means.T
    scale = np.linalg.cholesky(to_means @ inverse @ to_means.T)
    # Evenly spaced over the cells' shares, rather than drawn: less noise.
    share = np.cumsum(weights) / weights.sum()
    cell = np.searchsorted(share, (np.arange(DRAWS) + 0.5) / DRAWS)
    sd = np.sqrt(squares[cell] / rng.chisquare(df, DRAWS))
    luck = np.einsum("dij,dj->di", scale[cell], rng.standard_normal((DRAWS, candidates)))
    means: Array = centre[cell] + sd[:, None] * luck
    return means


def _design(scores: Trained, candidates: int, others: Trained) -> tuple[Array, Array, int]:
    """Scores [n]; what each is a sum of [n, size]; the number of columns with a flat prior.

    Columns: the candidates' common mean, the mean of each other loss, each candidate's distance
    from the common mean, the luck of each seed.
    """
    losses = sorted({loss for loss, _ in others})
    seeds = sorted({seed for _, seed in (*scores, *others)})
    fixed = 1 + len(losses)
    design = np.zeros((len(scores) + len(others), fixed + candidates + len(seeds)))
    for row, (candidate, seed) in enumerate(scores):
        design[row, [0, fixed + candidate, fixed + candidates + seeds.index(seed)]] = 1
    for row, (loss, seed) in enumerate(others, start=len(scores)):
        design[row, [1 + losses.index(loss), fixed + candidates + seeds.index(seed)]] = 1
    return np.array([*scores.values(), *others.values()]), design, fixed
