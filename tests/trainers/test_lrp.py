"""oLRP by hand, against a brute-force oracle in exact fractions, and on pycocotools' matches."""

import contextlib
import io
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainers.lrp import METRICS, ClassLRP, class_lrp, optimal_lrp

EVERY_SCENE = settings(max_examples=300, derandomize=True, deadline=None)
CATEGORIES = (3, 7)
Parts = tuple[Fraction, Fraction | None, Fraction | None, Fraction]


def scene(*objects: tuple[Any, ...]) -> dict[str, Any]:
    """COCO's format of objects (image, category, box, iscrowd)."""
    annotations = [
        {"id": n, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": crowd,
         "area": box[2] * box[3]}
        for n, (image, category, box, crowd) in enumerate(objects, 1)
    ]  # fmt: skip
    return {
        "images": [{"id": n, "width": 600, "height": 600} for n in (1, 2, 3)],
        "annotations": annotations,
        "categories": [{"id": n, "name": str(n)} for n in CATEGORIES],
    }


def rows(*detections: tuple[Any, ...]) -> Any:
    """[n, 7] of detections (image, category, box, score)."""
    table = [(image, *box, score, category) for image, category, box, score in detections]
    return np.array(table, dtype=float).reshape(-1, 7)


def strip(number: int, width: int = 100) -> tuple[int, ...]:
    """Boxes far apart; one of half the width has an IoU of 1/2 with the whole one."""
    return (0, 10 * number, width, 1)


# --- the oracle ---------------------------------------------------------------------------------


def overlap(box: Any, other: Any, crowd: int) -> Fraction:
    """IoU of boxes with integer sides; with a crowd, the share of `box` that lies in it."""
    (x, y, w, h), (X, Y, W, H) = box, other
    wide = max(0, min(x + w, X + W) - max(x, X))
    high = max(0, min(y + h, Y + H) - max(y, Y))
    return Fraction(wide * high, w * h if crowd else w * h + W * H - wide * high)


def greedy(objects: list[Any], detections: list[Any]) -> list[tuple[float, Fraction | None]]:
    """Score and IoU (0: none) of one image's detections of one class; None: matched to a crowd."""
    free, result = [n for n, one in enumerate(objects) if not one[3]], []
    for _, _, box, score in sorted(detections, key=lambda one: -one[3]):
        fits = [(overlap(box, objects[n][2], 0), n) for n in free]
        best, n = max(fits, default=(Fraction(0), -1))
        if best >= Fraction(1, 2):
            free.remove(n)
            result.append((score, best))
        elif any(one[3] and overlap(box, one[2], 1) >= Fraction(1, 2) for one in objects):
            result.append((score, None))
        else:
            result.append((score, Fraction(0)))
    return result


def brute_force(objects: list[Any], detections: list[Any]) -> dict[int, dict[float, Parts]]:
    """By class with objects: LRP, localisation, FP and FN at every threshold and at infinity."""
    found = {}
    for category in {one[1] for one in objects if not one[3]}:
        total = sum(one[1] == category and not one[3] for one in objects)
        matches = []
        for image in (1, 2, 3):
            here = [
                [one for one in group if one[:2] == (image, category)]
                for group in (objects, detections)
            ]
            matches += [one for one in greedy(*here) if one[1] is not None]
        found[category] = {
            s: parts([iou for score, iou in matches if score >= s], total)
            for s in [math.inf, *(score for score, _ in matches)]
        }
    return found


def parts(ious: list[Fraction], total: int) -> Parts:
    hits = [iou for iou in ious if iou]
    tp, fp, fn = len(hits), len(ious) - len(hits), total - len(hits)
    misfit = sum((1 - iou for iou in hits), Fraction(0))
    return (
        (2 * misfit + fp + fn) / (tp + fp + fn),
        misfit / tp if tp else None,
        Fraction(fp, tp + fp) if ious else None,
        Fraction(fn, total),
    )


