"""What a criterion sees of a mini-batch."""

import pytest
import torch

from loss.batch import DetectionBatch

GOOD = {
    "logits": torch.zeros(4, 2),
    "labels": torch.tensor([2, 1, 0, 2]),  # 2 is the background
    "weights": torch.tensor([1.0, 1.0, 0.5, 0.0]),
    "pos": torch.tensor([1, 2]),
    "pred_boxes": torch.zeros(2, 4),
    "target_boxes": torch.zeros(2, 4),
    "anchor_sizes": torch.ones(2, 2),
}


def test_targets_by_hand():
    batch = DetectionBatch(**GOOD)
    assert batch.num_classes == 2
    targets = batch.targets()
    assert targets.dtype == torch.int8
    # background; class 1; class 0, whatever its weight; ignored in every class
    assert targets.tolist() == [[0, 0], [0, 1], [1, 0], [-1, -1]]


def test_a_batch_without_positives_or_sizes():
    none = {"pos": torch.zeros(0, dtype=torch.long), "anchor_sizes": None}
    boxes = {"pred_boxes": torch.zeros(0, 4), "target_boxes": torch.zeros(0, 4)}
    labels = {"labels": torch.full((4,), 2)}
    batch = DetectionBatch(**{**GOOD, **none, **boxes, **labels})
    assert batch.targets().tolist() == [[0, 0], [0, 0], [0, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("logits", (4,)),
        ("logits", (1, 4, 2)),
        ("labels", (3,)),
        ("labels", (4, 1)),
        ("weights", (4, 2)),
        ("pos", (2, 1)),
        ("pred_boxes", (4, 4)),
        ("target_boxes", (2, 5)),
        ("anchor_sizes", (2, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=name):
        DetectionBatch(**{**GOOD, name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([2, 2, 0, 2])}, "label of the background, 2"),
        ({"weights": torch.tensor([1.0, 0.0, 0.5, 0.0])}, "positive has weight 0"),
    ],
)
def test_a_positive_that_is_none_is_refused(change, message):
    # Both would score somebody else's logit, or train on what everybody else ignores.
    with pytest.raises(ValueError, match=message):
        DetectionBatch(**{**GOOD, **change})
