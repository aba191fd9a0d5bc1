"""The way from a detector's boxes to its scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from search import history
from trainers import lrp
from trainers.coco_eval import METRICS, REFERENCE, average_precision, load_detections
from trainers.datasets.coco import DataConfig
from trainers.fidelity import Fidelity
from trainers.mmdet.evaluation import score
from trainers.mmdet.models import build_model
from trainers.mmdet.training import build_dataset
from trainers.trial import TrialSpec


class Oracle(torch.nn.Module):
    """Finds every object, in the place that `val_step` of a detector gives: original pixels."""

    def __init__(self, data: DataConfig, split: str) -> None:
        super().__init__()
        self.coco = json.loads(getattr(data, split).annotations.read_text())
        self.names = {each["id"]: each["name"] for each in self.coco["categories"]}
        self.classes = data.classes

    def val_step(self, data: Any) -> list[Any]:
        for sample in data["data_samples"]:
            mine = [
                each for each in self.coco["annotations"]
                if each["image_id"] == sample.img_id
                and self.names[each["category_id"]] in self.classes
            ]  # fmt: skip
            boxes = torch.tensor([a["bbox"] for a in mine], dtype=torch.float32).view(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = [self.classes.index(self.names[a["category_id"]]) for a in mine]
            sample.pred_instances = InstanceData(
                bboxes=boxes,
                labels=torch.tensor(labels, dtype=torch.long),
                scores=torch.ones(len(mine)),
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
def test_what_is_left_out_is_not_missed(
    make_spec: Callable[..., TrialSpec], shapes: DataConfig, tmp_path: Path
) -> None:
    """Of a cheaper trial: neither classes nor images that it has not."""
    fidelity = Fidelity(classes=1, val_images=0.5)
    spec = make_spec(fidelity=fidelity).reduced()
    (kept,) = spec.data.classes
    for most, images in ((None, 4), (2, 2)):
        dataset = build_dataset(spec, "val", tmp_path, most)
        scores = score(Oracle(spec.data, "val"), dataset, 3, keep=tmp_path / "kept.npz")
        assert (scores["AP"], scores["oLRP"]) == pytest.approx((1, 0), abs=1e-5)
        rows, scored = load_detections(tmp_path / "kept.npz")
        assert len(scored) == images
        assert set(rows[:, 6]) == {shapes.classes.index(kept) + 1}


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
    expected = average_precision(truth, np.array(found), images, REFERENCE)
    errors = lrp.optimal_lrp(truth, np.array(found), images).metrics()
    assert {"oLRP", "oLRP_fn"} <= set(errors)

    calls: list[None] = []
    kept = tmp_path / "kept.npz"
    ours = score(model, dataset, batch_size=1, progress=lambda: calls.append(None), keep=kept)
    assert ours == pytest.approx(expected | errors, abs=1e-12)
    assert len(calls) == 8
    rows, scored = load_detections(kept)
    assert scored == images
    np.testing.assert_allclose(rows, found, rtol=0, atol=1e-5)
    assert average_precision(truth, rows, scored, REFERENCE) == expected


def test_histories_have_a_column_for_every_metric() -> None:
    assert history.METRICS == METRICS + lrp.METRICS