def assert_best(found: dict[int, ClassLRP], expected: dict[int, dict[float, Parts]]) -> None:
    """The lowest error of all thresholds, with the parts of the one that was chosen.

    Thresholds whose errors are equal as fractions may differ in their last digit as floats.
    """
    assert found.keys() == expected.keys()
    for category, one in found.items():
        table = expected[category]
        lowest = min(error for error, *_ in table.values())
        error, *others = table[one.threshold]
        assert error == lowest
        assert one.error == pytest.approx(float(error), abs=1e-12)
        ours = (one.localization, one.false_positives, one.false_negatives)
        wanted = [math.nan if part is None else float(part) for part in others]
        assert ours == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Any], list[Any]]:
    """Boxes on a grid so small that they overlap, and scores that tie."""
    side = st.integers(0, 4)
    box = st.tuples(side, side, st.integers(1, 5), st.integers(1, 5))
    place = (st.integers(1, 2), st.sampled_from(CATEGORIES), box)
    crowd = st.sampled_from([0, 0, 0, 1])
    score = st.integers(1, 6).map(lambda n: n / 8)
    objects = draw(st.lists(st.tuples(*place, crowd), max_size=6))
    near = [st.tuples(*map(st.just, one[:3]), score) for one in objects]
    anywhere = st.tuples(*place, score)
    detections = draw(st.lists(st.one_of(anywhere, *near), max_size=9))
    return objects, detections


@EVERY_SCENE
@given(scenes())
def test_against_brute_force(pair: tuple[list[Any], list[Any]]) -> None:
    objects, detections = pair
    found = optimal_lrp(scene(*objects), rows(*detections), [1, 2, 3]).classes
    assert_best(dict(found), brute_force(objects, detections))


# --- against COCO's own matching ----------------------------------------------------------------


def random_scene(seed: int) -> tuple[dict[str, Any], Any]:
    """Crowded images with more than 100 detections of a class, ties in overlap and in score."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in (1, 2, 3):
        for _ in range(25):
            box = (*rng.integers(0, 200, 2).tolist(), *rng.integers(20, 120, 2).tolist())
            category = int(rng.choice(CATEGORIES))
            objects.append((image, category, box, int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 14)):
                moved = (np.array(box) + rng.integers(-12, 13, 4)).clip(0).tolist()
                detections.append((image, category, moved, rng.integers(1, 60) / 64))
    return scene(*objects), rows(*detections)


def by_pycocotools(truth: dict[str, Any], found: Any) -> dict[int, tuple[list[Any], int]]:
    """(score, IoU) of the detections that are not ignored, and the number of objects, by class."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.evaluate()
    classes: dict[int, tuple[list[Any], int]] = {category: ([], 0) for category in CATEGORIES}
    for one in filter(None, evaluation.evalImgs):
        matches, total = classes[one["category_id"]]
        ious = evaluation.ious[one["image_id"], one["category_id"]]
        columns = [g["id"] for g in evaluation._gts[one["image_id"], one["category_id"]]]
        for n, (score, match) in enumerate(zip(one["dtScores"], one["dtMatches"][0], strict=True)):
            if not one["dtIgnore"][0][n]:
                matches.append((score, ious[n][columns.index(match)] if match else 0.0))
        classes[one["category_id"]] = matches, total + int((one["gtIgnore"] == 0).sum())
    return classes


@pytest.mark.parametrize("seed", range(4))
def test_detections_match_as_in_coco(seed: int) -> None:
    truth, found = random_scene(seed)
    ours = optimal_lrp(truth, found, [1, 2, 3]).classes
    reference = by_pycocotools(truth, found)
    counted = sum(len(matches) for matches, _ in reference.values())
    assert 3 * 100 < counted < len(found) - 20  # some are beyond 100, some on crowds
    for category, (matches, total) in reference.items():
        expected = class_lrp(*np.array(matches).T, total)
        assert ours[category] == expected
        assert 0.1 < expected.error < 0.9


