"""COCO average precision, and optimal LRP, of a detector on one split."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from trainers.lrp import optimal_lrp

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def score(
    model: Any,
    dataset: Any,
    batch_size: int,
    workers: int = 0,
    progress: Callable[[], None] | None = None,
) -> dict[str, float]:
    """COCO's box metrics and those of oLRP of `model` on `dataset`, a `TrialDataset` in test mode.

    All are in [0, 1]; AP is better when higher, oLRP and its parts when lower.

    Images that cannot be read are left out. A metric that is not defined is left out too: without
    ground truth (no small boxes, say) any, without a detection that is worth keeping the parts
    oLRP_loc and oLRP_fp.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size, num_workers=workers, collate_fn=pseudo_collate
    )
    model.eval()
    rows, images = [], []
    categories = np.asarray(dataset.cat_ids)
    with torch.no_grad():
        for data in loader:
            for sample in model.val_step(data):
                if sample.unreadable:
                    continue
                images.append(sample.img_id)
                rows.append(_rows(sample, categories))
            if progress:
                progress()
    found = np.concatenate(rows) if rows else _NO_ROWS
    lrp = optimal_lrp(dataset.ann_file, found, images)
    return {**average_precision(dataset.ann_file, found, images), **lrp.metrics()}


_NO_ROWS = np.zeros((0, 7))


def average_precision(annotations: Any, rows: Any, images: list[int]) -> dict[str, float]:
    """COCO's box metrics of detections on `images`.

    Args:
        annotations: path of a COCO instances file, or its content.
        rows: [n, 7] detections: image id, x, y, width, height, score, category id.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        if len(rows) == 0:
            return dict.fromkeys(_with_truth(truth, images), 0.0)
        evaluation = COCOeval_faster(
            truth, truth.loadRes(np.asarray(rows)), "bbox", print_function=str
        )
        evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = zip(METRICS, evaluation.stats[: len(METRICS)], strict=True)
    # COCO says -1 where there is nothing to find.
    return {name: float(value) for name, value in values if value >= 0}


def _with_truth(truth: Any, images: list[int]) -> list[str]:
    """The metrics that have ground truth to be measured on."""
    known = set(images)
    areas = [a["area"] for a in truth.anns.values() if a["image_id"] in known and not a["iscrowd"]]
    some = {
        # COCO counts the areas on a border on both sides of it.
        "APs": any(area <= 32**2 for area in areas),
        "APm": any(32**2 <= area <= 96**2 for area in areas),
        "APl": any(area >= 96**2 for area in areas),
    }
    return [name for name in METRICS if some.get(name, bool(areas))]


def _rows(sample: Any, categories: Any) -> Any:
    found = sample.pred_instances
    boxes = found.bboxes.float().cpu().numpy().astype(float)
    boxes[:, 2:] -= boxes[:, :2]
    ids = np.full((len(boxes), 1), sample.img_id)
    scores = found.scores.float().cpu().numpy().astype(float)[:, None]
    return np.hstack([ids, boxes, scores, categories[found.labels.cpu().numpy()][:, None]])
