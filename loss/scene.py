"""Images that were never drawn: what a small detector would see of them, and what it should say.

Shape letters: I images, L locations, A anchors (of one image), F features, G objects, C classes.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from loss.batch import DetectionBatch
from loss.localization import iou_and_giou

SIDE = 64.0
STRIDE = 8
ANCHORS = (10.0, 16.0, 24.0, 34.0)
EXTENT = (0.12, 0.6)
MOST_OBJECTS = 4
CLUTTER = 2
POSITIVE, NEGATIVE = 0.5, 0.4
NOISE = 0.3
_LEAST_OVERLAP = 0.1
_TRIES = 50
_LARGEST_SHIFT = 8.0
_LARGEST_STRETCH = 4.1


@dataclass(frozen=True)
class Scene:
    """Images as a dense head meets them: features at a grid of locations, anchors at each.

    An image of 64 x 64 pixels has 64 locations with square anchors of 10 to 34 pixels, and 1 to 4
    objects of 7 to 38 that hardly overlap. Positive are the anchors that overlap an object by .5,
    and its best one; those between .4 and .5 are ignored. Two more things in every image look like
    objects, and are none.

    Attributes:
        features: [I, L, F] float, of mean 0 and variance 1.
        anchors: [A, 4] float, in pixels; those of a location follow each other.
        objects: [I, G, 4] float, in pixels.
        classes: [I, G] integer, C where an image has fewer objects.
        labels: [I, A] integer, C for what is no positive.
        weights: [I, A] float, 0 for what is ignored.
        matched: [I, A, 4] float: the object that an anchor is assigned to; read at positives.
        num_classes: C.
    """

    features: Tensor
    anchors: Tensor
    objects: Tensor
    classes: Tensor
    labels: Tensor
    weights: Tensor
    matched: Tensor
    num_classes: int

    @property
    def anchors_per_location(self) -> int:
        return len(self.anchors) // self.features.shape[1]

    def decode(self, deltas: Tensor) -> Tensor:
        """Boxes [I, A, 4] of deltas [I, A, 4]: shift and log stretch, in units of the anchor."""
        centre, size = _centre_and_size(self.anchors)
        centre = centre + deltas[..., :2].clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT) * size
        size = size * deltas[..., 2:].clamp(-_LARGEST_STRETCH, _LARGEST_STRETCH).exp()
        return torch.cat([centre - size / 2, centre + size / 2], -1)

    def encode(self, boxes: Tensor) -> Tensor:
        """The deltas [I, A, 4] that stand for boxes [I, A, 4]."""
        (centre, size), (own, unit) = _centre_and_size(boxes), _centre_and_size(self.anchors)
        return torch.cat([(centre - own) / unit, (size / unit).log()], -1)

    def batch(self, images: Tensor, logits: Tensor, deltas: Tensor) -> DetectionBatch:
        """What a criterion sees of a head's outputs.

        Args:
            images: [B] integer, which images they are of.
            logits: [B, A, C], or [B, A, C + 1] with the background last.
            deltas: [B, A, 4].
        """
        labels = self.labels[images].flatten()
        pos = (labels < self.num_classes).nonzero().squeeze(1)
        count, anchors = len(images), len(self.anchors)
        sizes = _centre_and_size(self.anchors)[1]
        targets = self.matched[images]
        return DetectionBatch(
            logits=logits.flatten(0, 1),
            labels=labels,
            weights=self.weights[images].flatten(),
            pos=pos,
            pred_boxes=self.decode(deltas).flatten(0, 1)[pos],
            target_boxes=targets.flatten(0, 1)[pos],
            anchor_sizes=sizes.repeat(count, 1)[pos],
            images=torch.arange(count).repeat_interleave(anchors),
            deltas=deltas.flatten(0, 1)[pos],
            target_deltas=self.encode(targets).flatten(0, 1)[pos],
            levels=torch.zeros_like(labels),
        )


def make_scene(images: int, *, classes: int = 3, features: int = 64, seed: int = 0) -> Scene:
    """A scene of so many images; the same for the same arguments.

    What a location shows is the object (or what looks like one) that it lies in: where that is,
    how large, of which class, all of it sent through one fixed random layer, with noise on top.
    """
    generator = torch.Generator().manual_seed(seed)
    objects, there = _place_objects(images, generator)
    kinds = torch.randint(0, classes, there.shape, generator=generator)
    locations = (torch.arange(SIDE // STRIDE) + 0.5) * STRIDE
    grid = torch.cartesian_prod(locations, locations).flip(-1)
    sizes = torch.tensor(ANCHORS)[:, None].expand(-1, 2)
    centres, sizes = grid.repeat_interleave(len(sizes), 0), sizes.repeat(len(grid), 1)
    anchors = torch.cat([centres - sizes / 2, centres + sizes / 2], -1)
    positive, ignored, which = _assign(anchors, objects, there)
    return Scene(
        features=_features(grid, objects, there, kinds, classes, features, generator),
        anchors=anchors,
        objects=objects,
        classes=kinds.masked_fill(~there, classes),
        labels=kinds.gather(1, which).masked_fill(~positive, classes),
        weights=1 - ignored.float(),
        matched=objects.gather(1, which[..., None].expand(-1, -1, 4)),
        num_classes=classes,
    )


def _place_objects(images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes [I, G, 4], and [I, G] bool, whether they are there."""
    counts = torch.randint(1, MOST_OBJECTS + 1, (images,), generator=generator)
    there = torch.arange(MOST_OBJECTS) < counts[:, None]
    boxes = _random_boxes((_TRIES, images, MOST_OBJECTS), generator)
    placed = boxes[0]
    for k in range(1, MOST_OBJECTS):
        # Of so many tries the first that keeps its distance.
        overlap = _overlaps(boxes[:, :, k, None], placed[None, :, :k]).amax((-1, -2))
        first = (overlap < _LEAST_OVERLAP).float().argmax(0)
        placed[:, k] = boxes[first, torch.arange(images), k]
    return placed, there


