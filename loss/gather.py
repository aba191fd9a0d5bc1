"""Ranking over the mini-batch of all workers of a distributed training.

A loss that looks at each score by itself is, on W workers, the mean of W shares. One that ranks is
not: a share is ranked among itself. `GatheredCriterion` gives every worker the outputs of all, so
that the loss is that of the whole mini-batch, at the price of sending them.

Shape letters: W workers, A anchors and P positives of one worker or of all of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from loss.batch import DetectionBatch
from loss.criterion import Criterion

_OF_ANCHORS = ("logits", "labels", "weights", "images", "levels")
_OF_POSITIVES = (
    *("pos", "pred_boxes", "target_boxes", "anchor_sizes"),
    *("deltas", "target_deltas", "quality"),
)
_OPTIONAL = (
    *("anchor_sizes", "avg_factor", "images", "deltas"),
    *("target_deltas", "quality", "box_avg_factor", "levels"),
)


class GatheredCriterion(Criterion):
    """A criterion over the mini-batch of all workers.

    Every worker computes the whole loss, and keeps the gradient of its own outputs times W. So
    after gradients are averaged over the workers, as DistributedDataParallel does, the model's are
    those of one process with the whole mini-batch. What is logged is the loss of the whole.

    All workers have to call it equally often. Without a process group, or in one of a single
    process, it is the criterion itself.

    Args:
        criterion: what is computed; its state is that of the whole mini-batch on every worker.
    """

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        self.criterion = criterion
        self.activation = criterion.activation
        self._alone = False

    def forward(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """The criterion's losses of all workers' batches; see `gather`."""
        losses: dict[str, Tensor] = self.criterion(batch if self._alone else gather(batch))
        return losses

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For a while each worker ranks its own batch, as without this module."""
        before, self._alone = self._alone, True
        try:
            yield
        finally:
            self._alone = before

    def end_epoch(self) -> None:
        self.criterion.end_epoch()


def gather(batch: DetectionBatch) -> DetectionBatch:
    """The batches of all workers as one, in the order of their ranks.

    Images are counted on from worker to worker, as far as a worker's anchors tell; `avg_factor` and
    `box_avg_factor` are the sums over workers. Of the gradient that reaches this batch each worker
    keeps the rows that it gave, times W; the others' are constants to it. A GPU makes the host wait
    here, for the sizes.

    Returns:
        `batch` itself where there is no process group, or a group of one.

    Raises:
        ValueError: the workers' batches have other fields or numbers of classes.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return batch
    shares = _shares(batch)
    _check_alike(shares)
    own = dist.get_rank()
    before = shares[:own]
    moved = {
        "pos": batch.pos + sum(share.anchors for share in before),
        "images": None if batch.images is None else batch.images + sum(s.images for s in before),
    }
    anchors, positives = [s.anchors for s in shares], [s.positives for s in shares]
    fields: dict[str, Any] = {}
    for name in (*_OF_ANCHORS, *_OF_POSITIVES):
        field = moved.get(name, getattr(batch, name))
        counts = anchors if name in _OF_ANCHORS else positives
        fields[name] = None if field is None else _gather_rows(field, counts, own)
    if batch.avg_factor is not None:
        fields["avg_factor"] = sum(share.avg_factor for share in shares)
    if batch.box_avg_factor is not None:
        fields["box_avg_factor"] = sum(share.box_avg_factor for share in shares)
    return DetectionBatch(**fields)


class _Share(NamedTuple):
    """What the workers tell each other of their batches first.

    Attributes:
        given: the optional fields that it has, a bit each.
        avg_factor, box_avg_factor: 0 where there is none.
    """

    anchors: int
    positives: int
    images: int
    classes: int
    given: int
    avg_factor: float
    box_avg_factor: float


def _shares(batch: DetectionBatch) -> list[_Share]:
    """Of every worker's batch, by rank."""
    given = sum(1 << k for k, name in enumerate(_OPTIONAL) if getattr(batch, name) is not None)
    images = batch.pos.new_zeros(())
    if batch.images is not None and len(batch.images):
        images = batch.images.max() + 1
    box_avg_factor = 0.0 if batch.box_avg_factor is None else batch.box_avg_factor
    counts = [len(batch.logits), len(batch.pos), images, batch.num_classes, given]
    numbers = [*counts, batch.avg_factor or 0.0, box_avg_factor]
    # In float64, which holds every count exactly; what is on a GPU stays there until all is known.
    own = torch.stack(
        [torch.as_tensor(n, dtype=torch.float64, device=batch.logits.device) for n in numbers]
    )
    told = own.new_empty(dist.get_world_size() * len(own))
    _all_gather(told, own.detach())
    return [
        _Share(*(int(x) for x in row[:5]), *row[5:]) for row in told.view(-1, len(own)).tolist()
    ]


def _check_alike(shares: Sequence[_Share]) -> None:
    first = shares[0]
    for rank, share in enumerate(shares):
        if share.classes != first.classes:
            raise ValueError(
                f"worker {rank} has logits of {share.classes} columns, but worker 0 of "
                f"{first.classes}: all workers have to train the same detector."
            )
        if share.given != first.given:
            differ = [n for k, n in enumerate(_OPTIONAL) if (share.given ^ first.given) >> k & 1]
            raise ValueError(
                f"workers 0 and {rank} do not agree on whether their batches have "
                f"{', '.join(differ)}: the head adapter has to give them always or never."
            )


def _gather_rows(own: Tensor, counts: Sequence[int], rank: int) -> Tensor:
    """[sum of counts, ...] the rows of all workers; `own` are those of worker `rank`."""
    if max(counts) == 0:
        return own
    rows: Tensor = _GatherRows.apply(own, counts, rank)  # type: ignore[no-untyped-call]
    return rows


def _all_gather(all_blocks: Tensor, own: Tensor) -> None:
    """Fill `all_blocks` [W * n, ...] with every worker's `own` [n, ...]."""
    # Since torch 2.13 the older name is deprecated.
    gather_blocks = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather_blocks(all_blocks, own)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: Sequence[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        longest = max(counts)
        # Only blocks of one size can be sent by every backend.
        block = own.contiguous()
        if len(own) < longest:
            block = torch.cat([block, block.new_zeros(longest - len(own), *own.shape[1:])])
        blocks = own.new_empty(len(counts) * longest, *own.shape[1:])
        _all_gather(blocks, block)
        if min(counts) == longest:
            return blocks
        parts = [part[:n] for part, n in zip(blocks.split(longest), counts, strict=True)]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        begin = sum(ctx.counts[: ctx.rank])
        own = grad[begin : begin + ctx.counts[ctx.rank]]
        # Averaging over the workers will divide what each of them has by their number.
        return own * len(ctx.counts), None, None
