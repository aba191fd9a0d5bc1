"""What is wrong with a file that should be COCO instances, said in words.

Slow and thorough: it looks at a file only after `instances` has refused it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from paploss.paths import stays_inside

# What mmdet and the COCO evaluators read without asking whether it is there.
REQUIRED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}
_NUMBER = (int, float)

Item = TypeVar("Item")


def first_fault(path: Path, content: bytes, otherwise: str) -> str:
    """The first fault of a file that was refused; `otherwise` if plain JSON finds none."""
    try:
        coco = json.loads(content)
    except (ValueError, RecursionError) as error:
        return (
            f"{path} is not valid JSON ({error}). It should be a COCO instances file: give "
            "another one, or make it again if it was cut short."
        )
    return next(faults(path, coco), _not_instances(path, otherwise))


def faults(path: Path, coco: Any) -> Iterator[str]:
    """A message for each kind of fault; what is missing hides what could be wrong with it."""
    if not isinstance(coco, dict):
        yield _not_instances(path, f"it holds a {type(coco).__name__}")
        return
    structure = [_structure(coco.get(section), section) for section in REQUIRED]
    yield from (_not_instances(path, found) for found in structure if found)
    if any(structure):
        return
    for section in REQUIRED:
        yield from _id_faults(path, coco[section], section)
    yield from _value_faults(path, coco)
    yield from _reference_faults(path, coco)


def _not_instances(path: Path, found: str) -> str:
    return (
        f"{path} is not a COCO instances file: {found}. Expected an object with the lists images "
        "(id, file_name, width, height), annotations (id, image_id, category_id, bbox, area, "
        "iscrowd) and categories (id, name), like COCO's instances_*.json."
    )


def _structure(records: Any, section: str) -> str:
    """What is wrong with the form of a list, or nothing."""
    if not isinstance(records, list):
        return f"it has no list {section!r}"
    keys = REQUIRED[section]
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            return f"{section}[{index}] is a {type(record).__name__}"
        missing = ", ".join(repr(key) for key in keys if key not in record)
        if missing:
            return f"{section}[{index}] has no {missing}"
    return ""


def _id_faults(path: Path, records: list[dict[str, Any]], section: str) -> Iterator[str]:
    ids = [record["id"] for record in records]
    wrong = [index for index, value in enumerate(ids) if type(value) is not int]
    if wrong:
        found = f"{section}[{wrong[0]}] has id {ids[wrong[0]]!r}, not a whole number"
        yield _not_instances(path, found + _others(len(wrong) - 1))
        return
    repeated = len(ids) - len(set(ids))
    if repeated:
        yield (
            f"{path} has two {section} with the id {first_repeated(ids)}{_others(repeated - 1)}. "
            "Ids have to be unique: number them anew."
        )


def _value_faults(path: Path, coco: dict[str, Any]) -> Iterator[str]:
    names = [category["name"] for category in coco["categories"]]
    if not all(isinstance(name, str) for name in names) or first_repeated(names) is not None:
        yield _not_instances(path, f"its category names are {names}, not all different texts")
    checks: list[tuple[str, str, Callable[[Any], bool], str]] = [
        ("images", "file_name", lambda name: isinstance(name, str) and name != "", ""),
        ("images", "width", _is_side, ""),
        ("images", "height", _is_side, ""),
        ("annotations", "area", lambda area: isinstance(area, _NUMBER), ""),
        ("annotations", "iscrowd", lambda crowd: isinstance(crowd, int), ", not 0 or 1"),
        ("annotations", "bbox", _is_box, ", not four finite numbers"),
    ]
    outside = [
        image["file_name"] for image in coco["images"]
        if isinstance(image["file_name"], str) and image["file_name"]
        and not stays_inside(image["file_name"])
    ]  # fmt: skip
    if outside:
        yield (
            f"{path}: an image has the file name {outside[0]!r}, which leads out of the folder of "
            f"images{_others(len(outside) - 1)}. Expected names relative to that folder, without "
            '"..": mend the names, or give the folder above as `images`.'
        )
    for section, key, is_right, expected in checks:
        wrong = [i for i, record in enumerate(coco[section]) if not is_right(record[key])]
        if wrong:
            value = coco[section][wrong[0]][key]
            found = f"{section}[{wrong[0]}] has {key} {value!r}{expected}"
            yield _not_instances(path, found + _others(len(wrong) - 1))


def _reference_faults(path: Path, coco: dict[str, Any]) -> Iterator[str]:
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        known = [record["id"] for record in coco[section]]
        ids = {value for value in known if isinstance(value, int)}
        wrong = [
            index
            for index, annotation in enumerate(coco["annotations"])
            if not isinstance(annotation[key], int) or annotation[key] not in ids
        ]
        if wrong:
            first = coco["annotations"][wrong[0]]
            yield (
                f"{path}: annotations[{wrong[0]}] (id {first['id']}) has {key} {first[key]!r}, "
                f"which none of its {section} has{_others(len(wrong) - 1)}. Mend the file, or "
                "remove the annotation."
            )


def _is_side(value: Any) -> bool:
    return isinstance(value, _NUMBER) and bool(value >= 1)


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(number, _NUMBER) for number in value)
        and bool(np.isfinite(np.array(value, dtype=np.float64)).all())
    )


def _others(count: int) -> str:
    return f" (and {count:,} more like it)" if count > 0 else ""


def first_repeated(values: Sequence[Item]) -> Item | None:
    """The first of `values` that was there before, or None."""
    seen: set[Item] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
