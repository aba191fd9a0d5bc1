"""AP against pycocotools, and the way from a detector's boxes to it."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from search import history
from trainers import lrp
from trainers.datasets.coco import DataConfig
from trainers.mmdet.config import build_model
from trainers.mmdet.evaluation import METRICS, average_precision, score
from trainers.mmdet.training import build_dataset
from trainers.trial import TrialSpec

CATEGORIES = (7, 3, 90)


def by_pycocotools(truth: dict[str, Any], rows: Any, images: list[int]) -> dict[str, float]:
    """The six metrics by the reference implementation; -1 where there is nothing to find."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco, found = COCO(), COCO()
        coco.dataset = json.loads(json.dumps(truth))
        found.dataset = {**coco.dataset, "annotations": []}
        coco.createIndex()
        found.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows) if len(rows) else found, "bbox")
        evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats.tolist(), strict=False))


def random_truth(rng: Any, images: int = 12) -> dict[str, Any]:
    """Boxes of 8 to 250 pixels, some of them crowds, on some of the images."""
    annotations: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 6)):
            w, h = np.exp(rng.uniform(np.log(8), np.log(250), 2))
            x, y = rng.uniform(0, 300, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.choice(CATEGORIES)),
                    "bbox": [x, y, w, h],
                    "area": w * h * rng.uniform(0.5, 1),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    return {
        "images": [{"id": i, "width": 600, "height": 600} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in CATEGORIES],
    }


def random_rows(rng: Any, truth: dict[str, Any], noise: int = 150) -> Any:
    """[n, 7]: shaken ground truth, some of it twice or of another class, and boxes anywhere."""
    rows = []
    for annotation in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = np.array(annotation["bbox"])
            box += rng.normal(0, 0.1, 4) * box[[2, 3, 2, 3]]
            category = annotation["category_id"] if rng.random() < 0.9 else rng.choice(CATEGORIES)
            rows.append([annotation["image_id"], *box, rng.random(), category])
    for image in range(1, len(truth["images"]) + 1):
        # More than the 100 that COCO takes from an image, on one of them.
        for _ in range(noise if image == 1 else 5):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(8, 250, 2)]
            rows.append([image, *box, rng.random(), rng.choice(CATEGORIES)])
    return np.array(rows)


