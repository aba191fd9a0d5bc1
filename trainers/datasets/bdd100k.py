"""BDD100K's detection labels as COCO instances (Yu et al., "BDD100K: A Diverse Driving Dataset for
Heterogeneous Multitask Learning", CVPR 2020, arXiv 1805.04687); the images stay where they are.

Both releases are read: det_20 (det_train.json, det_val.json) and the one of 2018
(bdd100k_labels_images_train.json, ..._val.json), which names three classes otherwise and has lanes
and drivable areas among its labels. All images have 1280 x 720 pixels.

The conventions are those of the data set's own tools, except for one: a box is x2 - x1 wide here,
where those add a pixel. `other person`, `other vehicle` and `trailer` are neither to be found nor
false when found, and crowds neither; both get `iscrowd: 1`, and the first `ignore: 1`, too.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from paploss.errors import BadData
from paploss.paths import stays_inside
from trainers.datasets.coco import (
    DATASET_FILE,
    DataConfig,
    SplitConfig,
    already_made,
    split_off,
    write_dataset_yaml,
    writing_to,
)
from trainers.datasets.instance_faults import first_repeated
from trainers.datasets.instances import UNDECODABLE, read_bytes, write_coco

WIDTH, HEIGHT = 1280, 720
CLASSES = (
    *("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    *("traffic light", "traffic sign"),
)
# Other names of a class: those of 2018, and two that det_20's tools know.
_SAME = {
    "person": "pedestrian", "bike": "bicycle", "motor": "motorcycle", "caravan": "car",
    "van": "car",
}  # fmt: skip
# What is like a class, and is ignored.
_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}


class _Box(msgspec.Struct, gc=False):
    x1: float
    y1: float
    x2: float
    y2: float


class _Attributes(msgspec.Struct, gc=False):
    crowd: bool | None = None


class _Label(msgspec.Struct, gc=False):
    category: str
    box2d: _Box | None = None
    attributes: _Attributes | None = None


class _Frame(msgspec.Struct, gc=False):
    name: str
    labels: list[_Label] | None = None


def convert_bdd100k(
    train_labels: Path,
    val_labels: Path,
    images: Path,
    out: Path,
    *,
    val_images: int = 5000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `out`/{train,val,test}.json and `out`/dataset.yaml.

    The labels of test have never been published, so the official val split becomes test, and the
    official train split is divided into the search's train and val.

    Args:
        train_labels, val_labels: det_train.json and det_val.json, say.
        images: the folder with the folders train and val (images/100k).
        val_images: images of val, drawn by `seed` from the official train split.

    Returns:
        dataset (path of dataset.yaml), classes, splits ({name: {images, boxes}}), degenerate
        (boxes without area, dropped), clipped, ignored, other (labels without a box, such as
        lanes), notes (lines for the user).

    Raises:
        BadData: a file is not BDD100K's detection labels, the folders of images are missing, there
            are too few images, or `out` holds another data set.
    """
    out, images = Path(out), Path(images)
    for folder in (images / "train", images / "val"):
        if not folder.is_dir():
            raise BadData(
                f"there is no folder {folder}. Give the folder that holds BDD100K's train and val "
                "images in folders of these names: images/100k."
            )
    source: dict[str, str | int] = {
        "made_by": "bdd100k",
        "train_labels": str(Path(train_labels).resolve()),
        "val_labels": str(Path(val_labels).resolve()),
        "val_images": val_images,
        "seed": seed,
    }
    already_made(out, source)
    frames, test = _read(Path(train_labels)), _read(Path(val_labels))
    if not 1 <= val_images < len(frames):
        raise BadData(
            f"val_images: got {val_images}, but {train_labels} has {len(frames)} frames; expected "
            "at least 1 for val and at least 1 left for train. Ask for another number."
        )
    val, train = split_off(frames, val_images, seed)
    counts, splits, config = Counter[str](), {}, {}
    with writing_to(out):
        for name, part, path in (
            ("train", train, train_labels),
            ("val", val, train_labels),
            ("test", test, val_labels),
        ):
            coco = _to_coco(part, Path(path), counts)
            write_coco(out / f"{name}.json", coco)
            splits[name] = {"images": len(coco["images"]), "boxes": len(coco["annotations"])}
            folder = images / ("val" if name == "test" else "train")
            config[name] = SplitConfig(annotations=out / f"{name}.json", images=folder)
        data = DataConfig(name="bdd100k", classes=[*CLASSES], source=source, **config)
        write_dataset_yaml(out / DATASET_FILE, data)
    return {
        "dataset": str(out / DATASET_FILE),
        "classes": [*CLASSES],
        "splits": splits,
        **{what: counts[what] for what in ("degenerate", "clipped", "ignored", "other")},
        "notes": [
            f"train and val: the {len(frames)} images of the official train split, of which "
            f"{val_images} were drawn for val (seed {seed}).",
            "test: the official val split; no labels of the official test split are public.",
        ],
    }


