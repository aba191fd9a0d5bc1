"""Parameterized AP Loss (Tao et al., "Searching Parameterized AP Loss for Object Detection",
NeurIPS 2021, section 3).

AP as a function of scores and boxes is made of step functions. Each is substituted by a
piecewise linear curve, so that the loss has gradients everywhere and the curves can be searched.

Shape letters: N scores, P positives, K segments of a curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loss.dense_pairs import SmoothPairFunction, dense_pair_sums
from loss.forms import FORMS, Curve
from loss.pair_function import PairFunction
from loss.piecewise_linear import PiecewiseLinear
from loss.ranking import element_sums, pair_sums

CURVES = ("H2", "I2", "I3", "I1", "H1")
"""The order of the curves wherever control points are exchanged."""

_FLOOR = 1e-6
"""The least sum_j H1: a curve that is flat at 0 over every pair would divide by 0."""

ControlPoints = Tensor | Sequence[Any] | Mapping[str, Any] | str


@dataclass(frozen=True)
class Curves:
    """The substituted functions: H1 and H2 of score differences, I1, I2, I3 of localisation."""

    H2: PairFunction | SmoothPairFunction
    I2: Curve
    I3: Curve
    I1: Curve
    H1: PairFunction | SmoothPairFunction

    @staticmethod
    def from_control_points(control_points: ControlPoints) -> "Curves":
        """Curves from [5, K + 1, 2], each row with as many segments as it likes.

        Also taken: [4, K + 1, 2] (H1 is the step function), [1, K + 1, 2] (one curve shared by
        all five), a mapping from the names in `CURVES` to [K + 1, 2], or the name of one of the
        paper's hand-crafted forms: "linear", "square", "sqrt", "sigmoid" (`loss.forms`).

        Raises:
            ValueError: another shape, an unknown name, or points that are no curve.
        """
        if isinstance(control_points, str):
            return Curves._from_form(control_points)
        if isinstance(control_points, Mapping):
            unknown = set(control_points) ^ set(CURVES)
            if unknown:
                raise ValueError(
                    f"control points are missing for or have no use for {sorted(unknown)}; "
                    f"expected exactly {list(CURVES)}."
                )
            control_points = [control_points[name] for name in CURVES]
        rows = [torch.as_tensor(row, dtype=torch.float64) for row in control_points]
        if len(rows) not in (1, 4, 5):
            raise ValueError(
                f"control points of {len(rows)} curves were given; expected 5 in the order "
                f"{', '.join(CURVES)}, 4 (without H1), or 1 that is shared by all."
            )
        curves = [PiecewiseLinear(row) for row in rows] * (5 if len(rows) == 1 else 1)
        h1 = PairFunction.from_curve(curves[4]) if len(curves) == 5 else PairFunction.step()
        h2, (i2, i3, i1) = PairFunction.from_curve(curves[0]), curves[1:4]
        return Curves(H2=h2, I2=i2, I3=i3, I1=i1, H1=h1)

    @staticmethod
    def _from_form(name: str) -> "Curves":
        if name not in FORMS:
            raise ValueError(f"unknown form {name!r}; known: {', '.join(map(repr, FORMS))}.")
        h, i = FORMS[name]()
        return Curves(H2=h, I2=i, I3=i, I1=i, H1=h)


def parameterized_ap_loss(
    logits: Tensor,
    localization: Tensor,
    targets: Tensor,
    control_points: ControlPoints | Curves,
    *,
    num_topk: int | None = None,
    detach_denominator: bool = True,
) -> Tensor:
    r"""Parameterized AP Loss over the scores of one mini-batch.

    With x_ij = clip((s_j - s_i) / 2 + 1/2, 0, 1), u = localisation score (0 for negatives), i
    over the positives, j over everything that is not ignored, i included:

    loss = 1/P sum_i [1 - I1(u_i) + I3(u_i) sum_j H2(x_ij) (1 - I2(u_j)) / sg(sum_j H1(x_ij))]

    Exact, in O((N + P K) log(P K)) time and O(N + P K) memory; the forms "sqrt" and "sigmoid",
    which are not made of polynomials, in O(N P) time and by chunks. sg blocks the gradient. A GPU
    makes the host wait once, for the positives; the criterion, which is given them, never does.

    Args:
        logits: [N] float; float16 and bfloat16 are computed in float32.
        localization: [N] float, clipped to [0, 1]; 0 at negatives, which have no box.
        targets: [N] integer: 1 positive, 0 negative, -1 ignored.
        control_points: [5, K + 1, 2] in the order H2, I2, I3, I1, H1; without H1, or "linear";
            see `Curves.from_control_points`.
        num_topk: rank only the highest scores, as the released code does (100,000 there), for
            parity; None ranks all. Positives outside stay in the sum over i.
        detach_denominator: sg; False lets the gradient through.

    Returns:
        A scalar of the type of `logits`. Without positives it is 0 and has zero gradients; with
        a NaN that is not ignored, or a positive's logit that is infinite, it is NaN. Where
        sum_j H1 is less than 1e-6, it counts as that.

    Raises:
        ValueError: shapes that differ; control points that are no curves; an empty cap.

    Source: equations (5) to (8) of the paper; conventions at ties, breakpoints and clip ends
    as in its released code.
    """
    if num_topk is not None and num_topk < 1:
        raise ValueError(f"num_topk is {num_topk}; expected at least 1, or None for all.")
    if not logits.shape == localization.shape == targets.shape or logits.ndim != 1:
        raise ValueError(
            "expected logits, localization and targets of one shape [N]; got "
            f"{tuple(logits.shape)}, {tuple(localization.shape)}, {tuple(targets.shape)}."
        )
    curves = control_points
    if not isinstance(curves, Curves):
        curves = Curves.from_control_points(curves)
    positive = (targets == 1).nonzero().squeeze(1)
    return loss_of_positives(
        logits,
        targets >= 0,
        positive,
        localization[positive],
        # Elsewhere it is not read, and may be anything.
        1 - curves.I2(localization.double().masked_fill(targets != 0, 0)),
        curves,
        num_topk=num_topk,
        detach_denominator=detach_denominator,
    )


def loss_of_positives(
    logits: Tensor,
    valid: Tensor,
    positive: Tensor,
    localization: Tensor,
    negative_weight: Tensor | float,
    curves: Curves,
    *,
    num_topk: int | None,
    detach_denominator: bool,
) -> Tensor:
    """`parameterized_ap_loss`, given the `positive` indices and their `localization` [P].

    `negative_weight` is 1 - I2(u) of negatives: one for all, or [N] (read at negatives only).
    `valid` [N] bool says what is not ignored, and is written to.
    """
    if len(positive) == 0:
        return logits[:0].sum() + localization[:0].sum().to(logits)
    ranked = _ranked(logits.detach(), valid, num_topk)
    present = ranked[positive].double()
    negative = ranked.index_fill_(0, positive, False)
    h1, h2, s = _sums_over_negatives(logits, positive, negative, negative_weight, curves)
    # Positives pull at themselves from both ends; in float64 what cancels, cancels.
    u = localization.double()
    h1 = h1 + _pair_sums(curves.H1, s, s, weights=present)
    h2 = h2 + _pair_sums(curves.H2, s, s, weights=present * (1 - curves.I2(u)))
    if detach_denominator:
        h1 = h1.detach()
    loss = (1 - curves.I1(u) + curves.I3(u) * h2 / h1.clamp(min=_FLOOR)).mean()
    return loss.to(logits.dtype)


def _sums_over_negatives(
    logits: Tensor,
    positive: Tensor,
    negative: Tensor,
    weight: Tensor | float,
    curves: Curves,
) -> tuple[Tensor, Tensor, Tensor]:
    """[P] sum_j H1, [P] sum_j weight_j H2, over the negatives, and [P] the positives' scores."""
    H1, H2 = curves.H1, curves.H2
    if isinstance(weight, float) and isinstance(H1, PairFunction) and isinstance(H2, PairFunction):
        # The case of every training: one walk over all scores for both.
        (h1, h2), s = element_sums(logits, positive, [H1, H2], include=negative)
        return h1, weight * h2, s
    s = logits[positive].double()
    h1 = _pair_sums(H1, logits, s, include=negative)
    if isinstance(weight, float):
        return h1, weight * _pair_sums(H2, logits, s, include=negative), s
    return h1, _pair_sums(H2, logits, s, weights=weight, include=negative), s


def _pair_sums(
    function: PairFunction | SmoothPairFunction,
    scores: Tensor,
    pivots: Tensor,
    *,
    weights: Tensor | None = None,
    include: Tensor | None = None,
) -> Tensor:
    """[P]: near-linear where the function allows it."""
    if isinstance(function, PairFunction):
        return pair_sums(scores, pivots, [function], weights=weights, include=include)[0]
    return dense_pair_sums(scores, pivots, function, weights=weights, include=include)


def _ranked(scores: Tensor, valid: Tensor, num_topk: int | None) -> Tensor:
    """[N] bool: the elements that j runs over."""
    if num_topk is None or num_topk >= len(scores):
        return valid
    # A negative at -inf is still above what is ignored.
    finite = scores.clamp(min=torch.finfo(scores.dtype).min)
    top = finite.masked_fill(~valid, -torch.inf).topk(num_topk).indices
    return valid & torch.zeros_like(valid).index_fill_(0, top, True)
