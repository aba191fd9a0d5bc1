"""AP of a few images: by hand, and against loops over single detections."""

import pytest
import torch

from loss.average_precision import THRESHOLDS, average_precision

SQUARE = torch.tensor([0.0, 0.0, 10.0, 10.0])
FAR = SQUARE + 50


def one_image(scores, boxes, objects):
    """AP of one class; every object is of it."""
    objects = torch.stack(objects)
    classes = torch.zeros(1, len(objects), dtype=torch.int64)
    scores = torch.tensor(scores)[None, :, None]
    return average_precision(scores, torch.stack(boxes)[None], objects[None], classes)


def test_what_is_found_exactly_is_1():
    assert one_image([3.0, 2.0], [SQUARE, FAR], [SQUARE, FAR]) == 1


def test_a_box_that_overlaps_by_half_counts_at_the_lowest_threshold_alone():
    wide = torch.tensor([0.0, 0.0, 20.0, 10.0])
    assert one_image([3.0], [wide], [SQUARE]) == pytest.approx(1 / len(THRESHOLDS))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0, 2.0, 1.0], 1.0),
        ([3.0, 1.0, 2.0], (1 + 2 / 3) / 2),  # the second object after one false positive
        ([1.0, 2.0, 3.0], 1 / 2 * 2 / 3 * 2),  # interpolated: precision 1/2, but 2/3 later on
    ],
)
def test_a_false_positive_costs_what_is_ranked_below_it(scores, expected):
    assert one_image(scores, [SQUARE, FAR, SQUARE + 100], [SQUARE, FAR]) == pytest.approx(expected)


def test_duplicates_are_suppressed_and_otherwise_false():
    near = SQUARE + torch.tensor([0.0, 0.0, 0.0, 1.0])
    boxes = [SQUARE, near, FAR]
    assert one_image([3.0, 2.5, 2.0], boxes, [SQUARE, FAR]) == 1
    aside = SQUARE + torch.tensor([4.0, 0.0, 4.0, 0.0])  # overlaps by 60 / 140: it survives
    assert one_image([3.0, 2.5, 2.0], [SQUARE, aside, FAR], [SQUARE, FAR]) == pytest.approx(5 / 6)


def test_an_object_of_another_class_is_not_found_and_absent_classes_do_not_count():
    scores = torch.tensor([[[5.0, 1.0, 0.0]]])
    boxes, objects = SQUARE[None, None], SQUARE[None, None]
    right = average_precision(scores, boxes, objects, torch.tensor([[0]]))
    wrong = average_precision(scores[..., [2, 0, 1]], boxes, objects, torch.tensor([[0]]), nms=2.0)
    assert right == 1 and wrong == 1  # alone in its class, at whatever score
    one = average_precision(scores, boxes, objects, torch.tensor([[0]]), detections=1)
    other = average_precision(scores, boxes, objects, torch.tensor([[1]]), detections=1)
    assert one == 1 and other == 0


def test_nothing_to_find_is_0():
    none = torch.tensor([[1]])
    assert (
        average_precision(torch.zeros(1, 1, 1), SQUARE[None, None], SQUARE[None, None], none) == 0
    )


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inside = width * height
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inside / (sum(areas) - inside)


def by_loops(scores, boxes, objects, classes, detections, nms):
    """The same in plain Python, one detection, object and threshold at a time."""
    values = []
    for kind in range(scores.shape[2]):
        there = int((classes == kind).sum())
        if not there:
            continue
        for threshold in THRESHOLDS:
            found = []
            for image in range(len(scores)):
                ranked = sorted(
                    (
                        (float(s), a, c)
                        for a, row in enumerate(scores[image].tolist())
                        for c, s in enumerate(row)
                    ),
                    reverse=True,
                )[:detections]
                kept = []
                for score, anchor, c in ranked:
                    box = boxes[image, anchor].tolist()
                    if c == kind and all(iou(box, other) <= nms for _, other in kept):
                        kept.append((score, box))
                free = objects[image][classes[image] == kind].tolist()
                for score, box in kept:
                    fit = max(free, key=lambda g, box=box: iou(box, g), default=None)
                    hit = fit is not None and iou(box, fit) >= threshold
                    if hit:
                        free.remove(fit)
                    found.append((score, hit))
            hits = [hit for _, hit in sorted(found, reverse=True)]
            precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
            area = sum(max(precision[k:]) for k, hit in enumerate(hits) if hit) / there
            values.append(area)
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(6))
def test_against_loops(seed):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    low = 20 * rand(3, 4, 2)
    objects = torch.cat([low, low + 6 + 6 * rand(3, 4, 2)], 2)
    near = objects[:, torch.arange(12) % 4] + 1.5 * (rand(3, 12, 4) - 0.5)
    classes = torch.randint(0, 3, (3, 4), generator=generator)  # 2: nothing there
    scores = rand(3, 12, 2)
    expected = by_loops(scores, near, objects, classes, detections=20, nms=0.5)
    assert 0 < expected < 1
    found = average_precision(scores, near, objects, classes, detections=20)
    assert found == pytest.approx(expected, abs=1e-9)
