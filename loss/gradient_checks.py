"""Whether a criterion pulls the right way: up where scores and overlaps should rise.

A loss that ranks may well push one positive down, the one with the worse box; so what is asked is
of all positives together: whether moving them a little the right way lowers the loss, by its
gradient and by its value, and how much of the pull leads the wrong way.

Shape letters: B images, A anchors (of one image), C classes, P positives (of all images).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from loss.batch import DetectionBatch
from loss.criterion import Criterion
from loss.scene import Scene


@dataclass(frozen=True)
class State:
    """How far a training has come.

    Attributes:
        negatives: their mean logit.
        lead: by how much the mean of the positives' is above it.
        way: the share of the way from anchor to object that the boxes have come, in deltas.
    """

    negatives: float
    lead: float
    way: float


STATES: Mapping[str, State] = {
    "early": State(negatives=-4.6, lead=0.0, way=0.0),
    "middle": State(negatives=-4.0, lead=1.5, way=0.4),
    "late": State(negatives=-5.0, lead=4.0, way=0.8),
}

STEP = 0.05
"""Of a logit, and of the way to the object: what the value is tried with."""

_SPREAD = 0.5


@dataclass(frozen=True)
class Pull:
    """How a criterion pulls in one state.

    Attributes:
        finite: whether the loss and its gradients are.
        loss: its value.
        positives, negatives: sum of |d loss / d logit| at the positives' own logits, and elsewhere.
        boxes: sum of |d loss / d delta| over the positives.
        wrong_scores: the share of `positives` that lowers positives' scores.
        wrong_boxes: of the pulls along the way to the object, the share that leads away from it.
        score_rise: of the loss, when all positives' logits are raised by `STEP`.
        box_rise: of the loss, when all positives' boxes go `STEP` of the way to their objects.
    """

    finite: bool
    loss: float
    positives: float
    negatives: float
    boxes: float
    wrong_scores: float
    wrong_boxes: float
    score_rise: float
    box_rise: float


def pull(criterion: Criterion, scene: Scene, state: State, *, images: int = 4) -> Pull:
    """How `criterion` pulls at the first images of `scene`. The same at every call."""
    probe = _Probe(criterion, scene, state, images)
    logits, deltas = (x.requires_grad_() for x in (probe.logits, probe.deltas))
    loss = probe.loss(logits, deltas)
    # Of zeros where a criterion does not read one of them.
    d_logits, d_deltas = torch.autograd.grad(loss, [logits, deltas], materialize_grads=True)
    finite = all(bool(part.isfinite().all()) for part in (loss, d_logits, d_deltas))
    own = d_logits[probe.own]
    along = (d_deltas * probe.to_go)[probe.positive].sum(-1)
    value = float(loss.detach())
    with torch.no_grad():
        raised = probe.loss(logits + STEP * probe.own, deltas)
        moved = probe.loss(logits, deltas + STEP * probe.to_go * probe.positive[..., None])
    return Pull(
        finite=finite,
        loss=value,
        positives=float(own.abs().sum()),
        negatives=float(d_logits[~probe.own].abs().sum()),
        boxes=float(d_deltas.abs().sum()),
        wrong_scores=_share_above_0(own),
        wrong_boxes=_share_above_0(along),
        score_rise=float(raised) - value,
        box_rise=float(moved) - value,
    )


class _Probe:
    """Outputs of a head in some state, and what a criterion says of them."""

    def __init__(self, criterion: Criterion, scene: Scene, state: State, images: int) -> None:
        self.criterion, self.scene = criterion, scene
        self.images = torch.arange(images)
        labels = scene.labels[self.images]
        columns = scene.num_classes + (criterion.activation == "softmax")
        self.positive = labels < scene.num_classes
        own = torch.nn.functional.one_hot(labels, scene.num_classes + 1)
        self.own = (own.bool() & self.positive[..., None])[..., :columns]
        generator = torch.Generator().manual_seed(0)
        noise = _SPREAD * torch.randn(self.own.shape, generator=generator)
        self.logits = state.negatives + noise + state.lead * self.own
        if columns > scene.num_classes:
            self.logits[..., -1] = noise[..., -1]
        target = scene.encode(scene.matched[self.images])
        # Not all have come as far: a loss that ranks is to tell them apart.
        come = state.way + (1 - state.way) * torch.rand(labels.shape, generator=generator) / 2
        self.deltas = come[..., None] * target
        self.to_go = target - self.deltas

    def loss(self, logits: Tensor, deltas: Tensor) -> Tensor:
        batch: DetectionBatch = self.scene.batch(self.images, logits, deltas)
        return torch.stack(list(self.criterion(batch).values())).sum()


def _share_above_0(gradient: Tensor) -> float:
    total = gradient.abs().sum()
    return float(gradient.clamp(min=0).sum() / total) if total > 0 else 0.0
