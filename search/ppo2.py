"""PPO2: the policy of the Parameterized AP Loss search, and its update.

Sources: Tao et al., "Searching Parameterized AP Loss for Object Detection" (NeurIPS 2021, arXiv
2112.05138), the section on the search algorithm and the released code; the clipped objective is
that of Schulman et al., "Proximal Policy Optimization Algorithms" (2017, arXiv 1707.06347).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # type: ignore[import-untyped, unused-ignore]

from search.algorithm import SearchAlgorithm
from search.config import AlgorithmConfig
from search.importance import importance
from search.screen import Screen
from search.seeds import Draw
from search.space import Array, SearchSpace
from search.truncated_normal import TruncatedNormal

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's
_WARM_UP = 0.3  # of the steps: 30 of 100, as released
# Out of reach with sane settings (Adam's epsilon stops the mean some 1e-11 from an end); they
# keep log-odds, and the squares of gradients, finite with any.
_EDGE = 1e-12
_MAX_LOG_RATIO = 340.0


def ppo2_update(
    mean: ArrayLike,
    last_std: ArrayLike,
    std: ArrayLike,
    thetas: ArrayLike,
    rewards: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    screened: bool = False,
    clip: float = 0.1,
    lr: float = 0.01,
    steps: int = 100,
) -> Array:
    """The policy's mean after it has learned from one round.

    With A_m = w_m (r_m - mean(r)), mean(r) weighted by w too, log-odds l of the mean as the free
    variable, and the truncated normal densities q_mn (location sigmoid(l_n), scale std_n) and p_mn
    (location mean_n, scale last_std_n) of coordinate n of sample m, `steps` steps of Adam go down

        loss(l) = -1/M sum_m min(A_m prod_n q_mn / p_mn,
                                 A_m prod_n clamp(q_mn / p_mn, 1 - clip, 1 + clip))

    (clamped by coordinate, not by sample as in Schulman et al.). Step t = 0, 1, ... has the rate
    lr t / w up to the end w = 0.3 steps of the warm-up and lr (1 - (t - w) / (steps - w)) after
    it: the first step is always 0. Adam starts afresh in every round.

    The mean stays as it is if all rewards are equal or fewer than two samples have one.

    Args:
        mean: [D] in (0, 1), the mean that the thetas were drawn with.
        last_std: [D] or a number, > 0: the scale that the thetas were drawn with.
        std: [D] or a number, > 0: the scale of the next round.
        thetas: [M, D] in [0, 1].
        rewards: [M], NaN for a sample that failed: it is left out.
        weights: [M] w, > 0: of samples that were drawn from another policy (`importance`); 1 where
            None, as in the paper.
        screened: whether thetas were drawn again until they passed a screen (`_ratios`).

    Returns:
        The new mean, [D] in (0, 1), float64.

    Raises:
        ValueError: shapes that do not fit, a mean on the boundary, an infinite reward.
    """
    mean, thetas, rewards = (np.array(x, dtype=np.float64) for x in (mean, thetas, rewards))
    _check_round(mean, thetas, rewards)
    known = ~np.isnan(rewards)
    # Said here, as rounding in mean(r) would otherwise leave Adam a direction to go.
    if known.sum() < 2 or np.ptp(rewards[known]) == 0:
        return mean
    path = ppo2_path(
        mean,
        last_std,
        std,
        thetas[known],
        rewards[known],
        weights=None if weights is None else np.asarray(weights)[known],
        screened=screened,
        clip=clip,
        lr=lr,
        steps=steps,
    )
    *_, log_odds = path
    new_mean: Array = np.clip(special.expit(log_odds), _EDGE, 1 - _EDGE)
    return new_mean


def ppo2_path(
    mean: Array,
    last_std: ArrayLike,
    std: ArrayLike,
    thetas: Array,
    rewards: Array,
    *,
    weights: Array | None = None,
    screened: bool = False,
    clip: float,
    lr: float,
    steps: int,
) -> Iterator[Array]:
    """The mean's log-odds [D] after each of the Adam steps of `ppo2_update`, whose words it uses.

    All rewards count here: no NaN.
    """
    if weights is None:
        weights = np.ones_like(rewards)
        advantages = rewards - rewards.mean()
    else:
        advantages = weights * (rewards - np.average(rewards, weights=weights))
    passed = weights if screened else None
    log_prob_old = TruncatedNormal(mean, np.asarray(last_std)).log_prob(thetas)
    log_odds = special.logit(mean)
    first, second = np.zeros_like(mean), np.zeros_like(mean)
    warm_up = _WARM_UP * steps
    for t in range(steps):
        rate = lr * (t / warm_up if t <= warm_up else 1 - (t - warm_up) / (steps - warm_up))
        _, gradient = clipped_loss(log_odds, std, thetas, log_prob_old, advantages, clip, passed)
        first = _BETA1 * first + (1 - _BETA1) * gradient
        second = _BETA2 * second + (1 - _BETA2) * gradient**2
        step = first / (1 - _BETA1 ** (t + 1))
        log_odds = log_odds - rate * step / (np.sqrt(second / (1 - _BETA2 ** (t + 1))) + _EPSILON)
        yield log_odds


def clipped_loss(
    log_odds: Array,
    std: ArrayLike,
    thetas: Array,
    log_prob_old: Array,
    advantages: Array,
    clip: float,
    passed: Array | None = None,
) -> tuple[float, Array]:
    """The loss of `ppo2_update` and its gradient with respect to the mean's log-odds.

    Where it has a kink, the gradient follows automatic differentiation's conventions: a tie of
    the minimum takes half of both sides, a ratio on an end of the clamp passes.

    Args:
        log_odds: [D]. std: [D] or a number. thetas: [M, D]. log_prob_old: [M, D], log p_mn.
        advantages: [M].
        passed: [M], how much each sample counts for what passes a screen; None: there was none.

    Returns:
        (loss, gradient [D]).
    """
    mean = special.expit(log_odds)
    policy = TruncatedNormal(mean, np.asarray(std))
    change, score = _ratios(policy, thetas, log_prob_old, passed)
    low, high = np.log(1 - clip), np.log(1 + clip)
    passes = (low <= change) & (change <= high)
    free = advantages * np.exp(np.minimum(change.sum(axis=1), _MAX_LOG_RATIO))  # [M]
    clamped = advantages * np.exp(np.clip(change, low, high).sum(axis=1))  # [M]
    share = (np.sign(clamped - free) + 1) / 2  # of the free side in the minimum: 0, 1/2 or 1
    weight = (share * free)[:, None] + ((1 - share) * clamped)[:, None] * passes  # [M, D]
    slope = (weight * score).mean(axis=0)
    return -float(np.minimum(free, clamped).mean()), -slope * mean * (1 - mean)


def _ratios(
    policy: TruncatedNormal, thetas: Array, log_prob_old: Array, passed: Array | None
) -> tuple[Array, Array]:
    """Logarithms of the densities' ratios, [M, D], and their derivatives by the location.

    Samples that passed a screen have the density p / Z, where Z is the share of the policy that
    passes, so that a ratio is q / p times Z_p / Z_q. The samples tell what that is: Z_q / Z_p is
    the mean of q / p over what passed at p. Here so by coordinate, as the clamp is, which is right
    to first order in how far Z moves, and exact where the screen looks at one coordinate.
    """
    change, score = policy.log_prob(thetas) - log_prob_old, policy.score(thetas)
    if passed is None:
        return change, score
    top = change.max(axis=0)
    parts = passed[:, None] * np.exp(change - top)  # [M, D]
    share = parts.sum(axis=0)
    moved = top + np.log(share / passed.sum())
    return change - moved, score - (parts / share * score).sum(axis=0)


def share_of_round(round: int, rounds: int) -> float:
    """What is left of the first spread in `round` (0 to `rounds`): linear towards 0, never there.

    The policy after the last round keeps the last round's spread, 1 / rounds of the first.
    """
    return (rounds - min(round, rounds - 1)) / rounds


class PPO2(SearchAlgorithm):
    """A truncated normal policy: its mean learns by `ppo2_update`, its spread shrinks by plan.

    The first mean is the space's start; the best guess is the mean.

    With a screen, samples are of the policy given that they pass, p(theta) / Z, where Z is the
    share that passes; the ratios of a round in which some did not pass allow for Z (`_ratios`).
    Without, the mean drifts towards where it screens less, or does not dare to leave it. So the
    mean goes where those that pass are better: only those are tried.
    """

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        super().__init__(space, config, seed, screen)
        self._mean = np.array(space.start)
        self._mean_before = self._mean

    def policy(self) -> tuple[Array, Array]:
        """Location and scale, [D] each, of the truncated normals of the current round."""
        return self._mean.copy(), self._std(self.round)

    def best_guess(self) -> Array:
        """The policy's mean, [D]."""
        return self._mean.copy()

    def _propose(self, draws: Sequence[Draw]) -> Array:
        uniforms = np.array([draw.uniforms(self.space.dimension) for draw in draws])
        return TruncatedNormal(self._mean, self._std(self.round)).sample(uniforms)

    def _learn(self, thetas: Array, rewards: Array) -> None:
        weights = self._weights(thetas)
        self._mean_before = self._mean
        self._mean = ppo2_update(
            self._mean,
            self._std(self.round),
            self._std(self.round + 1),
            thetas,
            rewards,
            weights=weights,
            screened=bool(self.rejections),
            clip=self.config.clip,
            lr=self.config.learning_rate,
            steps=self.config.steps,
        )

    def _weights(self, thetas: Array) -> Array | None:
        """1 for the samples of the current policy; None where all are."""
        early = len(self._ahead.thetas)
        if not early:
            return None
        before = self._mean_before, self._std(self.round - 1)
        weights = np.ones(len(thetas))
        weights[:early] = importance(thetas[:early], self.policy(), before)
        return weights

    def _learned(self) -> dict[str, Any]:
        return {"mean": self._mean.tolist(), "mean_before": self._mean_before.tolist()}

    def _restore(self, learned: dict[str, Any]) -> None:
        self._mean = self.space.check(learned["mean"])
        self._mean_before = self.space.check(learned["mean_before"])

    def _std(self, round: int) -> Array:
        return self.spread * share_of_round(round, self.config.rounds)


def _check_round(mean: Array, thetas: Array, rewards: Array) -> None:
    if mean.ndim != 1 or not ((mean > 0) & (mean < 1)).all():
        raise ValueError(f"the mean has to be [D] numbers between 0 and 1, ends out, got {mean}.")
    if thetas.shape != (*rewards.shape, *mean.shape) or rewards.ndim != 1:
        raise ValueError(
            f"got thetas {thetas.shape} and rewards {rewards.shape} for a mean {mean.shape}; "
            "expected [M, D], [M] and [D]."
        )
    if np.isinf(rewards).any():
        raise ValueError(f"rewards have to be finite, or NaN for a failed sample, got {rewards}.")
