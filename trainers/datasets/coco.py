"""A data set: three splits of COCO instances, and the `dataset.yaml` that names them.

    name: shapes
    classes: [square, circle, triangle]
    train: {annotations: train.json, images: train}
    val: {annotations: val.json, images: val}
    test: {annotations: test.json, images: test}

A search trains on train, takes its rewards from val and publishes numbers from test only.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from paploss.errors import BadData
from paploss.files import read_yaml, write_atomic, write_yaml
from paploss.strict import StrictModel, parse

SPLITS = ("train", "val", "test")
DATASET_FILE = "dataset.yaml"

# What mmdet and the COCO evaluators read without asking whether it is there.
_REQUIRED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}

_NUMBER = (int, float)

Item = TypeVar("Item")


class SplitConfig(StrictModel):
    """One split: a COCO instances file, and the folder its file names start from."""

    annotations: Path
    images: Path


class DataConfig(StrictModel):
    """A data set, as `dataset.yaml` holds it and as a training YAML carries it."""

    name: str = Field(min_length=1)
    classes: list[str] = Field(min_length=1, description="in the order of the files' categories")
    train: SplitConfig
    val: SplitConfig
    test: SplitConfig
    source: dict[str, str | int] = Field({}, description="what made the data set, with what")

    @field_validator("classes")
    @classmethod
    def _no_class_twice(cls, classes: list[str]) -> list[str]:
        twice = first_repeated(classes)
        if twice is not None:
            raise ValueError(f"class {twice!r} is listed twice")
        return classes

    def splits(self) -> dict[str, SplitConfig]:
        """{"train": ..., "val": ..., "test": ...}."""
        return {name: getattr(self, name) for name in SPLITS}

    def anchored(self, folder: Path) -> "DataConfig":
        """The same data set with every relative path taken from `folder`, and so absolute."""

        def anchor(path: Path) -> Path:
            return Path(os.path.abspath(folder / path))

        return self.model_copy(
            update={
                name: SplitConfig(
                    annotations=anchor(split.annotations), images=anchor(split.images)
                )
                for name, split in self.splits().items()
            }
        )


def load_data(path: Path) -> DataConfig:
    """The data set that a `dataset.yaml` describes, its paths absolute.

    Relative paths in the file start from the file's own folder. That the files exist and fit
    together is `check.check_dataset`'s to say.

    Raises:
        BadConfig: the file is missing, is not YAML, or has unknown, missing or wrong keys.
    """
    path = Path(path)
    return parse(DataConfig, read_yaml(path), str(path)).anchored(path.parent)


def write_dataset_yaml(path: Path, data: DataConfig, header: str = "") -> None:
    """Write `data` to `path`, whole or not at all.

    Paths below the file's folder become relative to it, so that the folder can be moved; others
    become absolute.
    """
    folder = Path(os.path.abspath(path.parent))

    def portable(value: Path) -> str:
        value = Path(os.path.abspath(value))
        return value.relative_to(folder).as_posix() if value.is_relative_to(folder) else str(value)

    values = data.model_dump(mode="json", exclude_defaults=True)
    for name, split in data.splits().items():
        values[name] = {
            "annotations": portable(split.annotations),
            "images": portable(split.images),
        }
    write_yaml(path, values, header)


def already_made(out: Path, source: dict[str, str | int]) -> bool:
    """Whether `out` holds the finished data set that `source` describes.

    A folder without `dataset.yaml` is unfinished: the file is written last.

    Raises:
        BadData: `out` holds another data set, which is not overwritten.
    """
    path = out / DATASET_FILE
    if not path.exists():
        return False
    made = load_data(path).source
    if made == source:
        return True
    raise BadData(
        f"{out} already holds another data set: made with {made or 'nothing that is known here'}, "
        f"asked for {source}. Give another folder, or delete {out} first."
    )


def read_coco(path: Path) -> dict[str, Any]:
    """A COCO instances file, with everything in place that training and evaluation read.

    Returns:
        The file's mapping. Ids are whole numbers and unique, every annotation has an image and
        a category of the file, boxes are four finite numbers. That boxes lie in their images is
        not checked here.

    Raises:
        BadData: the file is missing, is not JSON, or is not COCO instances.
    """
    try:
        coco = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise BadData(
            f"cannot read the annotation file {path}: {error.strerror}. Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadData(
            f"{path} is not valid JSON ({error}). It should be a COCO instances file: give "
            "another one, or make it again if it was cut short."
        ) from error
    if not isinstance(coco, dict):
        raise _not_instances(path, f"it holds a {type(coco).__name__}")
    for section, keys in _REQUIRED.items():
        _check_records(path, coco.get(section), section, keys)
    _check_values(path, coco)
    return coco


def write_coco(path: Path, coco: dict[str, Any]) -> None:
    """Write a COCO mapping without spaces, whole or not at all."""
    write_atomic(path, json.dumps(coco, separators=(",", ":")) + "\n")


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Turns what the file system refuses into BadData about the folder `out`."""
    try:
        yield
    except OSError as error:
        raise BadData(
            f"cannot write to {out}: {error.strerror}. Give a folder that can be written and has "
            "space left."
        ) from error


