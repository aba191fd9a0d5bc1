"""A training in a moment: a tiny head learns made-up images by a criterion, and its AP is measured.

Shape letters: I images, L locations, A anchors (of one image), F features, C classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loss.average_precision import average_precision
from loss.criterion import Criterion
from loss.scene import Scene

PRIOR = 0.01
"""The score that every anchor begins with, as in RetinaNet."""
_HIDDEN = 64
_OUTPUT_STD = 0.01
_CLIP = 35.0


@dataclass(frozen=True)
class Simulation:
    """What a simulated training came to.

    Attributes:
        ap: in [0, 1], the mean over the measurements on the way; 0 if the loss or its gradient
            stopped being finite. Compare it between criteria of the same simulation only.
        ap_before: before the first step.
        curve: AP at each measurement.
        finite: whether loss and gradients stayed finite.
    """

    ap: float
    ap_before: float
    curve: tuple[float, ...]
    finite: bool


def simulate(
    criterion: Criterion,
    scene: Scene,
    *,
    steps: int = 50,
    measure: tuple[int, ...] = (20, 30, 40, 50),
    batch_size: int = 4,
    train: int = 40,
    learning_rate: float = 3e-3,
    warmup: int = 10,
    seed: int = 0,
) -> Simulation:
    """Train with Adam on the first images of `scene`, and measure AP on the others.

    One layer that scores and boxes share, and one layer for each: with free scores and boxes every
    loss that ranks would do, while a shared layer has to generalise, and lets a branch that pulls
    too hard spoil the other. Deterministic on one machine; last digits may differ between two.

    Args:
        criterion: is trained with; asked in the mode that it is in.
        scene: `train` images to learn, the others to measure.
        steps, batch_size, learning_rate, warmup: of Adam, whose rate rises linearly at first.
        measure: after which steps AP is measured.
        seed: of the weights and of the order of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = scene.num_classes + (criterion.activation == "softmax")
    head = _Head(scene, columns, generator)
    held_out = torch.arange(train, len(scene.features))
    before = head.ap(held_out)
    failed = Simulation(0.0, before, (), finite=False)
    adam = torch.optim.Adam(head.parameters, lr=learning_rate)
    order = _order(train, steps * batch_size, generator)
    curve = []
    for step in range(steps):
        images = order[step * batch_size : (step + 1) * batch_size]
        logits, deltas = head(images)
        losses = criterion(scene.batch(images, logits, deltas))
        loss = torch.stack(list(losses.values())).sum()
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(head.parameters, _CLIP)
        if not math.isfinite(float(loss.detach()) + float(norm)):
            return failed
        for group in adam.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / warmup)
        adam.step()
        if step + 1 in measure:
            curve.append(head.ap(held_out))
    return Simulation(sum(curve) / len(curve), before, tuple(curve), finite=True)


class _Head:
    """Features of a location -> scores and deltas of its anchors."""

    def __init__(self, scene: Scene, columns: int, generator: torch.Generator) -> None:
        self.scene, self.columns = scene, columns
        features, anchors = scene.features.shape[-1], scene.anchors_per_location

        def weights(rows: int, outputs: int, std: float) -> Tensor:
            return (std * torch.randn(rows, outputs, generator=generator)).requires_grad_()

        bias = torch.full((columns,), -math.log(1 / PRIOR - 1))
        if columns > scene.num_classes:
            # Under a softmax the background has the rest.
            bias = torch.full((columns,), math.log(PRIOR))
            bias[-1] = math.log(1 - columns * PRIOR)
        self.shared = weights(features, _HIDDEN, features**-0.5)
        self.shared_bias = torch.zeros(_HIDDEN).requires_grad_()
        self.scores = weights(_HIDDEN, anchors * columns, _OUTPUT_STD)
        self.score_bias = bias.repeat(anchors).requires_grad_()
        self.boxes = weights(_HIDDEN, anchors * 4, _OUTPUT_STD)
        self.box_bias = torch.zeros(anchors * 4).requires_grad_()
        self.parameters = [
            self.shared,
            self.shared_bias,
            self.scores,
            self.score_bias,
            self.boxes,
            self.box_bias,
        ]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, A, C] and deltas [B, A, 4] of images [B]."""
        x = self.scene.features[images] @ self.shared + self.shared_bias
        x = torch.relu(torch.nn.functional.layer_norm(x, (_HIDDEN,)))
        logits = (x @ self.scores + self.score_bias).view(len(images), -1, self.columns)
        deltas = (x @ self.boxes + self.box_bias).view(len(images), -1, 4)
        return logits, deltas

    @torch.no_grad()
    def ap(self, images: Tensor) -> float:
        logits, deltas = self(images)
        if self.columns > self.scene.num_classes:
            logits = logits.softmax(-1)[..., :-1]
        boxes = self.scene.decode(deltas)
        classes = self.scene.classes[images]
        return average_precision(logits, boxes, self.scene.objects[images], classes)


def _order(images: int, count: int, generator: torch.Generator) -> Tensor:
    """[count] images in random order, each as often as the others."""
    passes = [torch.randperm(images, generator=generator) for _ in range(count // images + 1)]
    return torch.cat(passes)[:count]
