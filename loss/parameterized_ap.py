"""Parameterized AP Loss (Tao et al., "Searching Parameterized AP Loss for Object Detection",
NeurIPS 2021, section 3).

AP as a function of scores and boxes is made of step functions. Each is substituted by a
piecewise linear curve, so that the loss has gradients everywhere and the curves can be searched.

Shape letters: N scores, P positives, K segments of a curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.criterion import Criterion, register_criterion
from loss.localization import LOCALIZATION
from loss.piecewise_linear import (
    PiecewiseLinear,
    control_points_from_theta,
    identity_theta,
)
from loss.ranking import PairFunction, pair_sums

CURVES = ("H2", "I2", "I3", "I1", "H1")
"""The order of the curves wherever control points are exchanged."""

_FLOOR = 1e-6
"""The least sum_j H1: a curve that is flat at 0 over every pair would divide by 0."""

ControlPoints = Tensor | Sequence[Any] | Mapping[str, Any] | str


@dataclass(frozen=True)
class Curves:
    """The substituted functions: H1 and H2 of score differences, I1, I2, I3 of localisation."""

    H2: PairFunction
    I2: PiecewiseLinear
    I3: PiecewiseLinear
    I1: PiecewiseLinear
    H1: PairFunction

    @staticmethod
    def from_control_points(control_points: ControlPoints) -> "Curves":
        """Curves from [5, K + 1, 2] (or [4, K + 1, 2]: H1 is the step function).

        Also taken: a mapping from the names in `CURVES` to [K + 1, 2], or the name of a form,
        "linear": every curve the identity.

        Raises:
            ValueError: another shape, an unknown name, or points that are no curve.
        """
        if isinstance(control_points, str):
            if control_points != "linear":
                raise ValueError(f"unknown form {control_points!r}; known: 'linear'.")
            control_points = [[[0.0, 0.0], [1.0, 1.0]]] * len(CURVES)
        if isinstance(control_points, Mapping):
            unknown = set(control_points) ^ set(CURVES)
            if unknown:
                raise ValueError(
                    f"control points are missing for or have no use for {sorted(unknown)}; "
                    f"expected exactly {list(CURVES)}."
                )
            control_points = [control_points[name] for name in CURVES]
        rows = [torch.as_tensor(row, dtype=torch.float64) for row in control_points]
        if len(rows) not in (4, 5):
            raise ValueError(
                f"control points of {len(rows)} curves were given; expected 5 in the order "
                f"{', '.join(CURVES)}, or 4 (without H1)."
            )
        curves = [PiecewiseLinear(row) for row in rows]
        h1 = PairFunction.from_curve(curves[4]) if len(rows) == 5 else PairFunction.step()
        h2, (i2, i3, i1) = PairFunction.from_curve(curves[0]), curves[1:4]
        return Curves(H2=h2, I2=i2, I3=i3, I1=i1, H1=h1)


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

    Exact, in O((N + P K) log(P K)) time and O(N + P K) memory. sg blocks the gradient.

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
        a NaN logit that is not ignored, or a positive that is not finite, it is NaN. Where
        sum_j H1 is less than 1e-6, it counts as that.

    Raises:
        ValueError: shapes that differ.

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
    return _loss(
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


def _loss(
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
    """
    if len(positive) == 0:
        return logits[:0].sum() + localization[:0].sum().to(logits)
    scores = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    ranked = _ranked(scores.detach(), valid, num_topk)
    negative = ranked.index_fill(0, positive, False)
    # -inf is below every window: an element that is not ranked is not there.
    negatives = scores.masked_fill(~negative, -torch.inf)
    # Positives pull at themselves from both ends; in float64 what cancels, cancels.
    s = scores[positive].double()
    u = localization.double()
    present = ranked[positive].double()

    count = negative.sum()
    if isinstance(negative_weight, Tensor):
        h1 = pair_sums(negatives, s, [curves.H1], total=count)[0]
        h2 = pair_sums(negatives, s, [curves.H2], weights=negative_weight * negative)[0]
    else:
        h1, h2 = pair_sums(negatives, s, [curves.H1, curves.H2], total=count)
        h2 = h2 * negative_weight
    h1 = h1 + pair_sums(s, s, [curves.H1], weights=present)[0]
    h2 = h2 + pair_sums(s, s, [curves.H2], weights=present * (1 - curves.I2(u)))[0]
    if detach_denominator:
        h1 = h1.detach()
    loss = (1 - curves.I1(u) + curves.I3(u) * h2 / h1.clamp(min=_FLOOR)).mean()
    # A bin has no place for NaN: say it here, or a diverged head would go unseen.
    poison = torch.where((scores.detach().isnan() & ranked).any(), torch.nan, 0.0)
    return (loss + poison).to(logits.dtype)


def _ranked(scores: Tensor, valid: Tensor, num_topk: int | None) -> Tensor:
    """[N] bool: the elements that j runs over."""
    if num_topk is None or num_topk >= len(scores):
        return valid
    top = scores.masked_fill(~valid, -torch.inf).topk(num_topk).indices
    return valid & torch.zeros_like(valid).index_fill_(0, top, True)