def boxes_of(annotations: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """[N, 4] float64: x, y, width, height.

    Raises:
        ValueError: a box is not four finite numbers.
    """
    if not annotations:
        return np.zeros((0, 4))
    # A dtype here would turn strings into numbers; left alone, NumPy shows what it was given.
    boxes = np.array([annotation["bbox"] for annotation in annotations])
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        raise ValueError("boxes should be four numbers each")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes should be finite")
    return boxes.astype(np.float64)


def split_off(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """(`count` items drawn by `seed`, the rest), both in the order of `items`."""
    drawn = set(np.random.default_rng(seed).permutation(len(items))[:count].tolist())
    return (
        [item for index, item in enumerate(items) if index in drawn],
        [item for index, item in enumerate(items) if index not in drawn],
    )


def first_repeated(values: Sequence[Item]) -> Item | None:
    """The first of `values` that was there before, or None."""
    seen: set[Item] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _not_instances(path: Path, found: str) -> BadData:
    return BadData(
        f"{path} is not a COCO instances file: {found}. Expected an object with the lists images "
        "(id, file_name, width, height), annotations (id, image_id, category_id, bbox, area, "
        "iscrowd) and categories (id, name), like COCO's instances_*.json."
    )


def _check_records(path: Path, records: Any, section: str, keys: tuple[str, ...]) -> None:
    if not isinstance(records, list):
        raise _not_instances(path, f"it has no list {section!r}")
    wanted = set(keys)
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise _not_instances(path, f"{section}[{index}] is a {type(record).__name__}")
        if not wanted <= record.keys():
            missing = ", ".join(repr(key) for key in keys if key not in record)
            raise _not_instances(path, f"{section}[{index}] has no {missing}")


def _check_values(path: Path, coco: dict[str, Any]) -> None:
    ids = {section: _check_ids(path, coco[section], section) for section in _REQUIRED}
    for index, image in enumerate(coco["images"]):
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise _not_instances(path, f"images[{index}] has file_name {image['file_name']!r}")
        for side in ("width", "height"):
            if not isinstance(image[side], _NUMBER) or not image[side] >= 1:
                raise _not_instances(path, f"images[{index}] has {side} {image[side]!r}")
    names = [category["name"] for category in coco["categories"]]
    if not all(isinstance(name, str) for name in names) or first_repeated(names) is not None:
        raise _not_instances(path, f"its category names are {names}, not all different texts")
    for index, annotation in enumerate(coco["annotations"]):
        for key, section in (("image_id", "images"), ("category_id", "categories")):
            value = annotation[key]
            if not isinstance(value, int) or value not in ids[section]:
                raise BadData(
                    f"{path}: annotations[{index}] (id {annotation['id']}) has {key} {value!r}, "
                    f"which none of its {section} has. Mend the file, or remove the annotation."
                )
        if not isinstance(annotation["area"], _NUMBER):
            raise _not_instances(path, f"annotations[{index}] has area {annotation['area']!r}")
    try:
        boxes_of(coco["annotations"])
    except ValueError:
        index = next(i for i, a in enumerate(coco["annotations"]) if not _is_box(a))
        box = coco["annotations"][index]["bbox"]
        raise _not_instances(
            path, f"annotations[{index}] has bbox {box!r}, not four finite numbers"
        ) from None


def _is_box(annotation: dict[str, Any]) -> bool:
    try:
        return len(boxes_of([annotation])) == 1
    except ValueError:
        return False


def _check_ids(path: Path, records: list[dict[str, Any]], section: str) -> set[int]:
    ids = [record["id"] for record in records]
    for index, value in enumerate(ids):
        if not isinstance(value, int):
            raise _not_instances(path, f"{section}[{index}] has id {value!r}, not a whole number")
    unique = set(ids)
    if len(unique) < len(ids):
        raise BadData(
            f"{path} has two {section} with the id {first_repeated(ids)}. Ids have to be unique: "
            "number them anew."
        )
    return unique
