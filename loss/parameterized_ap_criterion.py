"""Parameterized AP Loss as a criterion, and the family of its curves that a search chooses from.

Shape letters: A anchors, C classes, P positives, K segments of a curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.criterion import Criterion, check_options, register_criterion
from loss.curve_features import curve_features
from loss.localization import LOCALIZATION
from loss.parameterized_ap import (
    CURVES,
    ControlPoints,
    Curves,
    loss_of_positives,
    parameterized_ap_loss,
)
from loss.piecewise_linear import (
    control_points_from_theta,
    identity_theta,
    theta_from_control_points,
)


@register_criterion("parameterized_ap")
class ParameterizedAPLoss(Criterion):
    """Parameterized AP Loss as a criterion, with the gradient scale of its box branch.

    Args:
        control_points: see `Curves.from_control_points`.
        gradient_scale: multiplies the gradient that flows into the boxes, > 0.
        localization: "giou", "iou" or "l1".
        num_topk, detach_denominator: see `parameterized_ap_loss`.
        ranking_group: at most so many images are ranked together, and the loss is the mean over
            the groups; None ranks the whole mini-batch. The paper ranked 8, a worker's share.

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
        ranking_group: int | None = None,
    ) -> None:
        super().__init__()
        if localization not in LOCALIZATION:
            raise ValueError(
                f"localization is {localization!r}; expected one of {list(LOCALIZATION)}."
            )
        if not 0 < gradient_scale < float("inf"):
            raise ValueError(f"gradient_scale is {gradient_scale}; expected a number above 0.")
        for name, number in (("num_topk", num_topk), ("ranking_group", ranking_group)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; expected at least 1, or None for all.")
        self.curves = Curves.from_control_points(control_points)
        self.gradient_scale = gradient_scale
        self.localization = localization
        self.num_topk = num_topk
        self.detach_denominator = detach_denominator
        self.ranking_group = ranking_group

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """{"loss_pap": scalar} of the mini-batch, every anchor and class one score.

        Raises:
            ValueError: a ranking group, but a batch that does not say which image is whose.
        """
        groups = batch.split(self.ranking_group)
        return {"loss_pap": torch.stack([self._rank(group) for group in groups]).mean()}

    def _rank(self, batch: DetectionBatch) -> Tensor:
        boxes = _scale_gradient(batch.pred_boxes, self.gradient_scale)
        score = LOCALIZATION[self.localization](boxes, batch.target_boxes, batch.anchor_sizes)
        return loss_of_positives(
            batch.logits.flatten(),
            batch.counted(),
            batch.positives(),
            score,
            1 - self.curves.I2.at_zero,
            self.curves,
            num_topk=self.num_topk,
            detach_denominator=self.detach_denominator,
        )

    @classmethod
    def title(cls, **options: Any) -> str:
        return "Parameterized AP"

    @classmethod
    def searchable(cls, settings: Mapping[str, Any]) -> bool:
        return "control_points" not in settings

    @classmethod
    def parameterization(cls, **options: Any) -> "ParameterizedAPFamily":
        check_options("a search of parameterized_ap", ParameterizedAPFamily, options)
        return ParameterizedAPFamily(**options)


SHARING = {
    "none": dict(zip(CURVES, CURVES, strict=True)),
    "kind": {name: name[0] for name in CURVES},
    "all": dict.fromkeys(CURVES, "f"),
}
"""Which curves are one: none, all H and all I, or all five. Name of the curve -> of what it is."""


@dataclass(frozen=True)
class ParameterizedAPFamily:
    """The losses that theta chooses from (paper, section 3.3).

    Attributes:
        segments: K, of every curve.
        gradient_scale: fixed, or None: searched as 10^(2 theta - 1), so within [0.1, 10].
        localization, num_topk, detach_denominator, ranking_group: as in `ParameterizedAPLoss`.
        shared: "none": five curves of their own; "kind": one for H1 and H2, one for I1, I2 and
            I3; "all": one for all.
    """

    segments: int = 5
    gradient_scale: float | None = None
    localization: str = "giou"
    num_topk: int | None = None
    detach_denominator: bool = True
    ranking_group: int | None = None
    shared: str = "none"

    def __post_init__(self) -> None:
        if not 2 <= self.segments <= 64:
            raise ValueError(f"segments is {self.segments}; expected 2 to 64.")
        if self.shared not in SHARING:
            raise ValueError(f"shared is {self.shared!r}; expected one of {list(SHARING)}.")
        settings = self.settings(self.start)
        ParameterizedAPLoss(**{key: settings[key] for key in settings if key != "type"})

    @cached_property
    def _own(self) -> list[str]:
        """The curves that theta holds: each curve that is shared once."""
        return list(dict.fromkeys(SHARING[self.shared].values()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        points = range(1, self.segments)
        curves = [f"{name}.{axis}{k}" for name in self._own for k in points for axis in "xy"]
        return (*curves, *(["gradient_scale"] if self.gradient_scale is None else []))

    @cached_property
    def start(self) -> tuple[float, ...]:
        """Every curve the identity, gradient scale 1."""
        curve = identity_theta(self.segments).tolist()
        return (*(curve * len(self._own)), *([0.5] if self.gradient_scale is None else []))

    def settings(self, theta: Sequence[float]) -> dict[str, Any]:
        """Settings of the criterion that `theta` [D] stands for, with its control points."""
        if len(theta) != len(self.names):
            raise ValueError(f"theta has {len(theta)} coordinates; expected {len(self.names)}.")
        values = torch.tensor(theta, dtype=torch.float64)
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(
                "theta has coordinates outside [0, 1]; clip them or sample them there."
            )
        split = 2 * (self.segments - 1) * len(self._own)
        points = control_points_from_theta(values[:split].view(len(self._own), -1))
        rows = dict(zip(self._own, points, strict=True))
        scale = self.gradient_scale
        return {
            "type": "parameterized_ap",
            "control_points": {
                name: rows[own].tolist() for name, own in SHARING[self.shared].items()
            },
            "gradient_scale": 10 ** (2 * float(values[-1]) - 1) if scale is None else scale,
            "localization": self.localization,
            "num_topk": self.num_topk,
            "detach_denominator": self.detach_denominator,
            "ranking_group": self.ranking_group,
        }

    def theta(self, settings: Mapping[str, Any]) -> tuple[float, ...]:
        """The theta of a `ParameterizedAPLoss`, for a search that starts there.

        Args:
            settings: with `control_points` by name, [K + 1, 2] each, and perhaps a gradient scale;
                other options are left out.

        Raises:
            ValueError: another number of segments, curves that differ where they are one here, a
                gradient scale outside [0.1, 10].
        """
        curves, scale = settings.get("control_points"), settings.get("gradient_scale", 1.0)
        if not isinstance(curves, Mapping) or sorted(curves) != sorted(CURVES):
            raise ValueError(
                f"control_points are {curves!r}; expected points for {', '.join(CURVES)}."
            )
        own: dict[str, Any] = {}
        for name, points in curves.items():
            shared = SHARING[self.shared][name]
            if len(points) != self.segments + 1:
                raise ValueError(
                    f"{name} has {len(points) - 1} segments; this family has {self.segments}."
                )
            if own.setdefault(shared, points) != points:
                raise ValueError(f"{name} is another curve than those it is one with here.")
        if not 0.1 <= scale <= 10:
            raise ValueError(f"gradient_scale is {scale}; a search reaches 0.1 to 10.")
        rows = torch.tensor([own[name] for name in self._own], dtype=torch.float64)
        last = [(math.log10(scale) + 1) / 2] if self.gradient_scale is None else []
        return (*theta_from_control_points(rows).flatten().tolist(), *last)

    def features(self, thetas: Tensor) -> Tensor:
        """See `loss.by_head.features_of`: the curves as functions, and the scale."""
        of_one = 2 * (self.segments - 1)
        curves = thetas[:, : of_one * len(self._own)]
        found = curve_features(curves.reshape(-1, len(self._own), of_one))
        return found if self.gradient_scale else torch.cat([found, thetas[:, -1:]], dim=1)

    def expected(
        self, theta: Sequence[float], batch: DetectionBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Parameterization.expected`: by the function alone, over every anchor and class."""
        settings = self.settings(theta)
        logits = batch.logits.detach().requires_grad_()
        boxes = batch.pred_boxes.detach().requires_grad_()
        groups = replace(batch, logits=logits, pred_boxes=boxes).split(self.ranking_group)
        losses = [self._expected(settings["control_points"], group) for group in groups]
        loss = torch.stack(losses).mean()
        d_logits, d_boxes = torch.autograd.grad(loss, [logits, boxes])
        return loss.detach(), d_logits, settings["gradient_scale"] * d_boxes

    def _expected(self, control_points: ControlPoints, batch: DetectionBatch) -> Tensor:
        overlap = LOCALIZATION[self.localization](
            batch.pred_boxes, batch.target_boxes, batch.anchor_sizes
        )
        localization = torch.zeros_like(batch.logits).index_put(
            (batch.pos, batch.labels[batch.pos]), overlap.to(batch.logits)
        )
        return parameterized_ap_loss(
            batch.logits.flatten(),
            localization.flatten(),
            batch.targets().flatten(),
            control_points,
            num_topk=self.num_topk,
            detach_denominator=self.detach_denominator,
        )


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