# --- by hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ious", "error", "parts"),
    [
        # Ten detections, those at ranks 1, 3, 6 and 10 match; five objects. 2 (1 - IoU) adds up to
        # .1 .5 1.2 2.2 over them. (misfit + FP + FN) / (TP + FP + FN) with the lowest kept at
        # rank 1: (.1 + 0 + 4) / 5 = .82          rank 3: (.5 + 1 + 3) / 6 = .75
        # rank 6: (1.2 + 3 + 2) / 8 = .775        rank 10: (2.2 + 6 + 1) / 11 = .836
        ((95, 80, 65, 50), 4.5 / 6, (0.25 / 2, 1 / 3, 3 / 5)),
        # .4 1.1 2.1 2.2: 4.4 / 5 = .88, 5.1 / 6 = .85, 7.1 / 8 = .8875, 9.2 / 11 = .836
        ((80, 65, 50, 95), 9.2 / 11, (1.1 / 4, 6 / 10, 1 / 5)),
        # 1 1.7 2.1 2.2: 5 / 5 = 1, 5.7 / 6 = .95, 7.1 / 8 = .8875, 9.2 / 11 = .836
        ((50, 65, 80, 95), 9.2 / 11, (1.1 / 4, 6 / 10, 1 / 5)),
    ],
)
def test_the_example_of_alrp(ious: tuple[int, ...], error: float, parts: tuple[float, ...]) -> None:
    """Figure 1 of arXiv 2009.13592. oLRP tells the first from the others, which are alike at their
    best threshold: there, all ten are kept."""
    truth = scene(*((1, 7, strip(n), 0) for n in range(5)))
    boxes = [strip(n, 100) for n in range(10, 20)]
    for n, (rank, iou) in enumerate(zip((1, 3, 6, 10), ious, strict=True)):
        boxes[rank - 1] = strip(n, iou)
    found = rows(*((1, 7, box, 1 - rank / 16) for rank, box in enumerate(boxes)))
    metrics = optimal_lrp(truth, found, [1]).metrics()
    assert metrics == pytest.approx(dict(zip(METRICS, (error, *parts), strict=True)))


TWO = [(1, 7, strip(0), 0), (2, 7, strip(0), 0)]


def test_perfect_detections() -> None:
    found = rows(
        (1, 7, strip(0), 0.9),
        (2, 7, strip(0), 0.25),
        (2, 7, strip(9), 0.125),  # is not kept
        (3, 7, strip(9), 0.9),  # on an image that is not asked for
    )
    result = optimal_lrp(scene(*TWO), found, [1, 2])
    assert result.metrics() == {"oLRP": 0, "oLRP_loc": 0, "oLRP_fp": 0, "oLRP_fn": 0}
    assert result.classes == {7: ClassLRP(0, 0, 0, 0, threshold=0.25)}


@pytest.mark.parametrize(
    "found",
    [
        rows(),
        rows((1, 3, strip(0), 0.9)),  # another class
        rows((1, 7, strip(5), 0.9)),  # another place
        rows((3, 7, strip(0), 0.9)),  # another image
        rows((1, 7, (0, 0, 0, 0), 0.9)),  # no area
    ],
)
def test_nothing_found_leaves_two_parts_undefined(found: Any) -> None:
    result = optimal_lrp(scene(*TWO), found, [1, 2])
    assert result.metrics() == {"oLRP": 1, "oLRP_fn": 1}
    nan = pytest.approx(math.nan, nan_ok=True)
    assert result.classes == {7: ClassLRP(1, nan, nan, 1, threshold=math.inf)}


def test_a_class_counts_in_the_means_where_it_is_defined() -> None:
    truth = scene((1, 3, strip(0), 0), (1, 3, strip(1), 0), (1, 7, strip(0), 0))
    found = rows((1, 3, strip(0, 80), 0.9))
    # Class 3 keeps its one detection: (2 x .2 + 0 + 1) / 2 = .7. Class 7 has none: 1.
    assert optimal_lrp(truth, found, [1]).metrics() == pytest.approx(
        {"oLRP": (0.7 + 1) / 2, "oLRP_loc": 0.2, "oLRP_fp": 0, "oLRP_fn": (0.5 + 1) / 2}
    )


