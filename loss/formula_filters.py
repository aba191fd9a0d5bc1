"""What a formula has to pass before a detector is trained with it, from the cheapest on.

CSE-AutoLoss (arXiv 2102.04700) was left with 50 of 5,000 formulas by filters such as these. In
their order:

- duplicate: it trains as one does that was accepted before.
- values: on probe batches it is finite and depends on its prediction, and its gradient does not
  explode.
- convergence: see `loss.formula_convergence`.
- simulation: a tiny head trained with it on made-up images has to reach half the AP that
  cross-entropy and GIoU reach (the authors train on one image of each class, and simulate boxes
  alone beside it; here it is one training of both).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.by_head import is_by_head
from loss.criterion import Criterion, Family, build_criterion, value_and_gradients
from loss.formula_convergence import diverges, strays
from loss.formula_criterion import FormulaLoss
from loss.formula_probes import probe_batches
from loss.scene import Scene, make_scene
from loss.simulation import simulate

STAGES = ("duplicate", "values", "convergence", "simulation")

_STEEPEST = 1e3
"""How large one anchor's gradient may be, per logit and per size of the box: that of cross-entropy
and of GIoU is 1, that of CSE-AutoLoss-B 2.5, that of exp(x) at the largest logit 125."""
_NO_GRADIENT = 1e-9
"""In the same units. i / (i + eps) has less; focal loss has 1e-6 at the surest background."""
_ENOUGH = 0.5
"""Of the AP of cross-entropy and GIoU; a loss that trains the scores alone has .6 of it."""
_SAME, _SAME_AS_ZERO = 1e-3, 1e-9
"""Difference of two gradients, of themselves or of the largest, below which they are one. The
second is small: a hundred thousand sure negatives count, each with little."""


def reject(settings: Mapping[str, Any]) -> str | None:
    """Why a detector need not be trained with a formula: "stage: reason"; None: it is worth it.

    Args:
        settings: of a criterion "formula"; another is not looked at.
    """
    if settings.get("type") != "formula":
        return None
    criterion = build_criterion(settings)
    assert isinstance(criterion, FormulaLoss)
    for stage, check in _CHECKS.items():
        reason = check(criterion)
        if reason is not None:
            return f"{stage}: {reason}"
    return None


class FormulaScreen:
    """`reject`, and duplicates of what was accepted before, for the thetas of a family.

    It is what a search asks before a trial (search.screen.Screen).

    Args:
        family: of formulas, alone or as one head's of several.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._tried: list[_Training] = []

    def __call__(self, theta: Iterable[float]) -> str | None:
        """None: worth a trial. Else "stage: reason"."""
        settings = self._settings(theta)
        training = _Training.of(settings)
        if any(training.is_alike(other) for other in self._tried):
            return "duplicate: it trains as a formula does that was tried before"
        for head, section in settings.items():
            verdict = reject(section)
            if verdict is not None:
                return f"{verdict} ({head})" if head else verdict
        return None

    def accepted(self, theta: Iterable[float]) -> None:
        """Remember what goes to trial."""
        self._tried.append(_Training.of(self._settings(theta)))

    def _settings(self, theta: Iterable[float]) -> dict[str, Mapping[str, Any]]:
        """By head; "" where there is one for all."""
        settings = self._family.settings([float(value) for value in theta])
        return settings if is_by_head(settings) else {"": settings}


@dataclass(frozen=True, eq=False)
class _Training:
    """What a detector would be trained with.

    Attributes:
        others: settings, by head, of what is no formula.
        gradients: of the formulas.
    """

    others: dict[str, Any]
    gradients: Tensor

    @staticmethod
    def of(settings: Mapping[str, Mapping[str, Any]]) -> "_Training":
        formulas = [own for own in settings.values() if own["type"] == "formula"]
        found = [gradients_on_probes(build_criterion(own)) for own in formulas]
        others = {head: own for head, own in settings.items() if own["type"] != "formula"}
        return _Training(others, torch.cat([torch.zeros(0, dtype=torch.float64), *found]))

    def is_alike(self, other: "_Training") -> bool:
        largest = float(self.gradients.abs().max()) if len(self.gradients) else 0.0
        return self.others == other.others and torch.allclose(
            self.gradients, other.gradients, rtol=_SAME, atol=_SAME_AS_ZERO * largest
        )


def gradients_on_probes(criterion: Criterion) -> Tensor:
    """[n] float64. Losses that have the same train alike.

    The losses' values are left out: a constant beside one changes them, and nothing that is
    trained.
    """
    found = []
    for batch in probe_batches(criterion.activation, torch.float64):
        _, d_logits, d_boxes = value_and_gradients(criterion, batch)
        found += [d_logits.flatten(), d_boxes.flatten()]
    return torch.cat(found)


def _values(criterion: FormulaLoss) -> str | None:
    """In float32, as it is trained, and in float64, which tells a slope from rounding."""
    for batch in probe_batches(criterion.activation, torch.float32):
        if not all(bool(each.isfinite().all()) for each in value_and_gradients(criterion, batch)):
            return "the loss or its gradient is not finite"
    probes = probe_batches(criterion.activation, torch.float64)
    for of_batches in zip(*(_steepest(criterion, batch) for batch in probes), strict=True):
        part, _ = of_batches[0]
        steepest = max(slope for _, slope in of_batches)
        if steepest < _NO_GRADIENT:
            return f"the {part} is a constant"
        if not steepest <= _STEEPEST:
            return f"the {part} has a gradient of {steepest:.1e}, cross-entropy one of 1"
    return None


def _steepest(criterion: FormulaLoss, batch: DetectionBatch) -> Iterator[tuple[str, float]]:
    """The largest gradient of one anchor's loss by logit, or by the box in units of its size. Of
    what is trained: where a weight is 0, any formula does."""
    _, d_logits, d_boxes = value_and_gradients(criterion, batch)
    if criterion.cls_weight:
        per_anchor = d_logits * batch.divisor / criterion.cls_weight
        yield "classification of positives", float(per_anchor[batch.pos].abs().max())
        yield "classification of the background", float(per_anchor[len(batch.pos) :].abs().max())
    if criterion.box_weight:
        sizes = (batch.target_boxes[:, 2:] - batch.target_boxes[:, :2]).repeat(1, 2)
        per_box = d_boxes * sizes * batch.divisor / criterion.box_weight
        yield "regression", float(per_box.abs().max())


def _convergence(criterion: FormulaLoss) -> str | None:
    """Of what is trained at all."""
    if criterion.cls_weight:
        reason = diverges(criterion.classification, criterion.activation)
        if reason is not None:
            return f"classification: {reason}"
    if criterion.box_weight:
        reason = strays(criterion.regression)
        if reason is not None:
            return f"regression: {reason}"
    return None


def _simulation(criterion: FormulaLoss) -> str | None:
    """Beside cross-entropy and GIoU: what a good AP is depends on the scene."""
    usual, found = _usual_ap(criterion.activation), simulate(criterion, _scene())
    if not found.finite:
        return "the loss or its gradient stops being finite"
    if found.ap < _ENOUGH * usual:
        return f"AP {found.ap:.3f} after a simulated training, cross-entropy and GIoU {usual:.3f}"
    return None


@cache
def _scene() -> Scene:
    return make_scene(56)


@cache
def _usual_ap(activation: Literal["sigmoid", "softmax"]) -> float:
    return simulate(FormulaLoss(activation=activation), _scene()).ap


_CHECKS: dict[str, Callable[[FormulaLoss], str | None]] = {
    "values": _values,
    "convergence": _convergence,
    "simulation": _simulation,
}
