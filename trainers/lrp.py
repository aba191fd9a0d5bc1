"""LRP and its optimum oLRP: an error of detections, made of boxes that fit badly, false positives
and misses (Oksuz et al., "Localization Recall Precision (LRP): A New Performance Metric for Object
Detection", ECCV 2018, arXiv 1807.01696).

Take the detections of one class whose score is at least s. N_TP of them match an object with an IoU
of at least tau = 1/2, N_FP match none, and N_FN objects are left over. Then

LRP(s) = (sum_TP (1 - IoU) / (1 - tau) + N_FP + N_FN) / (N_TP + N_FP + N_FN),

a number in [0, 1], where 0 is perfect, and oLRP = min_s LRP(s). Where AP looks at all thresholds,
oLRP says how good a detector is at the one that suits it best, and what its errors are there.

Detections match objects as in COCO's AP at IoU 0.5: in each image and class the 100 highest scores
choose one after the other, each the free object that it fits best. The object of a detection thus
does not depend on s. Objects that are marked `iscrowd` are no objects here, and a detection that
matches nothing else but one of them is no detection.

Shape letters: D detections, O objects.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from paploss.files import read_json

_FIELDS = {
    "oLRP": "error",
    "oLRP_loc": "localization",
    "oLRP_fp": "false_positives",
    "oLRP_fn": "false_negatives",
}
METRICS = tuple(_FIELDS)

_TAU = 0.5
_MAX_DETECTIONS = 100


@dataclass(frozen=True)
class ClassLRP:
    """One class at its best threshold.

    If no threshold is better than keeping no detection at all, which has an error of 1, that is
    the best one: inf. Among equals it is the highest.

    Attributes:
        error: oLRP in [0, 1].
        localization: mean of 1 - IoU over the true positives, in [0, 1/2]; NaN without any.
        false_positives: 1 - precision, in [0, 1]; NaN where no detection is kept.
        false_negatives: 1 - recall, in [0, 1].
        threshold: detections with at least this score are kept.
    """

    error: float
    localization: float
    false_positives: float
    false_negatives: float
    threshold: float


@dataclass(frozen=True)
class OptimalLRP:
    """`ClassLRP` by category id, of the classes that have objects to find."""

    classes: Mapping[int, ClassLRP]

    def metrics(self) -> dict[str, float]:
        """oLRP, oLRP_loc, oLRP_fp and oLRP_fn: error and parts, each the mean over its classes.

        A class counts where the number is defined; a metric that no class defines is left out.
        """
        means = {}
        for name, field in _FIELDS.items():
            values = [getattr(one, field) for one in self.classes.values()]
            known = [value for value in values if not math.isnan(value)]
            if known:
                means[name] = fmean(known)
        return means


def optimal_lrp(annotations: Any, rows: Any, images: Sequence[int]) -> OptimalLRP:
    """oLRP of detections on `images`, class by class.

    Args:
        annotations: path of a COCO instances file, or its content.
        rows: [D, 7] detections: image id, x, y, width, height, score, category id.
        images: ids; detections and objects on other images are left out.
    """
    content = read_json(Path(annotations)) if isinstance(annotations, str | Path) else annotations
    known = set(images)
    objects = np.array(
        [
            (each["image_id"], *each["bbox"], each.get("iscrowd", 0), each["category_id"])
            for each in content["annotations"]
            if each["image_id"] in known
        ],
        dtype=float,
    ).reshape(-1, 7)
    rows = np.asarray(rows, dtype=float).reshape(-1, 7)
    rows, ious = _match(rows[np.isin(rows[:, 0], list(known))], objects)
    counted = ~np.isnan(ious)
    scores, labels, ious = rows[counted, 5], rows[counted, 6], ious[counted]
    found, counts = np.unique(objects[objects[:, 5] == 0, 6], return_counts=True)
    return OptimalLRP(
        {
            int(label): class_lrp(scores[labels == label], ious[labels == label], int(count))
            for label, count in zip(found, counts, strict=True)
        }
    )


def class_lrp(scores: Any, ious: Any, objects: int) -> ClassLRP:
    """The best threshold of one class. Detections of equal score are kept or dropped together.

    Args:
        scores: [D] finite.
        ious: [D] the IoU with the matched object, in [1/2, 1]; 0 for a false positive.
        objects: how many there are to find, at least 1.

    Raises:
        ValueError: nothing to find, where LRP is not defined.
    """
    if objects < 1:
        raise ValueError(f"{objects} objects; LRP is defined for a class with at least 1.")
    order = np.argsort(-scores, kind="stable")
    scores, ious = scores[order], ious[order]
    matched = np.concatenate([[0], np.cumsum(ious > 0)])
    misfit = np.concatenate([[0.0], np.cumsum(np.where(ious > 0, 1 - ious, 0))])
    # A threshold cannot cut between equal scores.
    cuts = np.flatnonzero(scores[1:] != scores[:-1]) + 1
    kept = np.concatenate([[0], cuts, [len(scores)]])
    matched, misfit = matched[kept], misfit[kept]
    missed = objects - matched
    errors = (misfit / (1 - _TAU) + (kept - matched) + missed) / (kept + missed)

    best = int(np.argmin(errors))
    n, tp = int(kept[best]), int(matched[best])
    return ClassLRP(
        error=float(errors[best]),
        localization=float(misfit[best] / tp) if tp else np.nan,
        false_positives=1 - tp / n if n else np.nan,
        false_negatives=1 - tp / objects,
        threshold=float(scores[n - 1]) if n else np.inf,
    )


def _match(rows: Any, objects: Any) -> tuple[Any, Any]:
    """COCO's matching at one IoU, for all images and classes at once.

    Args:
        rows: [D, 7] as in `optimal_lrp`.
        objects: [O, 7] alike, with 1 for a crowd and 0 otherwise in place of the score.

    Returns:
        The rows that take part, in another order, and the IoU of each with its object: 0 if it has
        none, NaN if that is a crowd.
    """
    # Images and classes, numbered from 0.
    _, group = np.unique(_pair(np.concatenate([rows, objects])), return_inverse=True)
    group, object_group = group[: len(rows)], group[len(rows) :]
    order = np.lexsort((-rows[:, 5], group))
    rows, group = rows[order], group[order]
    place = np.arange(len(rows)) - np.searchsorted(group, group)
    rows, group = rows[place < _MAX_DETECTIONS], group[place < _MAX_DETECTIONS]
    order = np.argsort(object_group, kind="stable")
    objects, object_group = objects[order], object_group[order]

    # Candidates: detection d and object o are of one image and class, and overlap enough.
    d, o = _joined(group, object_group)
    overlap = _iou(rows[d, 1:5], objects[o, 1:5], objects[o, 5] == 1)
    near = overlap >= _TAU
    d, o, overlap = d[near], o[near], overlap[near]
    crowd = objects[o, 5] == 1

    # What a detection likes best comes first: objects before crowds, and, as in COCO's loop, of
    # equal overlaps the last.
    ious = np.zeros(len(rows))
    taken: set[int] = set()
    wishes = np.lexsort((-o, -overlap, crowd, d))
    for i, j, value, is_crowd in zip(
        *(column[wishes].tolist() for column in (d, o, overlap, crowd)), strict=True
    ):
        if ious[i] == 0 and j not in taken:
            ious[i] = np.nan if is_crowd else value
            if not is_crowd:
                taken.add(j)
    return rows, ious


def _pair(rows: Any) -> Any:
    """[n] image and category of each row, as one number each."""
    return rows[:, 0] + 1j * rows[:, 6]


def _joined(left: Any, right: Any) -> tuple[Any, Any]:
    """Every pair of indices (i, j) with left[i] = right[j], both rising, in the order of i."""
    begin, end = (np.searchsorted(right, left, side) for side in ("left", "right"))
    count = end - begin
    i = np.repeat(np.arange(len(left)), count)
    # Counts on from `begin` in the block of each i.
    j = np.arange(len(i)) + np.repeat(begin - (np.cumsum(count) - count), count)
    return i, j


def _iou(boxes: Any, objects: Any, crowd: Any) -> Any:
    """[n] IoU of boxes [n, 4] as x, y, width, height; with a crowd, the share of the box inside."""
    low = np.maximum(boxes[:, :2], objects[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:])
    intersection = (high - low).clip(min=0).prod(1)
    area, object_area = boxes[:, 2:].prod(1), objects[:, 2:].prod(1)
    union = np.where(crowd, area, area + object_area - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
