"""What every head adapter is: a head that trains with a criterion.

An adapter stands first in the order of inheritance, before mmdet's head: one adapter a family of
heads, never a head per loss. It turns what the head puts out into one `DetectionBatch` of the whole
mini-batch, after targets are assigned and before anything is reduced.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from loss import DetectionBatch, GatheredCriterion, build_criterion

_BOXES = 12
_LEAST_DOUBT = 1e-6
"""Of a class whose probability rounds to 1."""
_T = TypeVar("_T")


@MODELS.register_module()
class StockLoss(nn.Module):
    """Stands where a head keeps a loss of its own, and must never be called.

    A head that still reaches it has a path that the adapter does not cover, and would train on
    something else than the criterion.
    """

    def __init__(self, use_sigmoid: bool = True) -> None:
        super().__init__()
        # Heads read from their loss how many scores they have, and what turns them into detections.
        self.use_sigmoid = use_sigmoid

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError(
            "a stock loss of the head was called beside the criterion: this head has a path that "
            "its adapter does not cover. Use a detector of a supported head family."
        )


@dataclass(frozen=True)
class MadeUp:
    """Where made-up outputs of a head, and their ground truth, come from.

    Attributes:
        width, height: of the images, in pixels.
        images: how many.
    """

    generator: torch.Generator
    device: torch.device
    width: int
    height: int
    images: int = 2

    def drawn_alike(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """`call`, with the same numbers drawn at random each time: samplers draw anchors."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            return call(*arguments)

    def output(self, *shape: int, spread: float = 1.0, centre: float = 0.0) -> Tensor:
        """A leaf of normal numbers."""
        values = centre + spread * torch.randn(shape, generator=self.generator)
        return values.to(self.device).requires_grad_()

    def levels(
        self, strides: Sequence[Any], channels: int, spread: float = 1.0, centre: float = 0.0
    ) -> list[Tensor]:
        """A leaf [images, channels, H, W] for each level; a stride is a number or a pair (w, h)."""
        found = []
        for stride in strides:
            across, down = stride if isinstance(stride, Sequence) else (stride, stride)
            size = (-(-self.height // down), -(-self.width // across))
            found.append(self.output(self.images, channels, *size, spread=spread, centre=centre))
        return found

    def metas(self) -> list[dict[str, Any]]:
        """mmdet's description of each image."""
        size = (self.height, self.width)
        meta = {"img_shape": size, "pad_shape": (*size, 3), "batch_input_shape": size}
        return [{**meta, "scale_factor": (1.0, 1.0)} for _ in range(self.images)]

    def truth(self, classes: int) -> list[Any]:
        """Twelve boxes of 10 to 60 % of the image's sides in each image."""
        return [self._truth(classes) for _ in range(self.images)]

    def _truth(self, classes: int) -> Any:
        size = torch.tensor([self.width, self.height], dtype=torch.float32)
        sides = size * (0.1 + 0.5 * torch.rand((_BOXES, 2), generator=self.generator))
        corner = (size - sides) * torch.rand((_BOXES, 2), generator=self.generator)
        labels = torch.randint(classes, (_BOXES,), generator=self.generator)
        boxes = torch.cat([corner, corner + sides], 1)
        return InstanceData(bboxes=boxes.to(self.device), labels=labels.to(self.device))


@dataclass(frozen=True)
class HeadRun:
    """What a head made of made-up outputs.

    Attributes:
        scores, boxes: the outputs, leaves: what classifies, and what regresses boxes.
        losses: everything that the head gives to be trained on, by name.
        batches: what its criterion was given, in this order: one, or one a decoder layer.
        kept: a scalar, the sum of stock losses that do reach scores or boxes, because the head's
            settings keep them beside the criterion; or None.
    """

    scores: list[Tensor]
    boxes: list[Tensor]
    losses: Mapping[str, Tensor]
    batches: list[DetectionBatch]
    kept: Tensor | None = None


class CriterionHead:
    """Gives a head its criterion in place of its own losses.

    Args:
        criterion: settings for `loss.build_criterion`.
        The rest goes to the head, without its `replaced` losses, whatever they were.

    Attributes:
        replaced: the head's arguments that hold losses which the criterion takes the place of.
        sentinel: what stands in their place.
        stock_losses: names of losses that stay the head's own because they are no part of what a
            criterion is; they must not reach scores or boxes that the criterion trains, except
            those in `HeadRun.kept`.
    """

    replaced: ClassVar[tuple[str, ...]] = ("loss_cls", "loss_bbox")
    sentinel: ClassVar[str] = "StockLoss"
    stock_losses: ClassVar[tuple[str, ...]] = ()
    criterion: Any

    def __init__(self, *args: Any, criterion: Mapping[str, Any], **kwargs: Any) -> None:
        built = build_criterion(criterion)
        # mmdet's heads ask their loss whether classes are scored alone or against a background.
        stock = {"type": self.sentinel, "use_sigmoid": built.activation == "sigmoid"}
        kwargs |= {name: dict(stock) for name in self.replaced}
        super().__init__(*args, **kwargs)
        self.criterion = built

    def gather_logits(self) -> None:
        """From now on the criterion is that of the mini-batch of all workers."""
        self.criterion = GatheredCriterion(self.criterion)

    def run_made_up(self, made_up: MadeUp) -> HeadRun:
        """Train on made-up outputs, down to the losses."""
        raise NotImplementedError

    def is_stock(self, name: str) -> bool:
        """Whether the loss called `name` (perhaps with a layer in front: "d0.") is not ours."""
        return name.rpartition(".")[2] in self.stock_losses


ADAPTERS: dict[str, str] = {}
"""The stock heads that can be trained with a criterion, and the adapter of each."""


def adapts(stock: str) -> Callable[[type], type]:
    """Register an adapter with mmdet, and as the one of the head called `stock`."""

    def register(adapter: type) -> type:
        MODELS.register_module(module=adapter)
        ADAPTERS[stock] = adapter.__name__
        return adapter

    return register


def flat_levels(levels: Sequence[Tensor], channels: int) -> Tensor:
    """Levels of [B, anchors * channels, H, W] -> [B * A, channels], image by image."""
    flat = [level.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, channels)) for level in levels]
    return torch.cat(flat, 1).flatten(0, 1)


