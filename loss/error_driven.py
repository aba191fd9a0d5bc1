"""Losses of ranks, trained by an error-driven update (aLRP Loss, Oksuz et al., NeurIPS 2020, arXiv
2009.13592, section 3).

Such a loss is L = 1/Z sum_{i in P} l(i) with an error l(i) of every positive. Let H(x_ij) be 1
where j is scored above i, and N_FP(i) = sum_{j in N} H(x_ij) the negatives above i. Definition 1
spreads the error over those negatives: primary terms L_ij = l(i) p(j|i) with
p(j|i) = H(x_ij) / N_FP(i). As p(.|i) sums to 1, Theorem 1 has L = 1/Z sum_ij L_ij, if every
N_FP(i) > 0. The derivative of H is 0 almost everywhere; in its place the terms are moved towards
their targets L*_ij = l*(i) p(j|i), where l*(i) is the error that is left when all negatives are
below i: with Delta x_ij = L*_ij - L_ij,

    dL/ds_i = 1/Z (sum_j Delta x_ij - sum_j Delta x_ji).

A positive is only a first index of such terms, a negative only a second: with e(i) = l(i) - l*(i),

    dL/ds_i = -e(i) / Z,        dL/ds_j = 1/Z sum_{i in P} e(i) H(x_ij) / N_FP(i).

They sum to 0: where e >= 0, positives and negatives get the same sum of magnitudes (Theorem 2). A
loss of this kind is a choice of l, l* and Z; what they are made of is here. As in the paper, H is
smoothed to a ramp of half-width delta.

Shape letters: N scores, P positives.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.pair_function import PairFunction
from loss.ranking import PairIndex, assign_gradient


class Elements(NamedTuple):
    """What a loss ranks: logits [N], which of them are negatives [N] bool, positives [P] indices.

    What is neither is ignored.
    """

    logits: Tensor
    negative: Tensor
    positive: Tensor

    @staticmethod
    def from_targets(logits: Tensor, targets: Tensor) -> "Elements":
        """By targets [N]: 1 positive, 0 negative, everything else is ignored.

        Raises:
            ValueError: shapes that differ.
        """
        if logits.shape != targets.shape or logits.ndim != 1:
            raise ValueError(
                "expected logits and targets of one shape [N]; got "
                f"{tuple(logits.shape)} and {tuple(targets.shape)}."
            )
        return Elements(logits, targets == 0, (targets == 1).nonzero().squeeze(1))

    @staticmethod
    def from_batch(batch: DetectionBatch) -> "Elements":
        """Every anchor and class of the batch; positives in the order of `batch.pos`.

        Unlike the targets, `batch.pos` spares a GPU the wait for how many positives there are.
        """
        positive = batch.positives()
        negative = batch.counted().index_fill_(0, positive, False)
        return Elements(batch.logits.flatten(), negative, positive)


class Ranking:
    """The ranks of positives, with x_ij = clip((s_j - s_i) / (2 delta) + 1/2, 0, 1) for H.

    Not differentiable. Everything of shape [P] is in float64 and in the order of the positives.

    Attributes:
        scores: [P] the positives' logits.
        positives_above: [P] the other positives above i: sum_{k in P, k != i} x_ik.
        false_positives: [P] the negatives above i: N_FP(i) = sum_{j in N} x_ij.
        rank: [P] of i among all: 1 + positives_above + false_positives.

    Where a negative is NaN or a positive is not finite, false_positives and rank are NaN.
    """

    def __init__(self, elements: Elements, ramp: PairFunction) -> None:
        self._elements = elements
        logits, positive = elements.logits.detach(), elements.positive
        self.scores = logits[positive].double()
        self._positives = PairIndex(self.scores, self.scores, [ramp])
        self._negatives = PairIndex(logits, self.scores, [ramp], include=elements.negative)
        self.positives_above = self.sum_above(torch.ones_like(self.scores))
        # A score that is not a number has no rank, and neither has a positive at infinity.
        poison = torch.where(self._negatives.nan, torch.nan, 0.0)
        # No less than 0, where what cancels in the sums leaves a little.
        self.false_positives = self._negatives.sums()[0].clamp(min=0) + poison
        self.rank = 1 + self.positives_above + self.false_positives

    def sum_above(self, weights: Tensor) -> Tensor:
        """[P]: sum_{k in P, k != i} x_ik weights_k, for weights [P] float64."""
        # Every positive ties with itself.
        return self._positives.sums(weights)[0] - weights / 2

    def ascending(self) -> Tensor:
        """[P] the positives from the lowest score to the highest, ties by index."""
        return self.scores.argsort(stable=True)

    def loss(self, value: Tensor, errors: Tensor, least: float = 0.0) -> Tensor:
        """`value` [] as a loss with the error-driven gradient.

        Args:
            errors: [P] e(i) / Z.
            least: a positive with no more false positives than this is content, and moves nothing.

        Returns:
            A scalar in the type of the logits.
        """
        logits, _, positive = self._elements
        # Not the other way round: errors that are NaN have to stay.
        errors = torch.where(self.false_positives <= least, 0.0, errors)
        share = errors / self.false_positives.clamp(min=torch.finfo(errors.dtype).tiny)

        def gradient(upstream: Tensor) -> Tensor:
            at_logits = self._negatives.spread(upstream * share[None])
            return at_logits.index_copy_(0, positive, -(upstream * errors).to(at_logits))

        return assign_gradient(value.to(logits.dtype), logits, gradient)


def no_loss(values: Tensor) -> Tensor:
    """0 with a gradient of zeros at `values`: without positives nothing is ranked, but training
    frameworks want a gradient from every output."""
    return values[:0].sum()
