"""What ranking over the mini-batch of all workers costs (`schedule.gather_logits`).

    python benchmarks/gather_logits.py [--repeats 5] [--workers 2]

Workers are processes on this machine that gloo joins. Prints, for mini-batches of some sizes, the
bytes that a worker sends at each step, and ratios of times with gathering over without: of the
criterion alone, forward and backward, and of a whole training step of the quick start's detector.
"""

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from loss import Criterion, DetectionBatch, GatheredCriterion, build_criterion

ANCHORS = sum(9 * (512 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
"""Of a RetinaNet on an image of 512 x 512."""
SIZES = {
    "8 images of 512 x 512, 80 classes": (8, ANCHORS, 80),
    "8 images of 512 x 512, 20 classes": (8, ANCHORS, 20),
    "8 images of 256 x 256, 20 classes": (8, ANCHORS // 4, 20),
    "8 images of 128 x 128, 3 classes": (8, ANCHORS // 16, 3),
}
POSITIVES = 50
"""Of an image."""


def share(images: int, anchors: int, classes: int, seed: int) -> DetectionBatch:
    """A worker's mini-batch of `images` images, early in a training."""
    generator = torch.Generator().manual_seed(seed)
    rows, positives = images * anchors, images * POSITIVES
    pos = torch.randperm(rows, generator=generator)[:positives].sort().values
    labels = torch.full((rows,), classes)
    labels[pos] = torch.randint(classes, (positives,), generator=generator)
    corner = 400 * torch.rand(positives, 2, generator=generator)
    boxes = torch.cat([corner, corner + 20 + 80 * torch.rand(positives, 2, generator=generator)], 1)
    return DetectionBatch(
        logits=(torch.randn(rows, classes, generator=generator) - 4).requires_grad_(),
        labels=labels,
        weights=torch.ones(rows),
        pos=pos,
        pred_boxes=(boxes + torch.randn(positives, 4, generator=generator)).requires_grad_(),
        target_boxes=boxes,
        anchor_sizes=torch.full((positives, 2), 64.0),
        avg_factor=float(positives),
        images=torch.arange(images).repeat_interleave(anchors),
        deltas=boxes,
        target_deltas=boxes,
        levels=torch.zeros(rows, dtype=torch.long),
    )


def sent(batch: DetectionBatch) -> int:
    """Bytes of the fields that travel."""
    return sum(each.nbytes for each in vars(batch).values() if isinstance(each, Tensor))


def criterion_step(criterion: Criterion, batch: DetectionBatch) -> Callable[[], None]:
    def step() -> None:
        losses = criterion(batch)
        torch.stack(list(losses.values())).sum().backward()

    return step


def detector_step(spec: Any, folder: Path, images: int) -> Callable[[], None]:
    """Forward, backward and the average over the workers, of `images` images."""
    from mmengine.dataset import pseudo_collate

    from trainers.mmdet.runner import build_runner, detector_of

    runner = build_runner(spec, folder, [])
    dataset = runner.train_dataloader.dataset
    data = pseudo_collate([dataset[k] for k in range(images)])
    detector = detector_of(runner)
    runner.model.train()
    data = detector.data_preprocessor(data, True)

    def step() -> None:
        total, _ = detector.parse_losses(runner.model(**data, mode="loss"))
        total.backward()
        detector.zero_grad()

    return step


def least(steps: list[Callable[[], None]], repeats: int) -> list[float]:
    """Seconds of each step, taken in turn and together with the other workers.

    The least of the repeats: the machine may have other work, which only ever adds.
    """
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(repeats + 1):
        for step, own in zip(steps, times, strict=True):
            dist.barrier()
            begun = time.perf_counter()
            step()
            dist.barrier()
            if repeat > 0:  # the first one warms up
                own.append(time.perf_counter() - begun)
    return [min(own) for own in times]


def work(rank: int, workers: int, meeting: str, repeats: int, spec: Any, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)

    def say(*columns: str) -> None:
        if rank == 0:
            print("|", " | ".join(columns), "|", flush=True)

    say("mini-batch", "sent by a worker, MB", "without, s", "with / without")
    say("---", "---", "---", "---")
    for name, (images, anchors, classes) in SIZES.items():
        batch = share(images // workers, anchors, classes, rank)
        own = build_criterion({"type": "parameterized_ap"})
        steps = [criterion_step(c, batch) for c in (own, GatheredCriterion(own))]
        without, gathered = least(steps, repeats)
        megabytes = (workers - 1) * sent(batch) / 1e6
        say(f"criterion: {name}", f"{megabytes:.1f}", f"{without:.3f}", f"{gathered / without:.2f}")
    steps = []
    for gather in (False, True):
        schedule = spec.schedule.model_copy(update={"gather_logits": gather})
        changed = spec.model_copy(update={"schedule": schedule})
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            steps.append(detector_step(changed, folder / f"{rank}", 8 // workers))
    without, gathered = least(steps, repeats)
    say("step: quick start's detector", "", f"{without:.3f}", f"{gathered / without:.2f}")
    dist.destroy_process_group()
    time.sleep(1)  # gloo's threads end in their own time


def quick_start(folder: Path) -> Any:
    """A trial of the quick start, on images that are drawn for it."""
    from trainers.config import ScheduleConfig
    from trainers.datasets.coco import load_data
    from trainers.datasets.shapes import draw_shapes
    from trainers.read import load_detector
    from trainers.trial import TrialSpec

    draw_shapes(folder / "data", train=16, val=4, test=4)
    return TrialSpec(
        detector=load_detector("retinanet_r18_small"),
        data=load_data(folder / "data" / "dataset.yaml"),
        criterion={"type": "parameterized_ap"},
        schedule=ScheduleConfig(image_size=(128, 128), batch_size=8),
        seed=0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec = quick_start(Path(folder))
        meeting = (Path(folder) / "meeting").as_uri()
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(
                target=work,
                args=(rank, arguments.workers, meeting, arguments.repeats, spec, Path(folder)),
            )
            for rank in range(arguments.workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


if __name__ == "__main__":
    main()