def _random_boxes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """[*shape, 4] inside the image; the longer side as in EXTENT, the ratio up to the root of 2."""
    low, high = EXTENT
    side, aspect, x, y = torch.rand((4, *shape), generator=generator)
    side, aspect = SIDE * (low + (high - low) * side), 2 ** (aspect - 0.5)
    width, height = side * aspect.clamp(max=1), side * (1 / aspect).clamp(max=1)
    x, y = x * (SIDE - width), y * (SIDE - height)
    return torch.stack([x, y, x + width, y + height], -1)


def _assign(anchors: Tensor, objects: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[I, A] each: positive, ignored, and which object; by overlap, as RetinaNet does."""
    overlap = _overlaps(anchors[None], objects) * there[:, None]
    most, which = overlap.max(-1)
    best_of_object = (overlap == overlap.amax(1, keepdim=True)) & (overlap > 0)
    chosen = best_of_object.any(-1)
    which = torch.where(chosen, best_of_object.float().argmax(-1), which)
    positive = (most >= POSITIVE) | chosen
    return positive, (most >= NEGATIVE) & ~positive, which


def _features(
    grid: Tensor,
    objects: Tensor,
    there: Tensor,
    kinds: Tensor,
    classes: int,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """[I, L, F]."""
    images = len(objects)
    clutter = _random_boxes((images, CLUTTER), generator)
    boxes = torch.cat([objects, clutter], 1)
    seen = torch.cat([there, torch.ones(images, CLUTTER, dtype=torch.bool)], 1)
    # Clutter is a class of its own, which nobody asks for.
    kinds = torch.cat([kinds, torch.full((images, CLUTTER), classes)], 1)
    centre, size = _centre_and_size(boxes)
    away = ((centre[:, None] - grid[:, None]) / size[:, None]).abs().amax(-1)
    nearest, which = away.masked_fill(~seen[:, None], math.inf).min(-1)
    presence = torch.sigmoid(8 * (0.75 - nearest))[..., None]

    def of_nearest(values: Tensor) -> Tensor:
        return values.gather(1, which[..., None].expand(-1, -1, values.shape[-1]))

    shown = [
        (of_nearest(centre) - grid) / 16,
        (of_nearest(size) / 24).log(),
        of_nearest(F.one_hot(kinds, classes + 1).float()),
    ]
    description = torch.cat([presence * torch.cat(shown, -1), presence - 0.5], -1)
    width = description.shape[-1]
    layer = torch.randn(width, count, generator=generator) * 2 / math.sqrt(width)
    bias = torch.randn(count, generator=generator) / 2
    features = torch.tanh(description @ layer + bias)
    features = features + NOISE * torch.randn(features.shape, generator=generator)
    return (features - features.mean((0, 1))) / features.std((0, 1))


def _overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """[..., N, M] IoU of [..., N, 4] with [..., M, 4]."""
    return iou_and_giou(boxes[..., :, None, :], others[..., None, :, :])[0]


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 2] each."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
