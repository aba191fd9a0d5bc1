"""COCO instances files: read with everything in place that training and evaluation rely on.

COCO's own file has 450 MB, nine tenths of them outlines, which no detector of boxes reads. So a
file is decoded straight into the few fields that count, and where that fails it is read again, as
plain JSON, to say what is wrong with it.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from paploss.errors import BadData
from paploss.files import write_atomic
from paploss.paths import stays_inside
from trainers.datasets.instance_faults import REQUIRED, faults, first_fault

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected."""


class Image(msgspec.Struct, gc=False):
    """One image; its width and height in pixels, at least 1."""

    id: int
    file_name: Annotated[str, Meta(min_length=1)]
    width: Annotated[float, Meta(ge=1)]
    height: Annotated[float, Meta(ge=1)]


class Annotation(msgspec.Struct, gc=False):
    """One object: a box as x, y, width, height in pixels, anywhere."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int | bool
    ignore: int | bool | None = 0


class Category(msgspec.Struct, gc=False):
    id: int
    name: str


class Instances(msgspec.Struct):
    """The three lists of a COCO instances file.

    Ids are unique in each list, every annotation has an image and a category of the file, every
    box is finite, every image's file is in the folder of images or below it. That boxes lie in
    their images is not checked here.
    """

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]

    @property
    def classes(self) -> list[str]:
        """Names of the categories in the order of the file."""
        return [category.name for category in self.categories]

    def boxes(self) -> NDArray[np.float64]:
        """[N, 4] float64: x, y, width, height of the annotations."""
        boxes = [annotation.bbox for annotation in self.annotations]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def read_instances(path: Path) -> Instances:
    """A COCO instances file.

    Raises:
        BadData: the file is missing, is not JSON, or is not COCO instances.
    """
    return parse_instances(path, read_bytes(path))


def parse_instances(path: Path, content: bytes) -> Instances:
    """`read_instances` of a file whose content is there already."""
    try:
        instances = _DECODER.decode(content)
    except UNDECODABLE as error:
        raise BadData(first_fault(path, content, str(error))) from error
    if not _is_sound(instances):
        raise BadData(first_fault(path, content, "its ids do not fit together"))
    return instances


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file; BadData where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadData(
            f"cannot read the annotation file {path}: {error.strerror}. Check the path, or make "
            "the data set first: `paploss data --help` lists how."
        ) from error


def read_classes(path: Path) -> list[str]:
    """Names of the categories of a COCO instances file in their order, and nothing else read.

    Raises:
        BadData: as `read_instances` does, as far as the categories go.
    """
    content = read_bytes(path)
    try:
        names = [category.name for category in _CATEGORIES.decode(content).categories]
    except UNDECODABLE as error:
        raise BadData(first_fault(path, content, str(error))) from error
    if len(set(names)) < len(names):
        raise BadData(first_fault(path, content, "two categories have one name"))
    return names


def find_faults(path: Path) -> list[str]:
    """Everything that `read_instances` would refuse a file for: a line for each kind of fault.

    Empty for a file that it takes.
    """
    try:
        read_instances(path)
    except BadData as first:
        try:
            coco = json.loads(read_bytes(path))
        except (ValueError, RecursionError, BadData):
            return [str(first)]
        return list(faults(path, coco)) or [str(first)]
    return []


def write_coco(path: Path, coco: dict[str, Any]) -> None:
    """Write a COCO mapping without spaces, whole or not at all."""
    write_atomic(path, json.dumps(coco, separators=(",", ":")) + "\n")


class _Categories(msgspec.Struct):
    categories: list[Category]


_DECODER = msgspec.json.Decoder(Instances)
_CATEGORIES = msgspec.json.Decoder(_Categories)


def _is_sound(instances: Instances) -> bool:
    """What types alone cannot say: ids, names and references. Numbers of JSON are finite."""
    ids: dict[str, set[int]] = {}
    for section in REQUIRED:
        records = getattr(instances, section)
        ids[section] = {record.id for record in records}
        if len(ids[section]) < len(records):
            return False
    return (
        len(set(instances.classes)) == len(instances.classes)
        and all(stays_inside(image.file_name) for image in instances.images)
        and {each.image_id for each in instances.annotations} <= ids["images"]
        and {each.category_id for each in instances.annotations} <= ids["categories"]
    )
