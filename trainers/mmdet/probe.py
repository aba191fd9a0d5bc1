"""Proof that theta arrived: what every head trains on is what theta says.

Values that are read back prove nothing; they may sit in an attribute that nobody reads. So
made-up outputs go through the heads of the very model that is about to be trained, down to the
number that is differentiated, and loss and gradients are compared with those worked out from
theta alone.
"""

import contextlib
import hashlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loss import DetectionBatch, GatheredCriterion, build_criterion
from loss.by_head import of_head, part_of
from trainers.distributed import told_by_all
from trainers.mmdet.heads import CriterionHead, HeadRun, MadeUp
from trainers.mmdet.models import criterion_heads
from trainers.trial import TrialSpec

_TOLERANCE = 1e-4
"""Of the largest entry: float32 sums in another order differ by about 1e-6."""


class ThetaNotApplied(Exception):
    """A head would train on something else than theta."""


@dataclass(frozen=True)
class ProbeOutput:
    """loss [], d loss / d class scores and d loss / d box outputs of a head, flat."""

    loss: Tensor
    d_scores: Tensor
    d_boxes: Tensor

    def bytes(self) -> bytes:
        parts = (self.loss, self.d_scores, self.d_boxes)
        return b"".join(part.detach().float().cpu().numpy().tobytes() for part in parts)


def prove_theta(model: Any, spec: TrialSpec) -> str:
    """Compare every head of `model` with `spec` on made-up outputs.

    For a model that has not been trained yet: what its criterion learns in training is not theta's.
    Of several workers each proves its own model. Leaves the model, its buffers and the random
    generators as they were.

    Returns:
        The fingerprint: 12 hexadecimal digits. Two trials that train alike have the same.

    Raises:
        ThetaNotApplied: loss or a gradient differ; the message says which and by how much. Or
            a head finds no positive among its made-up outputs.
    """
    digest = hashlib.sha256()
    with _left_as_it_was(model):
        model.train()
        for name, path, head in criterion_heads(model):
            with _ranking_alone(head):
                run = head.run_made_up(made_up(head, spec))
            seen, expected = seen_output(model, head, run), expected_output(name, run, spec)
            _compare(path, seen, expected)
            digest.update(seen.bytes())
    return digest.hexdigest()[:12]


def prove_theta_together(model: Any, spec: TrialSpec) -> str:
    """`prove_theta` by every worker of a distributed training, and that all of them train alike.

    Fingerprints are compared among workers on the same hardware: another kind rounds in another
    way, and each has proved its theta by itself.

    Raises:
        ThetaNotApplied: as `prove_theta`; or another worker would train on something else.
    """
    fingerprint = prove_theta(model, spec)
    device = next(model.parameters()).device
    told = told_by_all((_hardware(device), fingerprint))
    for rank, (hardware, other) in enumerate(told):
        alike = next(k for k, (of, _) in enumerate(told) if of == hardware)
        if other != told[alike][1]:
            raise ThetaNotApplied(
                f"worker {rank} would train on something else than worker {alike}: their "
                f"fingerprints are {other} and {told[alike][1]}. Have all machines the same "
                "version of the code, and the same files?"
            )
    return fingerprint


def _hardware(device: torch.device) -> str:
    """What the digits of a result depend on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line
    return f"{platform.machine()} {platform.processor()}"


def _ranking_alone(head: CriterionHead) -> contextlib.AbstractContextManager[None]:
    """The made-up outputs of all workers together are not what is expected of one of them."""
    criterion = head.criterion
    if isinstance(criterion, GatheredCriterion):
        return criterion.alone()
    return contextlib.nullcontext()


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


def seen_output(model: Any, head: CriterionHead, run: HeadRun) -> ProbeOutput:
    """What the head makes of its outputs, through the sum of losses that is trained on."""
    total, _ = model.parse_losses(dict(run.losses))
    own = {name: loss for name, loss in run.losses.items() if not head.is_stock(name)}
    loss, _ = model.parse_losses(own)
    return ProbeOutput(loss.detach(), *_gradients(total, run))


def expected_output(name: str, run: HeadRun, spec: TrialSpec) -> ProbeOutput:
    """The same from theta alone: only the targets and the box decoding are the head's.

    Args:
        name: of the head in settings by head.
    """
    if all(len(batch.pos) == 0 for batch in run.batches):
        # Every theta would give 0, and pass.
        raise ThetaNotApplied(
            "on the probe batch no anchor is positive, so nothing can be proved. Check the "
            "detector's anchors and assigner against the schedule's image_size."
        )
    loss, differentiated = _expected_losses(name, run.batches, spec)
    if run.kept is not None:
        differentiated = differentiated + run.kept
    return ProbeOutput(loss.detach(), *_gradients(differentiated, run))


def _expected_losses(
    name: str, batches: Sequence[DetectionBatch], spec: TrialSpec
) -> tuple[Tensor, Tensor]:
    """The loss, and a scalar that has the expected gradients at the head's outputs."""
    family = spec.family
    part = None if family is None or spec.theta is None else part_of(family, name, spec.theta)
    if part is None:
        criterion = build_criterion(of_head(spec.criterion_settings, name))
        criterion.to(batches[0].logits.device)
        loss = torch.stack([sum(criterion(batch).values()) for batch in batches]).sum()
        return loss, loss
    own, theta = part
    losses, proxies = [], []
    for batch in batches:
        loss, d_logits, d_boxes = own.expected(theta, batch)
        losses.append(loss)
        # The chain rule from the criterion's inputs to the head's outputs.
        proxies.append((batch.logits * d_logits).sum() + (batch.pred_boxes * d_boxes).sum())
    return torch.stack(losses).sum(), torch.stack(proxies).sum()


def _gradients(loss: Tensor, run: HeadRun) -> tuple[Tensor, Tensor]:
    """[n] at the scores and [m] at the box outputs; 0 where nothing arrives."""
    leaves = [*run.scores, *run.boxes]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    flat = [
        (torch.zeros_like(leaf) if gradient is None else gradient).flatten()
        for leaf, gradient in zip(leaves, found, strict=True)
    ]
    return torch.cat(flat[: len(run.scores)]), torch.cat(flat[len(run.scores) :])


def _compare(path: str, seen: ProbeOutput, expected: ProbeOutput) -> None:
    for name in ("loss", "d_scores", "d_boxes"):
        a, b = getattr(seen, name), getattr(expected, name)
        error = float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6)
        if not error <= _TOLERANCE:
            raise ThetaNotApplied(
                f"the head {path} trains on something else than its theta: on the probe batch its "
                f"{name} differs from the expected by {error:.1e} of the largest entry. The head "
                "or its adapter ignores a part of the criterion; this trial's result would be "
                "meaningless."
            )


def made_up(head: Any, spec: TrialSpec) -> MadeUp:
    """The source of made-up outputs, the same for every trial of a search."""
    width, height = (_round_up(side) for side in spec.schedule.image_size)
    device = next(head.parameters()).device
    return MadeUp(torch.Generator().manual_seed(0), device, width, height)


def _round_up(side: int, multiple: int = 32) -> int:
    return -(-side // multiple) * multiple
