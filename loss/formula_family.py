"""The formulas that a search chooses from, with theta in the unit cube (see
`loss.formula_genes`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from loss.batch import DetectionBatch
from loss.formula import (
    BRANCHES,
    CLASSIFICATION,
    REGRESSION,
    Branch,
    Expression,
    as_data,
    evaluate,
    parse,
    text,
)
from loss.formula_genes import GENE, decode, encode
from loss.formula_known import WRITTEN_CROSS_ENTROPY, formula_or_default
from loss.localization import areas, at_least_float32, iou_score


@dataclass(frozen=True)
class FormulaFamily:
    """The losses that theta chooses from (CSE-AutoLoss, arXiv 2102.04700, section 3.1).

    A coordinate is called branch.node.part, such as "cls.3.op", "cls.3.a" and "cls.3.b": operator,
    first and second argument of the third node of the classification; "reg" is the regression.
    What is before the last dot is one gene. An operator of one argument leaves b alone.

    Attributes:
        nodes: of each branch that is searched, 1 to 48. Focal loss takes 18, CSE-AutoLoss-B
            17 for its classification and 12 for its regression.
        classification, regression: a formula as nested lists, which then stays as it is; None:
            searched.
        activation, cls_weight, box_weight, alpha: as in `FormulaLoss`.

    Raises:
        ValueError: both formulas given, a formula that is none, a number out of range.
    """

    start_label: ClassVar[str] = "CE + GIoU"

    nodes: int = 20
    classification: Any = None
    regression: Any = None
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    cls_weight: float = 1.0
    box_weight: float = 2.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.nodes, bool) or not isinstance(self.nodes, int):
            raise ValueError(f"nodes is {self.nodes!r}; expected a whole number.")
        if not 1 <= self.nodes <= 48:
            raise ValueError(f"nodes is {self.nodes}; expected 1 to 48.")
        check_numbers(self.activation, self.cls_weight, self.box_weight, self.alpha)
        if not self._searched:
            raise ValueError(
                "classification and regression are both given, so there is nothing to search; "
                "leave one of them out."
            )
        _ = self.start  # The default formulas have to fit into so few nodes.

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "type": "formula",
            **{branch.name: as_data(self._fixed(branch)) for branch in BRANCHES},
            "activation": self.activation,
            "cls_weight": self.cls_weight,
            "box_weight": self.box_weight,
            "alpha": self.alpha,
        }

    @cached_property
    def _searched(self) -> list[Branch]:
        return [branch for branch in BRANCHES if getattr(self, branch.name) is None]

    @cached_property
    def names(self) -> tuple[str, ...]:
        numbers = range(1, self.nodes + 1)
        return tuple(
            f"{branch.prefix}.{number}.{part}"
            for branch in self._searched
            for number in numbers
            for part in GENE
        )

    @cached_property
    def start(self) -> tuple[float, ...]:
        """Cross-entropy and GIoU.

        With 9 nodes or more the cross-entropy of sigmoid scores is written in logarithms: what
        differs from that a little is more often a loss.
        """
        options = self._options
        if self.activation == "sigmoid" and self.classification is None and self.nodes >= 9:
            options["classification"] = as_data(WRITTEN_CROSS_ENTROPY)
        return self.theta(options)

    def settings(self, theta: Sequence[float]) -> dict[str, Any]:
        """Settings of the criterion that `theta` [D] stands for, with both formulas.

        Raises:
            ValueError: another number of coordinates, or one outside [0, 1].
        """
        if len(theta) != len(self.names):
            raise ValueError(f"theta has {len(theta)} coordinates; expected {len(self.names)}.")
        if not all(0 <= value <= 1 for value in theta):
            raise ValueError(
                "theta has coordinates outside [0, 1]; clip them or sample them there."
            )
        width = len(GENE) * self.nodes
        found = {
            branch.name: as_data(decode(theta[k * width : (k + 1) * width], branch))
            for k, branch in enumerate(self._searched)
        }
        return self._options | found

    def theta(self, settings: Mapping[str, Any]) -> tuple[float, ...]:
        """The theta of a `FormulaLoss`, for a search that starts there: the middle of every
        interval. Silent nodes come first and are copies of the first input's negative.

        Args:
            settings: with formulas, or the default ones; weights are left out.

        Raises:
            ValueError: another criterion or activation, a formula with more nodes than this family
                has, one that is no more than an input, another formula where this family has a
                fixed one.
        """
        if settings.get("type", "formula") != "formula":
            raise ValueError(f"expected a criterion of type formula, got {settings['type']!r}.")
        if settings.get("activation", "sigmoid") != self.activation:
            raise ValueError(
                f"these formulas are of {settings.get('activation', 'sigmoid')} scores; this "
                f"search is of {self.activation} scores."
            )
        formulas = {branch.name: self._formula_of(settings, branch) for branch in BRANCHES}
        return tuple(
            coordinate
            for branch in self._searched
            for coordinate in encode(formulas[branch.name], branch, self.nodes)
        )

    def _formula_of(self, settings: Mapping[str, Any], branch: Branch) -> Expression:
        data = settings.get(branch.name)
        own = self._fixed(branch)
        formula = formula_or_default(data, branch, self.activation)
        if own is not None and data is not None and formula != own:
            raise ValueError(f"the {branch.name} is {text(formula)}; here it is {text(own)}.")
        return formula

    def _fixed(self, branch: Branch) -> Expression | None:
        data = getattr(self, branch.name)
        return None if data is None else parse(data, branch)

    def expected(
        self, theta: Sequence[float], batch: DetectionBatch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Parameterization.expected`: labels, overlaps and sums by another path."""
        settings = self.settings(theta)
        logits = batch.logits.detach().requires_grad_()
        boxes = batch.pred_boxes.detach().requires_grad_()
        given = replace(batch, logits=logits, pred_boxes=boxes)
        cls = self._expected_of_scores(settings["classification"], given)
        box = _expected_of_boxes(settings["regression"], given)
        # A formula need not read its prediction; a gradient of zeros is one, too.
        at_zero = 0 * (logits[batch.weights != 0].sum() + boxes.sum())
        loss = self.cls_weight * cls + self.box_weight * box + at_zero
        d_logits, d_boxes = torch.autograd.grad(loss, [logits, boxes])
        return loss.detach().to(batch.logits.dtype), d_logits, d_boxes

    def _expected_of_scores(self, formula: Any, batch: DetectionBatch) -> Tensor:
        """Only of the anchors that count, one-hot labels and overlaps by row."""
        kept = batch.weights != 0
        x = at_least_float32(batch.logits)[kept]
        columns = x.shape[1]
        y = F.one_hot(self._column(batch), columns + 1)[kept, :columns].to(x)
        w = torch.ones_like(batch.weights, dtype=x.dtype)
        w[batch.pos] = iou_score(batch.pred_boxes, batch.target_boxes).detach().to(x)
        w = w[kept, None] * (y if self.activation == "sigmoid" else torch.ones_like(y))
        values = evaluate(parse(formula, CLASSIFICATION), {"x": x, "y": y, "w": w})
        if self.alpha is not None and values.shape == y.shape:
            values = values * (self.alpha * y + (1 - self.alpha) * (1 - y))
        weighted = values * batch.weights[kept, None]
        return weighted.sum(dtype=torch.float64) / batch.divisor

    def _column(self, batch: DetectionBatch) -> Tensor:
        """[A]: the column of each anchor's label, one past the last for none."""
        columns = batch.logits.shape[1]
        background = columns if self.activation == "sigmoid" else columns - 1
        found = torch.full_like(batch.labels, background)
        found[batch.pos] = batch.labels[batch.pos]
        return found


