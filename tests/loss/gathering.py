"""What the processes of test_gather.py do; batches travel as arrays by their fields' names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from loss import DetectionBatch, GatheredCriterion, build_criterion
from loss.gather import gather

Plain = dict[str, Any]


def batch_of(plain: Mapping[str, Any]) -> DetectionBatch:
    tensors = {
        name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for name, value in plain.items()
    }
    return DetectionBatch(**tensors)


def plain_of(batch: DetectionBatch) -> Plain:
    return {
        name: value.detach().numpy() if isinstance(value, Tensor) else value
        for name, value in vars(batch).items()
    }


def gathered(plain: Plain) -> Plain:
    return plain_of(gather(batch_of(plain)))


class Model(torch.nn.Module):
    """Something to train: every score and box of a batch depends on all of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        values = torch.linspace(-1, 1, 4, dtype=torch.float64)
        self.for_logits = torch.nn.Parameter(values.clone())
        self.for_boxes = torch.nn.Parameter(2 * values)

    def forward(self, batch: DetectionBatch) -> DetectionBatch:
        powers = torch.stack([batch.logits**k for k in range(4)], -1)
        changed = {"logits": powers @ self.for_logits}
        for name in ("pred_boxes", "deltas"):
            boxes = getattr(batch, name)
            if boxes is not None:
                changed[name] = boxes + self.for_boxes * torch.sin(boxes)
        return DetectionBatch(**{**vars(batch), **changed})


def trained(settings: Plain, plain: Plain, how: str = "gathered") -> Plain:
    """Losses and the model's gradients, averaged over the workers.

    Args:
        how: "gathered", "alone" (gathered, but told to be alone), or "plain".
    """
    model, criterion = Model(), build_criterion(settings)
    batch = model(batch_of(plain))
    if how == "plain":
        losses = criterion(batch)
    else:
        whole = GatheredCriterion(criterion)
        if how == "alone":
            with whole.alone():
                losses = whole(batch)
        else:
            losses = whole(batch)
        whole.end_epoch()
    torch.stack(list(losses.values())).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    if dist.is_initialized():
        for gradient in found.values():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
    everything = {**losses, **found, **criterion.state_dict()}
    return {name: value.detach().numpy() for name, value in everything.items()}
