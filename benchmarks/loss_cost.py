"""What Parameterized AP Loss costs: ratios of times taken side by side in one run.

    PYTHONPATH=. python benchmarks/loss_cost.py --threads 1 --repeats 20 --clock cpu

A row is one mini-batch of A anchors x C classes with P positives. Timed is forward plus backward,
to logits and boxes: of Focal + GIoU in eager mode, of Parameterized AP Loss (five curves of five
segments), and, where its P x N pairs fit, of the dense float64 oracle of the tests. The runs take
turns, and the least of each counts (of two for the oracle). On a shared machine take the clock of
the process's own CPU time: the wall clock counts what others do.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from loss import DetectionBatch, FocalGIoU, ParameterizedAPLoss, control_points_from_theta
from loss.localization import giou_score
from tests import oracles

SIZES = [  # anchors, classes, positives
    (24_552, 3, 100),  # 8 images of 128 x 128: the quick start
    (24_552, 3, 1_000),
    (49_104, 20, 500),  # an image of 512 x 512, VOC
    (49_104, 80, 500),  # the same, COCO
]
DENSE_PAIRS = 10_000_000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def random_batch(anchors: int, classes: int, positives: int) -> DetectionBatch:
    """Logits as at the start of training, around -4.6; one anchor in fifty is ignored."""
    generator = torch.Generator().manual_seed(0)
    pos = torch.randperm(anchors, generator=generator)[:positives].sort().values
    labels = torch.full((anchors,), classes)
    labels[pos] = torch.randint(0, classes, (positives,), generator=generator)
    weights = (torch.rand(anchors, generator=generator) > 0.02).float()
    weights[pos] = 1
    low = 400 * torch.rand(positives, 2, generator=generator)
    target = torch.cat([low, low + 50], 1)
    return DetectionBatch(
        logits=(torch.randn(anchors, classes, generator=generator) - 4.6).requires_grad_(),
        labels=labels,
        weights=weights,
        pos=pos,
        pred_boxes=(target + 8 * torch.randn(positives, 4, generator=generator)).requires_grad_(),
        target_boxes=target,
    )


def dense(batch: DetectionBatch, points: Tensor) -> Tensor:
    """The oracle's loss of a whole batch."""
    targets = batch.targets().flatten()
    scores = giou_score(batch.pred_boxes, batch.target_boxes)
    localization = torch.zeros(targets.shape).masked_scatter(targets == 1, scores)
    return oracles.pap_loss(batch.logits.flatten(), localization, targets, points)


def row(size: tuple[int, int, int], repeats: int, clock: Callable[[], float]) -> str:
    """The table's row of a size."""
    batch = random_batch(*size)
    theta = 0.1 + 0.3 * torch.rand(5, 8, generator=torch.Generator().manual_seed(1))
    points = control_points_from_theta(theta)
    focal, pap = FocalGIoU(), ParameterizedAPLoss(points)
    runs: dict[str, Callable[[], Tensor]] = {
        "focal": lambda: torch.stack(list(focal(batch).values())).sum(),
        "pap": lambda: pap(batch)["loss_pap"],
    }
    anchors, classes, positives = size
    if anchors * classes * positives <= DENSE_PAIRS:
        runs["dense"] = lambda: dense(batch, points)
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats):
        for name, run in runs.items():
            if name != "dense" or turn < 2:
                begin = clock()
                torch.autograd.grad(run(), [batch.logits, batch.pred_boxes])
                best[name] = min(best[name], clock() - begin)
    cells = [
        f"{anchors:,} x {classes}",
        f"{positives:,}",
        f"{1e3 * best['focal']:.1f} ms",
        f"{1e3 * best['pap']:.1f} ms",
        f"{best['pap'] / best['focal']:.1f}",
        f"{best['dense'] / best['pap']:.0f}" if "dense" in best else "-",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of Parameterized AP Loss.")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--repeats", type=int, default=20, help="runs of which the least counts")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is measured")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {arguments.threads} thread(s), {arguments.clock} time, "
        f"least of {arguments.repeats}"
    )
    print()
    print("| anchors x classes | P | Focal + GIoU | PAP | PAP / Focal + GIoU | oracle / PAP |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in SIZES:
        print(row(size, arguments.repeats, CLOCKS[arguments.clock]), flush=True)


if __name__ == "__main__":
    main()
