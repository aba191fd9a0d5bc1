"""The worked example of the aLRP paper (arXiv 2009.13592, figure 1 and appendix A).

Five ground truths, ten detections of each of three detectors. Those at ranks 1, 3, 6 and 10 are
matched, with the same four IoUs in another order; the other detections are false positives, and
one ground truth is missed. `python -m tests.loss.test_worked_example` prints the table.
"""

import pytest
import torch
from torch import Tensor

from loss import ALRPLoss, DetectionBatch, alrp_loss, ap_loss

GROUND_TRUTHS, DETECTIONS = 5, 10
MATCHED_RANKS = (1, 3, 6, 10)
DETECTORS = {
    "best boxes first": (0.95, 0.80, 0.65, 0.50),
    "best box last": (0.80, 0.65, 0.50, 0.95),
    "best boxes last": (0.50, 0.65, 0.80, 0.95),
}
THRESHOLDS = (0.50, 0.65, 0.80, 0.95)


def average_precision(ious: tuple[float, ...], threshold: float) -> float:
    """Over the recalls .1, .2, ..., 1: the mean of the highest precision at that recall or more."""
    points, hits = [], 0
    for rank, iou in zip(MATCHED_RANKS, ious, strict=True):
        if iou >= threshold:
            hits += 1
            points.append((hits / GROUND_TRUTHS, hits / rank))
    recalls = [tenth / 10 for tenth in range(1, 11)]
    return sum(max((p for r, p in points if r >= recall), default=0.0) for recall in recalls) / 10


def losses(ious: tuple[float, ...]) -> tuple[float, float, float]:
    """AP Loss, and the classification and localisation part of aLRP Loss.

    Scores fall with the rank, and with delta = 0 nothing but their order counts. In the losses, a
    ground truth without a detection has no part.
    """
    logits = -torch.arange(1.0, DETECTIONS + 1)
    targets = torch.tensor([int(rank in MATCHED_RANKS) for rank in range(1, DETECTIONS + 1)])
    errors = 2 * (1 - torch.tensor(ious))  # (1 - IoU) / (1 - 1/2)
    alrp = alrp_loss(logits, targets, errors, delta=0.0)
    parts = (ap_loss(logits, targets, delta=0.0), alrp["classification"], alrp["localization"])
    return tuple(part.item() for part in parts)


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        ("best boxes first", (0.51, 0.43, 0.33, 0.20)),
        ("best box last", (0.51, 0.39, 0.24, 0.02)),
        ("best boxes last", (0.51, 0.19, 0.08, 0.02)),
    ],
)
def test_average_precision(detector: str, expected: tuple[float, ...]):
    found = [average_precision(DETECTORS[detector], threshold) for threshold in THRESHOLDS]
    assert [round(value, 2) for value in found] == list(expected)


def test_ap_loss_cannot_tell_the_three_apart():
    """Precisions 1/1, 2/3, 3/6 and 4/10, whatever the boxes."""
    for ious in DETECTORS.values():
        assert losses(ious)[0] == pytest.approx(1 - (1 / 1 + 2 / 3 + 3 / 6 + 4 / 10) / 4)


@pytest.mark.parametrize(
    ("detector", "above", "total"),
    [
        # The errors 2 (1 - IoU), summed from the top down to each matched rank.
        ("best boxes first", (0.1, 0.1 + 0.4, 0.1 + 0.4 + 0.7, 0.1 + 0.4 + 0.7 + 1.0), 0.53),
        ("best box last", (0.4, 0.4 + 0.7, 0.4 + 0.7 + 1.0, 0.4 + 0.7 + 1.0 + 0.1), 0.69),
        ("best boxes last", (1.0, 1.0 + 0.7, 1.0 + 0.7 + 0.4, 1.0 + 0.7 + 0.4 + 0.1), 0.89),
    ],
)
def test_alrp_loss_can(detector: str, above: tuple[float, ...], total: float):
    _, classification, localization = losses(DETECTORS[detector])
    # False positives above each: 0 of 1, 1 of 3, 3 of 6, 6 of 10; AP Loss again, as no precision
    # is higher than one above it.
    assert classification == pytest.approx((0 / 1 + 1 / 3 + 3 / 6 + 6 / 10) / 4)
    expected = sum(error / rank for error, rank in zip(above, MATCHED_RANKS, strict=True)) / 4
    assert localization == pytest.approx(expected)
    assert round(classification + localization, 2) == total


def detections(ious: tuple[float, ...]) -> DetectionBatch:
    """The same as a detector's outputs: a box with a part of its target's width has that IoU."""
    target = torch.tensor([0.0, 0.0, 100.0, 100.0]).expand(len(ious), 4)
    width = 100 * torch.tensor(ious)
    boxes = torch.stack([0 * width, 0 * width, width, 0 * width + 100], dim=1)
    pos = torch.tensor(MATCHED_RANKS) - 1
    return DetectionBatch(
        logits=-torch.arange(1.0, DETECTIONS + 1)[:, None],
        labels=torch.ones(DETECTIONS, dtype=torch.long).index_fill(0, pos, 0),
        weights=torch.ones(DETECTIONS),
        pos=pos,
        pred_boxes=boxes,
        target_boxes=target,
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_from_boxes(detector: str):
    ious = DETECTORS[detector]
    criterion = ALRPLoss(localization="iou", delta=0.0, self_balance=False)
    found: dict[str, Tensor] = criterion(detections(ious))
    _, classification, localization = losses(ious)
    assert found["loss_cls"].item() == pytest.approx(classification)
    assert found["loss_bbox"].item() == pytest.approx(localization, rel=1e-5)


if __name__ == "__main__":
    print("detector          " + "".join(f"  AP{100 * t:.0f}" for t in THRESHOLDS), end="")
    print("  AP Loss  aLRP Loss")
    for detector, ious in DETECTORS.items():
        ap, classification, localization = losses(ious)
        print(f"{detector:18}", end="")
        print("".join(f"{average_precision(ious, t):6.2f}" for t in THRESHOLDS), end="")
        print(f"{ap:9.2f}{classification + localization:11.2f}")