def _read(path: Path) -> list[_Frame]:
    try:
        frames = msgspec.json.decode(read_bytes(path), type=list[_Frame])
    except UNDECODABLE as error:
        raise BadData(
            f"{path} is not BDD100K's detection labels: {error}. Expected a list of frames (name, "
            "labels), each label with a category and a box2d (x1, y1, x2, y2), as in det_20's "
            "det_train.json or bdd100k_labels_images_train.json of 2018."
        ) from error
    if not frames:
        raise BadData(f"{path} lists no frame. Give another file.")
    outside = next((frame.name for frame in frames if not stays_inside(frame.name)), None)
    if outside is not None:
        raise BadData(
            f"{path} has a frame with the name {outside!r}, which leads out of the folder of "
            "images. Expected the name of a file in it: mend or remove the frame."
        )
    twice = first_repeated([frame.name for frame in frames])
    if twice is not None:
        raise BadData(f"{path} has two frames with the name {twice!r}. Remove one.")
    return frames


def _to_coco(frames: list[_Frame], path: Path, counts: Counter[str]) -> dict[str, Any]:
    """The frames as a COCO mapping; what was left out or changed is added to `counts`."""
    annotations: list[dict[str, Any]] = []
    for number, frame in enumerate(frames, start=1):
        for label in frame.labels or ():
            found = _annotation(label, frame, path, counts)
            if found is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **found})
    return {
        "images": [
            {"id": number, "file_name": frame.name, "width": WIDTH, "height": HEIGHT}
            for number, frame in enumerate(frames, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
    }


def _annotation(
    label: _Label, frame: _Frame, path: Path, counts: Counter[str]
) -> dict[str, Any] | None:
    ignored = label.category in _IGNORED
    category = _IGNORED.get(label.category) or _SAME.get(label.category, label.category)
    if category not in CLASSES:
        if label.box2d is None:
            counts["other"] += 1
            return None
        known = ", ".join([*CLASSES, *_SAME, *_IGNORED])
        raise BadData(
            f"{path}: frame {frame.name} has a box of the category {label.category!r}; known are "
            f"{known}. Remove the label, or give it one of these."
        )
    if label.box2d is None:
        raise BadData(
            f"{path}: frame {frame.name} has a {label.category!r} without a box2d. Remove the "
            "label, or give the labels of detection."
        )
    box = label.box2d
    x1, x2 = (min(max(x, 0.0), WIDTH) for x in (box.x1, box.x2))
    y1, y2 = (min(max(y, 0.0), HEIGHT) for y in (box.y1, box.y2))
    if x2 <= x1 or y2 <= y1:
        counts["degenerate"] += 1
        return None
    counts["clipped"] += (x1, y1, x2, y2) != (box.x1, box.y1, box.x2, box.y2)
    counts["ignored"] += ignored
    crowd = label.attributes is not None and label.attributes.crowd is True
    return {
        "category_id": CLASSES.index(category) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(crowd or ignored),
        "ignore": int(ignored),
    }
