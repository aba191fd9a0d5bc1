"""Whether a data set can be searched on, said before the first trial is spent."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paploss.errors import BadData
from trainers.datasets.coco import DataConfig, SplitConfig, boxes_of, read_coco


@dataclass(frozen=True)
class SplitReport:
    """What is in one split.

    Attributes:
        boxes: those that are trained on or count in the evaluation.
        images_without_boxes: images that have none of these.
        boxes_per_class: {class: boxes}, in the order of the classes.
    """

    images: int
    boxes: int
    images_without_boxes: int
    boxes_per_class: dict[str, int]


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` saw. Sizes are (width, height) in pixels, each side on its own."""

    name: str
    classes: list[str]
    splits: dict[str, SplitReport]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    warnings: list[str]

    def lines(self) -> list[str]:
        """For the terminal."""
        size = " x ".join(map(str, self.smallest))
        if self.smallest != self.largest:
            size += " to " + " x ".join(map(str, self.largest))
        names = ", ".join(self.classes[:6]) + (", ..." if len(self.classes) > 6 else "")
        noun = "class" if len(self.classes) == 1 else "classes"
        rows = [
            f"  {name:<5} {split.images:>9,} images {split.boxes:>11,} boxes"
            f" {split.images_without_boxes:>9,} images without boxes"
            for name, split in self.splits.items()
        ]
        head = f"{self.name}: {len(self.classes)} {noun} ({names}), images {size}"
        return [head, *rows, *(f"  warning: {warning}" for warning in self.warnings)]

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class _Split:
    """One split as read; the COCO mapping itself is let go, as it can take gigabytes."""

    report: SplitReport
    categories: list[tuple[int, str]]
    files: set[str]  # real paths of the images
    sizes: NDArray[np.float64]  # [images, 2] width, height
    warnings: list[str]


def check_dataset(data: DataConfig, *, min_image_size: int = 1) -> DatasetReport:
    """Read all three splits, and compare them with each other and with `classes`.

    Args:
        data: with absolute paths, as `coco.load_data` gives it.
        min_image_size: images with a shorter side below this are not trained on (mmdet's
            `filter_cfg.min_size`).

    Raises:
        BadData: the first thing found that would fail in a trial or make its AP wrong.
    """
    splits: dict[str, _Split] = {}
    for name, config in data.splits().items():
        split = _read_split(name, config, data.classes, min_image_size if name == "train" else 1)
        _check_categories(name, config, split, data.classes, splits)
        splits[name] = split
    for (name, split), (other, seen) in combinations(reversed(splits.items()), 2):
        _check_disjoint(name, split, other, seen)
    sizes = np.concatenate([split.sizes for split in splits.values()])
    return DatasetReport(
        name=data.name,
        classes=data.classes,
        splits={name: split.report for name, split in splits.items()},
        smallest=_pair(sizes.min(0)),
        largest=_pair(sizes.max(0)),
        warnings=[line for split in splits.values() for line in split.warnings],
    )


def _read_split(name: str, config: SplitConfig, classes: list[str], min_size: int) -> _Split:
    coco = read_coco(config.annotations)
    if not coco["images"]:
        raise BadData(f"{name}: {config.annotations} lists no images. Give another file.")
    files = _real_paths(name, config, [image["file_name"] for image in coco["images"]])
    sizes = np.array([(image["width"], image["height"]) for image in coco["images"]])
    boxes, warnings = _count_boxes(coco, sizes)
    kept = [
        image["id"] in boxes and min(image["width"], image["height"]) >= min_size
        for image in coco["images"]
    ]
    if not any(kept):
        raise BadData(
            f"{name}: none of the {len(kept)} images of {config.annotations} is left after "
            "filtering: not one has a usable box (inside the image, at least 1 x 1 pixel, "
            f"neither crowd nor ignored) and a side of at least {min_size} pixels. Check its "
            "boxes."
        )
    per_class = sum(boxes.values(), Counter[int]())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    report = SplitReport(
        images=len(kept),
        boxes=sum(per_class.values()),
        images_without_boxes=len(kept) - len(boxes),
        boxes_per_class={label: per_class[number] for number, label in names.items()},
    )
    absent = [label for label, count in report.boxes_per_class.items() if count == 0]
    if absent:
        warnings.append(f"no box of {', '.join(absent)}")
    if len(set(files)) < len(files):
        warnings.append(f"images listed more than once: {len(files) - len(set(files)):,}")
    warnings = [f"{name}: {warning}." for warning in warnings]
    return _Split(report, list(names.items()), set(files), sizes, warnings)