def positives_of(labels: Tensor, classes: int) -> Tensor:
    """[P] the indices of what is not background in labels [A]."""
    return ((labels >= 0) & (labels < classes)).nonzero().squeeze(1)


def image_of_each(labels: Tensor) -> Tensor:
    """[B * A] the image of each anchor, for labels [B, A]."""
    return torch.arange(len(labels), device=labels.device).repeat_interleave(labels.shape[1])


def level_of_each(counts: Sequence[int], images: int, device: torch.device) -> Tensor:
    """[B * A] the level of each anchor, where level k has counts[k] of an image's A."""
    # Made on the host, which knows the counts: a GPU would make it wait for the size.
    levels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return levels.repeat(images).to(device)


def mean_over_workers(count: float, device: torch.device) -> float:
    """`count` as heads divide by it that average over the workers of a distributed training."""
    if not (dist.is_available() and dist.is_initialized()):
        return count
    return float(reduce_mean(torch.tensor(count, dtype=torch.float32, device=device)))


def sigmoid_logits(logits: Tensor) -> Tensor:
    """[..., C + 1] softmax logits -> [..., C] logits of the same probabilities for a sigmoid.

    For what takes a sigmoid of scores, whatever the head was trained with.
    """
    log_p = logits.float().log_softmax(-1)[..., :-1].clamp(max=-_LEAST_DOUBT)
    # log(p / (1 - p)), without what 1 - p would cancel.
    return log_p - (-log_p.expm1()).log()