def _expected_of_boxes(formula: Any, batch: DetectionBatch) -> Tensor:
    i, u, e = areas(batch.pred_boxes, batch.target_boxes)
    inputs = {"i": i[:, None], "u": u.clamp(min=1)[:, None], "e": e.clamp(min=1)[:, None]}
    values = evaluate(parse(formula, REGRESSION), inputs)
    quality = 1 if batch.quality is None else batch.quality.detach()[:, None]
    return (values * quality).sum(dtype=torch.float64) / batch.box_divisor


def check_numbers(
    activation: str, cls_weight: float, box_weight: float, alpha: float | None
) -> None:
    """See that these are what a `FormulaLoss` takes.

    Raises:
        ValueError: one that is not.
    """
    if activation not in ("sigmoid", "softmax"):
        raise ValueError(f"activation is {activation!r}; expected 'sigmoid' or 'softmax'.")
    for name, weight in (("cls_weight", cls_weight), ("box_weight", box_weight)):
        if not (isinstance(weight, int | float) and 0 <= weight < math.inf):
            raise ValueError(f"{name} is {weight!r}; expected a number of at least 0.")
    if alpha is not None and not (isinstance(alpha, int | float) and 0 <= alpha <= 1):
        raise ValueError(f"alpha is {alpha!r}; expected 0 to 1, or None.")
    if alpha is not None and activation == "softmax":
        raise ValueError("alpha is for sigmoid scores; with softmax leave it out.")