def _count_boxes(
    coco: dict[str, Any], sizes: NDArray[np.float64]
) -> tuple[dict[int, Counter[int]], list[str]]:
    """({image id: {category id: usable boxes}} of images that have any, warnings).

    Usable as mmdet's CocoDataset has it.
    """
    annotations = coco["annotations"]
    row = {image["id"]: index for index, image in enumerate(coco["images"])}
    boxes = boxes_of(annotations)
    width, height = sizes[[row[a["image_id"]] for a in annotations]].reshape(-1, 2).T
    x, y, w, h = boxes.T
    inside_w = np.minimum(x + w, width) - np.maximum(x, 0)
    inside_h = np.minimum(y + h, height) - np.maximum(y, 0)
    area = np.array([a["area"] for a in annotations], dtype=np.float64)
    crowd = np.array([bool(a["iscrowd"]) for a in annotations], dtype=bool)
    ignored = np.array([bool(a.get("ignore")) for a in annotations], dtype=bool)
    tiny = (w < 1) | (h < 1) | ~(area > 0)
    outside = ~tiny & ~((inside_w > 0) & (inside_h > 0))
    # A thousandth of a pixel is what a converter may lose to rounding.
    beyond = ~tiny & ~outside & ((inside_w < w - 1e-3) | (inside_h < h - 1e-3))
    usable = ~(tiny | outside | crowd | ignored)

    counted: dict[int, Counter[int]] = {}
    for index in np.flatnonzero(usable).tolist():
        annotation = annotations[index]
        counts = counted.setdefault(annotation["image_id"], Counter())
        counts[annotation["category_id"]] += 1
    found = (
        (tiny, "boxes without area or under 1 pixel wide or high", "not trained on"),
        (outside, "boxes outside their image", "not trained on"),
        (beyond, "boxes that reach beyond their image", "clipped in training"),
        (
            ignored & ~crowd,
            "boxes with `ignore` and no `iscrowd`",
            "training skips them, but the evaluation counts them as missed",
        ),
        (
            np.array([a["id"] == 0 for a in annotations], dtype=bool),
            "boxes with the annotation id 0",
            "pycocotools takes it for no match; number from 1",
        ),
    )
    return counted, [
        f"{what}: {mask.sum():,} ({meaning})" for mask, what, meaning in found if mask.any()
    ]


def _real_paths(split: str, config: SplitConfig, names: list[str]) -> list[str]:
    """Where each image really is, links followed. Raises BadData for those that are missing."""
    if not config.images.is_dir():
        raise BadData(
            f"{split}: the image folder {config.images} does not exist. Correct `{split}.images`."
        )
    # Listing a folder tells names and links at once: far cheaper than asking for 118,000 files.
    folders: dict[str, tuple[str, dict[str, bool]]] = {}
    paths, missing = [], []
    for name in names:
        folder, leaf = os.path.split(os.path.join(config.images, name))
        if folder not in folders:
            folders[folder] = _listing(folder)
        real, is_link = folders[folder]
        path = os.path.join(real, leaf)
        if is_link.get(leaf):
            path = os.path.realpath(path)
        if leaf not in is_link or (is_link[leaf] and not os.path.exists(path)):
            missing.append(name)
        paths.append(path)
    if missing:
        raise BadData(
            f"{split}: images of {config.annotations} missing from {config.images}: "
            f"{len(missing):,} of {len(names):,}, the first is {missing[0]!r}. Correct "
            f"`{split}.images`, or add the files."
        )
    return paths


def _listing(folder: str) -> tuple[str, dict[str, bool]]:
    """(real path of a folder, {file name: whether it is a link}); nothing for no folder."""
    try:
        with os.scandir(folder) as entries:
            return os.path.realpath(folder), {entry.name: entry.is_symlink() for entry in entries}
    except OSError:
        return folder, {}


def _check_categories(
    name: str, config: SplitConfig, split: _Split, classes: list[str], before: dict[str, _Split]
) -> None:
    labels = [label for _, label in split.categories]
    if labels != classes:
        raise BadData(
            f"{name}: {config.annotations} has the categories {_few(labels)}, but `classes` is "
            f"{_few(classes)}: {_difference(labels, classes)}. List in `classes` the file's "
            "categories, in the order of the file."
        )
    for other, seen in before.items():
        if seen.categories != split.categories:
            raise BadData(
                f"{name}: {config.annotations} gives its categories the ids "
                f"{_few(number for number, _ in split.categories)}, but {other} has "
                f"{_few(number for number, _ in seen.categories)}. Use the same ids in both files."
            )


def _difference(labels: list[str], classes: list[str]) -> str:
    extra = [label for label in labels if label not in classes]
    lacking = [label for label in classes if label not in labels]
    parts = [f"{_few(extra)} only in the file"] if extra else []
    parts += [f"{_few(lacking)} only in `classes`"] if lacking else []
    return " and ".join(parts) or "the same in another order, which would mix up the labels"


def _few(values: Iterable[Any]) -> str:
    """The first ten values, so that a message about 80 classes stays readable."""
    shown = [repr(value) for value in values]
    return "[" + ", ".join(shown[:10]) + (f", ... {len(shown)}]" if len(shown) > 10 else "]")


def _check_disjoint(name: str, split: _Split, other: str, seen: _Split) -> None:
    shared = split.files & seen.files
    if shared:
        raise BadData(
            f"{name} shares images with {other}: {len(shared):,}, the first is "
            f"{Path(min(shared)).name}. The three splits need images of their own, or the AP on "
            f"{name} says nothing about unseen images: take them out of one of the two."
        )


def _pair(values: NDArray[np.float64]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
