"""COCO average precision, and optimal LRP, of a detector on one split.

Several workers score together: each detects on its share of the images, the first one measures.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from paploss.files import read_json
from trainers.coco_eval import average_precision, save_detections
from trainers.lrp import optimal_lrp

Detections = tuple[int, NDArray[np.float64]]
"""The id of an image, and [n, 7] rows as `coco_eval.average_precision` takes them."""


def score(
    model: Any,
    dataset: Any,
    batch_size: int,
    workers: int = 0,
    progress: Callable[[], None] | None = None,
    keep: Path | None = None,
) -> dict[str, float] | None:
    """COCO's box metrics and those of oLRP of `model` on `dataset`, a `TrialDataset` in test mode.

    They are those of the data set's images and classes; what else its file has does not count. All
    are in [0, 1]; AP is better when higher, oLRP and its parts when lower.

    Images that cannot be read are left out. A metric that is not defined is left out too: without
    ground truth (no small boxes, say) any, without a detection that is worth keeping the parts
    oLRP_loc and oLRP_fp.

    In a distributed training all workers call this; what is detected does not depend on how many
    they are, to the last bit.

    Args:
        batch_size: images that one device takes at a time.
        workers: processes that load images, of each worker.
        keep: a file to write the detections to (`coco_eval.load_detections` reads it).

    Returns:
        Metrics by name; None in workers other than the first.
    """
    batches = share_of_batches(len(dataset), batch_size, *_rank_and_size())
    found = gather_batches(detect(model, dataset, batches, workers, progress))
    if found is None:
        return None
    images = [image for image, _ in found]
    rows = np.concatenate([rows for _, rows in found]) if found else _NO_ROWS
    if keep is not None:
        save_detections(keep, rows, images)
    truth = of_categories(read_json(Path(dataset.ann_file)), dataset.cat_ids)
    errors = optimal_lrp(truth, rows, images).metrics()
    return {**average_precision(truth, rows, images), **errors}


def of_categories(truth: dict[str, Any], ids: Collection[int]) -> dict[str, Any]:
    """COCO instances without the categories that are not in `ids`, and their objects."""
    kept = set(ids)
    return {
        **truth,
        "categories": [each for each in truth["categories"] if each["id"] in kept],
        "annotations": [each for each in truth["annotations"] if each["category_id"] in kept],
    }


def share_of_batches(images: int, batch_size: int, rank: int, size: int) -> list[list[int]]:
    """What the worker `rank` of `size` scores of images 0, 1, ...: every `size`-th batch of them.

    Batches, not images: where those of a batch are padded to one size, what is detected depends on
    the neighbours, and they are the same for any number of workers.
    """
    batches = [[*range(k, min(k + batch_size, images))] for k in range(0, images, batch_size)]
    return batches[rank::size]


def detect(
    model: Any,
    dataset: Any,
    batches: list[list[int]],
    workers: int = 0,
    progress: Callable[[], None] | None = None,
) -> list[list[Detections]]:
    """What `model` finds on the images that can be read, batch by batch."""
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=pseudo_collate
    )
    model.eval()
    found = []
    categories = np.asarray(dataset.cat_ids)
    with torch.no_grad():
        for data in loader:
            samples = [sample for sample in model.val_step(data) if not sample.unreadable]
            found.append([(sample.img_id, _rows(sample, categories)) for sample in samples])
            if progress:
                progress()
    return found


def gather_batches(own: list[list[Detections]]) -> list[Detections] | None:
    """The detections of all workers, in the order of the data set; None but in the first worker."""
    rank, size = _rank_and_size()
    shares: list[Any] = [own]
    if size > 1:
        shares = [None] * size
        dist.gather_object(own, shares if rank == 0 else None)
        if rank > 0:
            return None
    total = sum(len(share) for share in shares)
    batches = [shares[k % size][k // size] for k in range(total)]
    return [image for batch in batches for image in batch]


def _rank_and_size() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


_NO_ROWS = np.zeros((0, 7))


def _rows(sample: Any, categories: Any) -> Any:
    found = sample.pred_instances
    boxes = found.bboxes.float().cpu().numpy().astype(float)
    boxes[:, 2:] -= boxes[:, :2]
    ids = np.full((len(boxes), 1), sample.img_id)
    scores = found.scores.float().cpu().numpy().astype(float)[:, None]
    return np.hstack([ids, boxes, scores, categories[found.labels.cpu().numpy()][:, None]])
