"""Proof that theta arrived: what the head trains on is what theta says.

Values that are read back prove nothing; they may sit in an attribute that nobody reads. So a
fixed batch goes through the head of the very model that is about to be trained, down to the
number that is differentiated, and loss and gradients are compared with those worked out from
theta alone.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from loss import build_criterion
from loss.criterion import value_and_gradients
from trainers.trial import TrialSpec

_TOLERANCE = 1e-4
"""Of the largest entry: float32 sums in another order differ by about 1e-6."""


class ThetaNotApplied(Exception):
    """The head would train on something else than theta."""


@dataclass(frozen=True)
class ProbeOutput:
    """loss [], d loss / d class scores and d loss / d box deltas, flat over all levels."""

    loss: Tensor
    d_scores: Tensor
    d_deltas: Tensor

    def fingerprint(self) -> str:
        """12 hexadecimal digits: two trials that train alike have the same."""
        digest = hashlib.sha256()
        for part in (self.loss, self.d_scores, self.d_deltas):
            digest.update(part.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:12]


def prove_theta(model: Any, spec: TrialSpec) -> str:
    """Compare `model`'s head with `spec` on the probe batch and return its fingerprint.

    For a model that has not been trained yet: what its criterion learns in training is not theta's.
    Leaves the model, its buffers and the random generators as they were.

    Raises:
        ThetaNotApplied: loss or a gradient differ; the message says which and by how much. Or
            the detector finds no positive in the probe batch.
    """
    with _left_as_it_was(model):
        model.train()
        seen, expected = head_output(model, spec), expected_output(model.bbox_head, spec)
    for name in ("loss", "d_scores", "d_deltas"):
        a, b = getattr(seen, name), getattr(expected, name)
        error = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6)
        if not error <= _TOLERANCE:
            raise ThetaNotApplied(
                f"the head trains on something else than its theta: on the probe batch its {name} "
                f"differs from the expected by {error:.1e} of the largest entry. The head or its "
                "adapter ignores a part of the criterion; this trial's result would be meaningless."
            )
    return seen.fingerprint()


@contextlib.contextmanager
def _left_as_it_was(model: Any) -> Iterator[None]:
    """Puts back its mode and its buffers: a criterion may count what it sees in training."""
    was_training = model.training
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])


def head_output(model: Any, spec: TrialSpec) -> ProbeOutput:
    """What the head makes of the probe batch, through the sum of losses that is trained on."""
    inputs = _ProbeBatch.make(model.bbox_head, spec)
    losses = model.bbox_head.loss_by_feat(inputs.scores, inputs.deltas, inputs.truth, inputs.metas)
    total, _ = model.parse_losses(losses)
    return inputs.output(total.detach(), *inputs.gradients(total))


def expected_output(head: Any, spec: TrialSpec) -> ProbeOutput:
    """The same from theta alone: only the targets and the box decoding are the head's."""
    inputs = _ProbeBatch.make(head, spec)
    batch = head.detection_batch(inputs.scores, inputs.deltas, inputs.truth, inputs.metas)
    if len(batch.pos) == 0:
        # Every theta would give 0, and pass.
        raise ThetaNotApplied(
            "on the probe batch no anchor is positive, so nothing can be proved. Check the "
            "detector's anchors and assigner against the schedule's image_size."
        )
    if spec.family is not None:
        assert spec.theta is not None
        loss, d_logits, d_boxes = spec.family.expected(spec.theta, batch)
    else:
        criterion = build_criterion(spec.criterion_settings).to(batch.logits.device)
        loss, d_logits, d_boxes = value_and_gradients(criterion, batch)
    # The chain rule from the criterion's inputs to the head's outputs.
    proxy = (batch.logits * d_logits).sum() + (batch.pred_boxes * d_boxes).sum()
    return inputs.output(loss, *inputs.gradients(proxy))


@dataclass(frozen=True)
class _ProbeBatch:
    """Made-up outputs of a head for two images, by level, and their ground truth."""

    scores: list[Tensor]
    deltas: list[Tensor]
    truth: list[Any]
    metas: list[dict[str, Any]]

    @staticmethod
    def make(head: Any, spec: TrialSpec) -> "_ProbeBatch":
        generator = torch.Generator().manual_seed(0)
        device = next(head.parameters()).device
        width, height = (_round_up(side) for side in spec.schedule.image_size)
        anchors, images = head.num_base_priors, 2
        scores, deltas = [], []
        for stride_w, stride_h in head.prior_generator.strides:
            size = (-(-height // stride_h), -(-width // stride_w))
            for levels, channels, spread in (
                (scores, head.cls_out_channels, 1.0),
                (deltas, head.bbox_coder.encode_size, 0.3),
            ):
                shape = (images, anchors * channels, *size)
                level = spread * torch.randn(shape, generator=generator)
                levels.append(level.to(device).requires_grad_())
        meta = {"img_shape": (height, width), "pad_shape": (height, width, 3)}
        meta["batch_input_shape"] = (height, width)
        truth = [_truth(generator, width, height, head.num_classes, device) for _ in range(images)]
        return _ProbeBatch(scores, deltas, truth, [meta] * images)

    def gradients(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        leaves = [*self.scores, *self.deltas]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        flat = [
            (torch.zeros_like(leaf) if grad is None else grad).flatten()
            for leaf, grad in zip(leaves, found, strict=True)
        ]
        return torch.cat(flat[: len(self.scores)]), torch.cat(flat[len(self.scores) :])

    def output(self, loss: Tensor, d_scores: Tensor, d_deltas: Tensor) -> ProbeOutput:
        return ProbeOutput(loss, d_scores, d_deltas)


def _truth(generator: torch.Generator, width: int, height: int, classes: int, device: Any) -> Any:
    """Six boxes of 10 to 60 % of the image's sides."""
    size = torch.tensor([width, height], dtype=torch.float32)
    sides = size * (0.1 + 0.5 * torch.rand((6, 2), generator=generator))
    corner = (size - sides) * torch.rand((6, 2), generator=generator)
    labels = torch.randint(classes, (6,), generator=generator)
    boxes = torch.cat([corner, corner + sides], 1)
    return InstanceData(bboxes=boxes.to(device), labels=labels.to(device))


def _round_up(side: int, multiple: int = 32) -> int:
    return -(-side // multiple) * multiple