@register_criterion("parameterized_ap")
class ParameterizedAPLoss(Criterion):
    """Parameterized AP Loss as a criterion, with the gradient scale of its box branch.

    Args:
        control_points: see `Curves.from_control_points`.
        gradient_scale: multiplies the gradient that flows into the boxes, > 0.
        localization: "giou", "iou" or "l1".
        num_topk, detach_denominator: see `parameterized_ap_loss`.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        control_points: ControlPoints = "linear",
        gradient_scale: float = 1.0,
        localization: str = "giou",
        num_topk: int | None = None,
        detach_denominator: bool = True,
    ) -> None:
        super().__init__()
        if localization not in LOCALIZATION:
            raise ValueError(
                f"localization is {localization!r}; expected one of {list(LOCALIZATION)}."
            )
        if not 0 < gradient_scale < float("inf"):
            raise ValueError(f"gradient_scale is {gradient_scale}; expected a number above 0.")
        if num_topk is not None and num_topk < 1:
            raise ValueError(f"num_topk is {num_topk}; expected at least 1, or None for all.")
        self.curves = Curves.from_control_points(control_points)
        self.gradient_scale = gradient_scale
        self.localization = localization
        self.num_topk = num_topk
        self.detach_denominator = detach_denominator

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """{"loss_pap": scalar} of the mini-batch, every anchor and class one score."""
        boxes = _scale_gradient(batch.pred_boxes, self.gradient_scale)
        score = LOCALIZATION[self.localization](boxes, batch.target_boxes, batch.anchor_sizes)
        positive = batch.pos * batch.num_classes + batch.labels[batch.pos]
        loss = _loss(
            batch.logits.flatten(),
            (batch.weights != 0).repeat_interleave(batch.num_classes),
            positive,
            score,
            1 - self.curves.I2.at_zero,
            self.curves,
            num_topk=self.num_topk,
            detach_denominator=self.detach_denominator,
        )
        return {"loss_pap": loss}

    @classmethod
    def parameterization(cls, **options: Any) -> "ParameterizedAPFamily":
        return ParameterizedAPFamily(**options)


@dataclass(frozen=True)
class ParameterizedAPFamily:
    """The losses that theta chooses from (paper, section 3.3).

    Attributes:
        segments: K, of every curve.
        gradient_scale: fixed, or None: searched as 10^(2 theta - 1), so within [0.1, 10].
        localization, num_topk, detach_denominator: as in `ParameterizedAPLoss`.
    """

    segments: int = 5
    gradient_scale: float | None = None
    localization: str = "giou"
    num_topk: int | None = None
    detach_denominator: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.segments <= 64:
            raise ValueError(f"segments is {self.segments}; expected 2 to 64.")
        settings = self.settings(self.start)
        ParameterizedAPLoss(**{key: settings[key] for key in settings if key != "type"})

    @cached_property
    def names(self) -> tuple[str, ...]:
        points = range(1, self.segments)
        curves = [f"{name}.{axis}{k}" for name in CURVES for k in points for axis in "xy"]
        return (*curves, *(["gradient_scale"] if self.gradient_scale is None else []))

    @cached_property
    def start(self) -> tuple[float, ...]:
        """Every curve the identity, gradient scale 1."""
        curve = identity_theta(self.segments).tolist()
        return (*(curve * len(CURVES)), *([0.5] if self.gradient_scale is None else []))

    def settings(self, theta: Sequence[float]) -> dict[str, Any]:
        """Settings of the criterion that `theta` [D] stands for, with its control points."""
        if len(theta) != len(self.names):
            raise ValueError(f"theta has {len(theta)} coordinates; expected {len(self.names)}.")
        values = torch.tensor(theta, dtype=torch.float64)
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(
                "theta has coordinates outside [0, 1]; clip them or sample them there."
            )
        split = 2 * (self.segments - 1) * len(CURVES)
        points = control_points_from_theta(values[:split].view(len(CURVES), -1))
        scale = self.gradient_scale
        return {
            "type": "parameterized_ap",
            "control_points": {name: points[c].tolist() for c, name in enumerate(CURVES)},
            "gradient_scale": 10 ** (2 * float(values[-1]) - 1) if scale is None else scale,
            "localization": self.localization,
            "num_topk": self.num_topk,
            "detach_denominator": self.detach_denominator,
        }

    def expected(
        self, theta: Sequence[float], batch: DetectionBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Parameterization.expected`: by the function alone, over every anchor and class."""
        settings = self.settings(theta)
        logits = batch.logits.detach().requires_grad_()
        boxes = batch.pred_boxes.detach().requires_grad_()
        overlap = LOCALIZATION[self.localization](boxes, batch.target_boxes, batch.anchor_sizes)
        localization = torch.zeros_like(logits).index_put(
            (batch.pos, batch.labels[batch.pos]), overlap.to(logits)
        )
        loss = parameterized_ap_loss(
            logits.flatten(),
            localization.flatten(),
            batch.targets().flatten(),
            settings["control_points"],
            num_topk=self.num_topk,
            detach_denominator=self.detach_denominator,
        )
        d_logits, d_boxes = torch.autograd.grad(loss, [logits, boxes])
        return loss.detach(), d_logits, settings["gradient_scale"] * d_boxes


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None


def _scale_gradient(x: Tensor, scale: float) -> Tensor:
    """`x`, whose gradient is multiplied by `scale` on its way back."""
    out: Tensor = _ScaleGradient.apply(x, scale)  # type: ignore[no-untyped-call]
    return out