@pytest.mark.parametrize("truth", [scene(), scene((2, 7, strip(0), 0)), scene((1, 7, strip(0), 1))])
def test_a_class_without_objects_is_left_out(truth: dict[str, Any]) -> None:
    """None at all, none on the images that count, or crowds alone."""
    result = optimal_lrp(truth, rows((1, 7, strip(0), 0.9)), [1])
    assert result.classes == {}
    assert result.metrics() == {}


def test_a_detection_on_a_crowd_is_none() -> None:
    truth = scene((1, 7, strip(0), 0), (1, 7, strip(1), 1))
    on_crowd = [(1, 7, strip(1, width), 0.9) for width in (10, 30, 100)]
    found = rows(*on_crowd, (1, 7, strip(0), 0.5))
    assert optimal_lrp(truth, found, [1]).classes == {7: ClassLRP(0, 0, 0, 0, 0.5)}


def test_an_object_comes_before_the_crowd_around_it() -> None:
    truth = scene((1, 7, (0, 0, 100, 100), 1), (1, 7, (0, 0, 10, 10), 0))
    found = rows((1, 7, (0, 0, 8, 10), 0.9))  # all of it in the crowd, an IoU of .8 with the object
    (only,) = optimal_lrp(truth, found, [1]).classes.values()
    assert (only.error, only.localization) == pytest.approx((2 * 0.2, 0.2))


def test_of_equal_overlaps_the_last_object_is_taken() -> None:
    """As in COCO, though the other way round the second detection would have matched too."""
    truth = scene((1, 7, (0, 0, 100, 1), 0), (1, 7, (20, 0, 100, 1), 0))
    found = rows((1, 7, (10, 0, 100, 1), 0.9), (1, 7, (40, 0, 100, 1), 0.8))
    (matches, _) = by_pycocotools(truth, found)[7]
    assert matches == [(0.9, 90 / 110), (0.8, 0.0)]
    (only,) = optimal_lrp(truth, found, [1]).classes.values()
    # The first alone: (2 x 20 / 110 + 0 + 1) / 2 = .682; both: (2 x 20 / 110 + 1 + 1) / 3 = .788.
    assert only.error == pytest.approx((40 / 110 + 1) / 2)


def test_equal_scores_enter_together() -> None:
    right, wrong = (1, 7, strip(0), 0.5), (1, 7, strip(5), 0.5)
    for pair in ((right, wrong), (wrong, right)):
        (only,) = optimal_lrp(scene(TWO[0]), rows(*pair), [1]).classes.values()
        assert (only.error, only.false_positives) == (0.5, 0.5)  # (0 + 1 + 0) / 2


def test_an_iou_of_one_half_is_a_match() -> None:
    found = rows((1, 7, strip(0, 50), 0.9), (2, 7, strip(0), 0.8))
    (only,) = optimal_lrp(scene(*TWO), found, [1, 2]).classes.values()
    # (2 x .5 + 0 + 0) / 2; were it a false positive, (0 + 1 + 1) / 3
    assert (only.error, only.localization, only.false_negatives) == (0.5, 0.25, 0)


@pytest.mark.parametrize(("before", "error"), [(99, 99 / 100), (100, 1.0)])
def test_the_100_highest_of_an_image_and_class_take_part(before: int, error: float) -> None:
    wrong = [(1, 7, strip(5), 0.9)] * before
    elsewhere = [(1, 3, strip(5), 0.9), (2, 7, strip(5), 0.1)] * 100
    found = rows(*elsewhere, (1, 7, strip(0), 0.5), *wrong)
    (only,) = optimal_lrp(scene(TWO[0]), found, [1, 2]).classes.values()
    assert only.error == pytest.approx(error)


def test_a_file_is_as_good_as_its_content(tmp_path: Path) -> None:
    truth, found = random_scene(9)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    expected = optimal_lrp(truth, found, [1, 3])
    for path in (tmp_path / "truth.json", str(tmp_path / "truth.json")):
        assert optimal_lrp(path, found, [1, 3]) == expected
    assert expected != optimal_lrp(truth, found, [1, 2, 3])


def test_a_class_without_objects_has_no_lrp() -> None:
    with pytest.raises(ValueError, match="0 objects"):
        class_lrp(np.array([0.5]), np.array([0.0]), 0)