def assert_same(found: dict[str, float], expected: dict[str, float]) -> None:
    """A metric that COCO calls -1 is left out of ours."""
    assert found == pytest.approx(
        {name: value for name, value in expected.items() if value >= 0}, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_detections(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_truth(rng)
    rows = random_rows(rng, truth)
    images = list(range(1, 13))
    expected = by_pycocotools(truth, rows, images)
    assert len(expected) == 6
    assert 0.02 < expected["AP"] < 0.9
    assert_same(average_precision(truth, rows, images), expected)


@pytest.mark.parametrize("seed", range(4))
def test_equal_scores(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    truth = random_truth(rng)
    rows = random_rows(rng, truth)
    rows[:, 5] = rows[:, 5].round(1)
    images = list(range(1, 13))
    assert_same(average_precision(truth, rows, images), by_pycocotools(truth, rows, images))


@pytest.mark.parametrize("seed", range(4))
def test_some_of_the_images(seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    truth = random_truth(rng)
    images = [9, 2, 5, 7]
    rows = random_rows(rng, truth)
    rows = rows[np.isin(rows[:, 0], images)]
    expected = by_pycocotools(truth, rows, images)
    assert expected != by_pycocotools(truth, rows, list(range(1, 13)))
    assert_same(average_precision(truth, rows, images), expected)


def box(area: float, image: int = 1, iscrowd: int = 0) -> dict[str, Any]:
    return {
        "image_id": image, "category_id": 7, "bbox": [0.0, 0.0, area, 1.0], "area": area,
        "iscrowd": iscrowd,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("boxes", "metrics"),
    [
        ([], []),
        ([box(100.0, iscrowd=1)], []),
        ([box(100.0, image=2)], []),
        ([box(100.0)], ["AP", "AP50", "AP75", "APs"]),
        ([box(2000.0)], ["AP", "AP50", "AP75", "APm"]),
        ([box(10000.0)], ["AP", "AP50", "AP75", "APl"]),
        # Areas of exactly 32 x 32 and 96 x 96 belong to both sides.
        ([box(1024.0)], ["AP", "AP50", "AP75", "APs", "APm"]),
        ([box(9216.0)], ["AP", "AP50", "AP75", "APm", "APl"]),
    ],
)
@pytest.mark.parametrize("found", [np.zeros((0, 7)), np.array([[1, 500, 500, 20, 20, 0.9, 3]])])
def test_a_metric_is_there_if_there_is_something_to_find(
    boxes: list[dict[str, Any]], metrics: list[str], found: Any
) -> None:
    truth = {
        "images": [{"id": i, "width": 600, "height": 600} for i in (1, 2)],
        "annotations": [{"id": i, **each} for i, each in enumerate(boxes, 1)],
        "categories": [{"id": number, "name": str(number)} for number in CATEGORIES],
    }
    ours = average_precision(truth, found, [1])
    assert ours == dict.fromkeys(metrics, 0.0)
    assert_same(ours, by_pycocotools(truth, found, [1]))


class Oracle(torch.nn.Module):
    """Finds every object, in the place that `val_step` of a detector gives: original pixels."""

    def __init__(self, data: DataConfig, split: str) -> None:
        super().__init__()
        self.coco = json.loads(getattr(data, split).annotations.read_text())
        self.names = {each["id"]: each["name"] for each in self.coco["categories"]}
        self.classes = data.classes

    def val_step(self, data: Any) -> list[Any]:
        for sample in data["data_samples"]:
            mine = [a for a in self.coco["annotations"] if a["image_id"] == sample.img_id]
            boxes = torch.tensor([a["bbox"] for a in mine], dtype=torch.float32).view(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = [self.classes.index(self.names[a["category_id"]]) for a in mine]
            sample.pred_instances = InstanceData(
                bboxes=boxes, labels=torch.tensor(labels), scores=torch.ones(len(mine))
            )
        return list(data["data_samples"])


@pytest.mark.usefixtures("mmdet_modules")
def test_a_perfect_detector_scores_one(
    make_spec: Callable[..., TrialSpec], shapes: DataConfig, tmp_path: Path
) -> None:
    dataset = build_dataset(make_spec(), "val", tmp_path)
    scores = score(Oracle(shapes, "val"), dataset, 3)
    assert scores["AP"] == pytest.approx(1.0)
    # Boxes come in float32.
    assert [scores[name] for name in lrp.METRICS] == pytest.approx([0, 0, 0, 0], abs=1e-5)


@pytest.mark.usefixtures("mmdet_modules")
def test_category_ids_need_not_count_from_one(
    make_spec: Callable[..., TrialSpec], copy_data: Callable[[Path], DataConfig], tmp_path: Path
) -> None:
    data = copy_data(tmp_path / "data")
    coco = json.loads(data.val.annotations.read_text())
    numbers = {each["id"]: new for each, new in zip(coco["categories"], (90, 4, 17), strict=True)}
    for annotation in coco["annotations"]:
        annotation["category_id"] = numbers[annotation["category_id"]]
    for category in coco["categories"]:
        category["id"] = numbers[category["id"]]
    data.val.annotations.write_text(json.dumps(coco))
    dataset = build_dataset(make_spec(data=data), "val", tmp_path)
    scores = score(Oracle(data, "val"), dataset, 3)
    assert (scores["AP"], scores["oLRP"]) == pytest.approx((1, 0), abs=1e-5)


def test_score_is_ap_and_olrp_of_what_the_detector_finds(
    make_spec: Callable[..., TrialSpec], tmp_path: Path
) -> None:
    """On images that are resized, so that boxes have to find their way back."""
    spec = make_spec(schedule={"image_size": (96, 96)})
    torch.manual_seed(0)
    model = build_model(spec.detector, spec.criterion_settings, len(spec.data.classes)).eval()
    dataset = build_dataset(spec, "val", tmp_path)

    found = []
    for index in range(len(dataset)):
        with torch.no_grad():
            (sample,) = model.val_step(pseudo_collate([dataset[index]]))
        for (x1, y1, x2, y2), label, value in zip(
            sample.pred_instances.bboxes.tolist(),
            sample.pred_instances.labels.tolist(),
            sample.pred_instances.scores.tolist(),
            strict=True,
        ):
            found.append([sample.img_id, x1, y1, x2 - x1, y2 - y1, value, label + 1])
    assert len(found) > 100
    assert np.max(np.array(found)[:, 1:5]) <= 64, "in pixels of the image as it is on the disk"
    truth = json.loads(spec.data.val.annotations.read_text())
    images = [each["id"] for each in truth["images"]]
    expected = by_pycocotools(truth, np.array(found), images)
    errors = lrp.optimal_lrp(truth, np.array(found), images).metrics()
    assert {"oLRP", "oLRP_fn"} <= set(errors)

    calls: list[None] = []
    ours = score(model, dataset, batch_size=1, progress=lambda: calls.append(None))
    assert_same(ours, expected | errors)
    assert len(calls) == 8


def test_histories_have_a_column_for_every_metric() -> None:
    assert history.METRICS == METRICS + lrp.METRICS
