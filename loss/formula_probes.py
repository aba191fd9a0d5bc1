"""Mini-batches that formulas are looked at on before anything is trained.

Shape letters: A anchors, C classes, P positives.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from loss.batch import DetectionBatch


@cache
def probe_batches(activation: str, dtype: torch.dtype) -> tuple[DetectionBatch, ...]:
    """Mini-batches of 48 anchors, 12 of them positive and 4 ignored: one as a head begins, with
    scores of about .01, and one with scores from 0 to 1. Their boxes overlap their targets."""
    return tuple(_probe_batches(activation, dtype))


def _probe_batches(activation: str, dtype: torch.dtype) -> Iterator[DetectionBatch]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    A, C, P = 48, 3, 12
    columns = C + (activation == "softmax")
    for middle, spread in ((-4.6, 0.5), (0.0, 2.0)):
        logits = middle + spread * normal(A, columns)
        if activation == "softmax":
            logits[:, -1] += -middle
        size = 10 * 2 ** (4 * torch.rand(P, 2, generator=generator, dtype=torch.float64))
        low = 100 + 50 * normal(P, 2)
        target = torch.cat([low, low + size], 1)
        labels = torch.full((A,), C)
        labels[:P] = torch.arange(P) % C
        weights = torch.ones(A, dtype=dtype)
        weights[P : P + 4] = 0
        yield DetectionBatch(
            logits=logits.to(dtype),
            labels=labels,
            weights=weights,
            pos=torch.arange(P),
            pred_boxes=(target + 0.12 * size.repeat(1, 2) * normal(P, 4)).to(dtype),
            target_boxes=target.to(dtype),
        )
